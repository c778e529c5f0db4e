"""
What a pod needs next: the kubelet's computePodActions, as a function of values.

From the pod, what the runtime has of it and what the engine keeps in mind follow the steps to take now, the
reasons for which containers wait, and when to look again. `pod_worker` performs the steps and asks again,
until there are none. Deciding one stage at a time from fresh observations (and not planning the way to
Running) is what makes it indifferent to where a crash, a restart of vkubelet or somebody's ``docker rm``
interrupted it.

Which volumes and images are there, and what went wrong when starting a container, comes in with
`PodMemory`; how a state looks in the API is `observe`'s.
"""

from __future__ import annotations

import datetime
import zlib

from vkubelet.kuberuntime import delays
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerStatus, RuntimePod, SandboxInfo
from vkubelet.kuberuntime.history import (
    START_ERROR_EXIT_CODE,
    History,
    failures_before,
    has_ended,
    history_of,
    is_live,
)
from vkubelet.kuberuntime.plan import (
    Action,
    CreateSandbox,
    KillContainer,
    Plan,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopSandbox,
)
from vkubelet.kuberuntime.pod_memory import PodMemory
from vkubelet.model import backoff, lifecycle
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodFailure, Waiting
from vkubelet.model.pod import Container, ContainerKind, Pod, RestartPolicy

__all__ = ["ended_with", "next_actions", "pod_started_at", "spec_hash"]

_KEPT_ATTEMPTS = 2
_DEADLINE_EXCEEDED = PodFailure(
    "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
)


def spec_hash(container: Container) -> str:
    """Changes when a running container must be replaced: its image is all that the API lets change."""
    text = f"{container.name} {container.image}"
    return f"{zlib.crc32(text.encode()):08x}"


def ended_with(info: ContainerInfo) -> int:
    """The exit code of an attempt that is over; 128 for one that could not be started, as containerd's."""
    return START_ERROR_EXIT_CODE if info.error else info.exit_code


def pod_started_at(pod: Pod, memory: PodMemory) -> datetime.datetime | None:
    """`status.startTime`, else when this process took the pod on."""
    text: str | None = pod.status.get("startTime")
    return datetime.datetime.fromisoformat(text) if text else memory.start_time


def next_actions(memory: PodMemory, status: RuntimePod, now: datetime.datetime) -> Plan:
    """
    What the pod needs next.

    Args:
        memory: what is wanted and what is under way; not changed.
        status: what the runtime has, read after everything earlier was performed.
        now: wall time.
    """
    pod = memory.pod
    if memory.stop_by is not None:
        return _stop_all(pod, status, memory.stop_by, now)
    if pod is None:
        return Plan()
    if pod.is_terminal:
        return _stop_all(pod, status, now + datetime.timedelta(seconds=pod.termination_grace_period_s), now)
    return _Planner(memory, pod, status, now).plan()


def _stop_all(
    pod: Pod | None, status: RuntimePod, stop_by: datetime.datetime, now: datetime.datetime
) -> Plan:
    """Containers first, sidecars after the others and in reverse order, then the sandbox."""
    live = [c for c in status.containers if is_live(c)]
    if live:
        chosen = live if now >= stop_by else _first_to_stop(pod, live)
        kills = tuple(KillContainer(c.id, c.name, _stopping(c.name), stop_by) for c in chosen)
        return Plan(kills, wake_at=stop_by if len(chosen) < len(live) else None)
    ready = [s for s in status.sandboxes if s.ready]
    return Plan(tuple(StopSandbox(s.id) for s in ready), over=not ready)


def _first_to_stop(pod: Pod | None, live: list[ContainerInfo]) -> list[ContainerInfo]:
    order = {c.name: c.index for c in pod.init_containers if c.is_sidecar} if pod else {}
    others = [c for c in live if c.name not in order]
    return others or [max(live, key=lambda c: order[c.name])]


def _stopping(name: str) -> str:
    return f"Stopping container {name}"


