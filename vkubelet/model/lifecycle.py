"""
When a container is started again, and when a pod is over.

Small predicates that the pod engine, the status and the pod controller share, so that they cannot disagree.
Back-off delays are `model.backoff`'s.
"""

from __future__ import annotations

from vkubelet.model.pod import Container, Json, Pod, PodPhase, RestartPolicy

__all__ = [
    "effective_grace_period_s",
    "is_phase_terminal",
    "should_restart",
]


def is_phase_terminal(phase: PodPhase) -> bool:
    """Succeeded or Failed: a pod never leaves them."""
    return phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)


def should_restart(container: Container, exit_code: int, restart_policy: RestartPolicy) -> bool:
    """
    Whether a container that ended with `exit_code` is started again (Kubernetes docs, "Pod Lifecycle").

    In order: the container's own `restartPolicyRules`, its own `restartPolicy`, the pod's `restart_policy`.
    An init container without a policy of its own that ended with 0 is done, whatever the pod's policy; that
    is for the caller to know, as it is for the kubelet's.
    """
    own = container.restart_policy
    if own is not None and _rule_restarts(container.raw.get("restartPolicyRules") or [], exit_code):
        return True
    match own or restart_policy:
        case RestartPolicy.ALWAYS:
            return True
        case RestartPolicy.ON_FAILURE:
            return exit_code != 0
        case RestartPolicy.NEVER:
            return False


def _rule_restarts(rules: list[Json], exit_code: int) -> bool:
    """The first of the `restartPolicyRules` whose exit codes match decides; its actions are all restarts."""
    for rule in rules:
        wanted: Json = rule.get("exitCodes") or {}
        listed = exit_code in (wanted.get("values") or ())
        if wanted and listed == (wanted.get("operator") == "In"):
            return True
    return False


def effective_grace_period_s(pod: Pod, *, override_s: int | None = None) -> int:
    """
    How long the pod's containers get between the polite signal and the forced one, at least 1 s.

    The grace period of its deletion, else the one of its spec; `override_s` (an eviction, a passed deadline)
    can only shorten it. Zero becomes 1, as in the kubelet: also a forced deletion gives the process the
    chance to hear the signal.
    """
    period_s = pod.deletion_grace_period_s
    if period_s is None:
        period_s = pod.termination_grace_period_s
    if override_s is not None:
        period_s = min(period_s, override_s)
    return max(period_s, 1)
