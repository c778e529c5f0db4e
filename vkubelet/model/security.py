"""
The securityContext that holds for a container: the pod's, overridden field by field by its own.

Also the one check of it that needs the image: `runAsNonRoot`. How a platform applies the rest is its matter.
"""

from __future__ import annotations

from dataclasses import dataclass

from vkubelet.model.pod import Container, Json, Pod

__all__ = ["EffectiveSecurity", "effective_security", "non_root_violation"]


@dataclass(frozen=True, slots=True)
class EffectiveSecurity:
    """
    What a container runs with.

    Attributes:
        run_as_user: uid, None for the image's user.
        run_as_group: gid, None for the user's own.
        supplemental_groups: `fsGroup` first, then the pod's `supplementalGroups`.
        no_new_privileges: `allowPrivilegeEscalation` is false.
        seccomp_profile: its type, such as RuntimeDefault; None where neither says.
    """

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool = False
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    read_only_root_filesystem: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp_profile: str | None = None


def effective_security(pod: Pod, container: Container) -> EffectiveSecurity:
    """The pod's and the container's `securityContext` as one (Kubernetes docs, "Security Context")."""
    of_pod = pod.security_context
    own: Json = container.raw.get("securityContext") or {}
    both = {**of_pod, **{k: v for k, v in own.items() if v is not None}}
    capabilities: Json = own.get("capabilities") or {}
    groups = tuple(of_pod.get("supplementalGroups") or ())
    fs_group: int | None = of_pod.get("fsGroup")
    return EffectiveSecurity(
        run_as_user=both.get("runAsUser"),
        run_as_group=both.get("runAsGroup"),
        run_as_non_root=bool(both.get("runAsNonRoot")),
        supplemental_groups=groups if fs_group is None else (fs_group, *groups),
        privileged=bool(own.get("privileged")),
        read_only_root_filesystem=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
        seccomp_profile=(both.get("seccompProfile") or {}).get("type"),
    )


def non_root_violation(
    security: EffectiveSecurity, image_user: str, pod: Pod, container: Container
) -> str | None:
    """
    Why the container may not start under `runAsNonRoot`, in the kubelet's words; None when it may.

    Args:
        security: what it runs with.
        image_user: the image's: "" for root, a name, or a uid, each with an optional ``:group``.
        pod: for the message.
        container: for the message.
    """
    if not security.run_as_non_root:
        return None
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.uid})", container: {container.name})'
    if security.run_as_user is not None:
        broken = security.run_as_user == 0
        return f"container's runAsUser breaks non-root policy {where}" if broken else None
    user = image_user.partition(":")[0]
    if user and not user.isdecimal():
        return (
            f"container has runAsNonRoot and image has non-numeric user ({user}), "
            f"cannot verify user is non-root {where}"
        )
    if int(user or "0") == 0:
        return f"container has runAsNonRoot and image will run as root {where}"
    return None