class _Planner:
    """Builds the plan of a pod that shall live; one use."""

    def __init__(self, memory: PodMemory, pod: Pod, status: RuntimePod, now: datetime.datetime) -> None:
        self._memory = memory
        self._pod = pod
        self._status = status
        self._now = now
        self._actions: list[Action] = []
        self._waiting: dict[str, Waiting] = {}
        self._backing_off: dict[str, int] = {}
        self._wake_at: datetime.datetime | None = None
        self._has_losses = False

    def plan(self) -> Plan:
        """The steps of the present stage."""
        if self._is_past_deadline():
            return Plan(failure=_DEADLINE_EXCEEDED)
        sandbox = self._usable_sandbox()
        over = self._renew_sandbox() if sandbox is None else self._advance(sandbox)
        return Plan(
            tuple(self._actions), self._waiting, self._backing_off, self._wake_at, over, self._has_losses
        )

    # --- deadline and sandbox -------------------------------------------------------------------------

    def _is_past_deadline(self) -> bool:
        allowed_s = self._pod.active_deadline_s
        started_at = pod_started_at(self._pod, self._memory) if allowed_s is not None else None
        if allowed_s is None or started_at is None:
            return False
        deadline = started_at + datetime.timedelta(seconds=allowed_s)
        self._look_again(deadline)
        return self._now >= deadline and not self._is_finished()

    def _is_finished(self) -> bool:
        """Every app container has ended for good, or an init container has failed for good."""
        if all(self._is_done(c, self._history(c)) for c in self._pod.containers):
            return True
        inits = (c for c in self._pod.init_containers if not c.is_sidecar)
        return any(self._has_failed(c, self._history(c)) for c in inits)

    def _usable_sandbox(self) -> SandboxInfo | None:
        """The newest one, if it is ready, the only ready one, and has its address."""
        ready = [s for s in self._status.sandboxes if s.ready]
        if len(ready) != 1 or ready[0].attempt != max(s.attempt for s in self._status.sandboxes):
            return None
        return ready[0] if ready[0].ips or self._pod.host_network else None

    def _renew_sandbox(self) -> bool:
        """Stop what is left of the old sandbox, then make a new one if anything is to be started in it."""
        live = [c for c in self._status.containers if is_live(c)]
        if live:
            again = self._pod.restart_policy is not RestartPolicy.NEVER
            self._actions += [KillContainer(c.id, c.name, _stopping(c.name), restart=again) for c in live]
            return False
        if ready := [s for s in self._status.sandboxes if s.ready]:
            self._actions += [StopSandbox(s.id) for s in ready]
            return False
        if not self._needs_sandbox():
            return True
        if self._may_start_anything():
            attempts = [s.attempt for s in self._status.sandboxes]
            self._actions.append(CreateSandbox(max(attempts, default=-1) + 1, replaces=bool(attempts)))
        return False

    def _needs_sandbox(self) -> bool:
        if self._pod.restart_policy is RestartPolicy.NEVER and self._has_begun():
            return False
        return not self._is_finished()

    def _has_begun(self) -> bool:
        return bool(self._status.containers) or any(
            (known := self._memory.known(c.name)) is not None and known.container_id
            for c in self._pod.all_containers()
        )

    def _may_start_anything(self) -> bool:
        if self._pod.is_deleted:
            return False
        if not self._memory.volumes.ready:
            self._look_again(self._memory.volumes.retry_at)
            return False
        retry_at = self._memory.sandbox_retry_at
        if retry_at is not None and self._now < retry_at:
            self._look_again(retry_at)
            return False
        return True

    # --- containers -----------------------------------------------------------------------------------

    def _advance(self, sandbox: SandboxInfo) -> bool:
        """Init containers in their order, then the others. True when the pod is over."""
        self._ephemeral_containers(sandbox)
        initialized = self._init_containers(sandbox)
        if initialized is None:
            return self._wind_down(sandbox)
        if initialized:
            wanted = [self._keep_or_start(c, sandbox) for c in self._pod.containers]
            if not any(wanted):
                return self._wind_down(sandbox)
        self._collect_garbage(sandbox)
        return False

    def _ephemeral_containers(self, sandbox: SandboxInfo) -> None:
        for container in self._pod.ephemeral_containers:
            history = self._history(container)
            if history.next_attempt == 0 or _is_created(history.newest):
                self._start(container, history, sandbox)

    def _init_containers(self, sandbox: SandboxInfo) -> bool | None:
        """True when all have done their work, None when one has failed for good."""
        last = self._last_reached(sandbox)
        for container in self._pod.init_containers:
            history = self._history(container)
            if container.index < last:
                if container.is_sidecar:
                    self._keep_or_start(container, sandbox)
                continue
            done = self._init_container(container, history, sandbox)
            if done is not True:
                return done
        return True

    def _last_reached(self, sandbox: SandboxInfo) -> int:
        """
        The index of the init container that is (or was last) worked on in this sandbox.

        Those before it have done their work, even if they were removed since.
        """
        here = {c.name for c in self._status.containers if c.sandbox_id == sandbox.id}
        if any(c.name in here for c in self._pod.containers):
            return len(self._pod.init_containers)
        return max((c.index for c in self._pod.init_containers if c.name in here), default=0)

    def _init_container(self, container: Container, history: History, sandbox: SandboxInfo) -> bool | None:
        newest = history.newest if history.lost is None else None
        if container.is_sidecar:
            self._keep_or_start(container, sandbox)
            return newest is not None and newest.status is ContainerStatus.RUNNING
        if self._has_failed(container, history):
            return None
        if newest is not None and newest.sandbox_id == sandbox.id:
            if newest.status is ContainerStatus.RUNNING:
                return False
            if has_ended(newest) and ended_with(newest) == 0:
                return True
        if newest is not None and is_live(newest):
            self._check_running(container, newest, sandbox)
        else:
            self._start(container, history, sandbox)
        return False

    def _keep_or_start(self, container: Container, sandbox: SandboxInfo) -> bool:
        """True when it runs, or shall; False when it has ended for good."""
        history = self._history(container)
        newest = history.newest if history.lost is None else None
        if newest is not None and is_live(newest):
            self._check_running(container, newest, sandbox)
            return True
        if self._is_done(container, history):
            return False
        self._start(container, history, sandbox)
        return True

    def _check_running(self, container: Container, info: ContainerInfo, sandbox: SandboxInfo) -> None:
        prefix = "Init container" if container.kind is ContainerKind.INIT else "Container"
        if info.status is ContainerStatus.UNKNOWN:
            message = 'Container is in "unknown" state, try killing it before restart'
        elif info.sandbox_id != sandbox.id:
            message = _stopping(container.name)
        elif info.spec_hash != spec_hash(container):
            message = f"{prefix} {container.name} definition changed, will be restarted"
        else:
            return
        self._actions.append(KillContainer(info.id, container.name, message, restart=True))

    def _is_done(self, container: Container, history: History) -> bool:
        """It has ended, and its restart policy leaves it so."""
        exit_code = _last_exit_code(history)
        if exit_code is None or container.name in self._memory.restarting:
            return False
        return not lifecycle.should_restart(container, exit_code, self._pod.restart_policy)

    def _has_failed(self, container: Container, history: History) -> bool:
        return self._is_done(container, history) and _last_exit_code(history) != 0

    def _start(self, container: Container, history: History, sandbox: SandboxInfo) -> None:
        """Start the next attempt, unless something forbids it just now."""
        if not self._may_start_anything():
            return
        blocked = self._memory.blocked.get(container.name)
        if blocked is not None and (blocked.retry_at is None or self._now < blocked.retry_at):
            self._look_again(blocked.retry_at)
            self._waiting[container.name] = blocked.waiting
            return
        newest = history.newest
        if newest is None or history.lost is not None:
            failures = 1 if history.next_attempt else 0
            self._actions.append(StartContainer(container, history.next_attempt, failures, sandbox.id))
        elif not _is_created(newest):
            self._start_again(container, newest, history.next_attempt, sandbox)
        elif newest.sandbox_id == sandbox.id and newest.spec_hash == spec_hash(container):
            failures = failures_before(newest)
            self._actions.append(
                StartContainer(container, newest.attempt, failures, sandbox.id, existing_id=newest.id)
            )
        else:
            self._actions.append(RemoveContainer(newest.id))

    def _start_again(
        self, container: Container, ended: ContainerInfo, attempt: int, sandbox: SandboxInfo
    ) -> None:
        failures = failures_before(ended)
        if container.name not in self._memory.restarting and not _is_finished_init(container, ended):
            finished_at = ended.finished_at or ended.created_at
            ran_for_s = (finished_at - (ended.started_at or finished_at)).total_seconds()
            failures = delays.failures_after_exit(failures, ran_for_s)
            delay_s = backoff.restart_delay_s(failures, ran_for_s)
            due = finished_at + datetime.timedelta(seconds=delay_s)
            if self._now < due:
                self._look_again(due)
                self._backing_off[container.name] = ended.attempt
                self._waiting[container.name] = _crash_loop(container.name, self._pod.key, delay_s)
                return
        self._actions.append(StartContainer(container, attempt, failures, sandbox.id))

    # --- the end --------------------------------------------------------------------------------------

    def _wind_down(self, sandbox: SandboxInfo) -> bool:
        """Every app container is done, or an init container failed: end sidecars and sandbox."""
        self._actions.clear()
        self._waiting.clear()
        self._backing_off.clear()
        self._wake_at = None
        live = [c for c in self._status.containers if is_live(c)]
        if live:
            chosen = _first_to_stop(self._pod, live)
            self._actions += [KillContainer(c.id, c.name, _stopping(c.name)) for c in chosen]
        else:
            self._actions.append(StopSandbox(sandbox.id))
        return False

    def _collect_garbage(self, sandbox: SandboxInfo) -> None:
        """Of each container the newest two attempts are kept: the present one, and for ``logs -p``."""
        containers = self._status.containers
        if len(containers) <= _KEPT_ATTEMPTS and len(self._status.sandboxes) == 1:
            return
        kept: dict[str, int] = {}
        in_use = {sandbox.id}
        for info in sorted(containers, key=lambda c: c.attempt, reverse=True):
            kept[info.name] = kept.get(info.name, 0) + 1
            if kept[info.name] > _KEPT_ATTEMPTS and not is_live(info):
                self._actions.append(RemoveContainer(info.id))
            else:
                in_use.add(info.sandbox_id)
        self._actions += [RemoveSandbox(s.id) for s in self._status.sandboxes if s.id not in in_use]

    def _history(self, container: Container) -> History:
        known = self._memory.known(container.name)
        history = history_of(container.name, self._status, known, self._now)
        self._has_losses |= history.lost is not None
        return history

    def _look_again(self, at: datetime.datetime | None) -> None:
        if at is not None and at > self._now and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at


def _last_exit_code(history: History) -> int | None:
    if history.lost is not None:
        return history.lost.exit_code
    newest = history.newest
    return ended_with(newest) if newest is not None and has_ended(newest) else None


def _is_created(info: ContainerInfo | None) -> bool:
    return info is not None and info.status is ContainerStatus.CREATED and not info.error


def _is_finished_init(container: Container, info: ContainerInfo) -> bool:
    """It did its work in an earlier sandbox and does it again in this one: no failure."""
    return container.kind is ContainerKind.INIT and not container.is_sidecar and ended_with(info) == 0


def _crash_loop(name: str, key: PodKey, delay_s: float) -> Waiting:
    pod = f"{key.name}_{key.namespace}({key.uid})"
    return Waiting(
        "CrashLoopBackOff",
        f"back-off {delays.go_duration(delay_s)} restarting failed container={name} pod={pod}",
    )
