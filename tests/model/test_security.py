from __future__ import annotations

import pytest

from tests.builders import container_json, make_pod
from vkubelet.model.pod import Json
from vkubelet.model.security import EffectiveSecurity, effective_security, non_root_violation

WHERE = '(pod: "web_default(uid-web)", container: main)'


def of(of_pod: Json | None = None, own: Json | None = None) -> EffectiveSecurity:
    container = container_json(securityContext=own) if own is not None else container_json()
    pod = make_pod(securityContext=of_pod or {}, containers=[container])
    return effective_security(pod, pod.containers[0])


def test_nothing_said_is_the_images_user_without_extras() -> None:
    assert of() == EffectiveSecurity()


def test_the_containers_word_goes_before_the_pods() -> None:
    of_pod = {
        "runAsUser": 1,
        "runAsGroup": 2,
        "runAsNonRoot": True,
        "fsGroup": 3,
        "supplementalGroups": [4, 5],
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    own = {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "privileged": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "seccompProfile": {"type": "Unconfined"},
    }

    assert of(of_pod) == EffectiveSecurity(
        run_as_user=1,
        run_as_group=2,
        run_as_non_root=True,
        supplemental_groups=(3, 4, 5),
        seccomp_profile="RuntimeDefault",
    )
    assert of(of_pod, own) == EffectiveSecurity(
        run_as_user=0,
        run_as_group=2,
        run_as_non_root=False,
        supplemental_groups=(3, 4, 5),
        privileged=True,
        read_only_root_filesystem=True,
        no_new_privileges=True,
        add_capabilities=("NET_ADMIN",),
        drop_capabilities=("ALL",),
        seccomp_profile="Unconfined",
    )


def test_privilege_escalation_stays_possible_unless_it_is_forbidden() -> None:
    assert of(own={"allowPrivilegeEscalation": True}).no_new_privileges is False


@pytest.mark.parametrize(
    ("context", "image_user", "violation"),
    [
        pytest.param({}, "", None, id="not asked for"),
        pytest.param({"runAsNonRoot": True, "runAsUser": 1000}, "", None, id="a user of its own"),
        pytest.param(
            {"runAsNonRoot": True, "runAsUser": 0},
            "1000",
            f"container's runAsUser breaks non-root policy {WHERE}",
            id="root of its own",
        ),
        pytest.param({"runAsNonRoot": True}, "1000", None, id="the image's user"),
        pytest.param({"runAsNonRoot": True}, "1000:0", None, id="the image's user and group"),
        pytest.param(
            {"runAsNonRoot": True},
            "",
            f"container has runAsNonRoot and image will run as root {WHERE}",
            id="the image's root",
        ),
        pytest.param(
            {"runAsNonRoot": True},
            "0:1000",
            f"container has runAsNonRoot and image will run as root {WHERE}",
            id="the image's root with a group",
        ),
        pytest.param(
            {"runAsNonRoot": True},
            "nginx:www",
            "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is "
            f"non-root {WHERE}",
            id="a name",
        ),
    ],
)
def test_run_as_non_root_is_verified_against_the_image(
    context: Json, image_user: str, violation: str | None
) -> None:
    pod = make_pod(containers=[container_json(securityContext=context)])
    container = pod.containers[0]

    assert non_root_violation(effective_security(pod, container), image_user, pod, container) == violation
