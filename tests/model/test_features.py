from __future__ import annotations

from typing import Any

import pytest

from tests.builders import container_json, pod_json
from vkubelet.errors import UnsupportedFeatureError
from vkubelet.model.features import (
    KUBERUNTIME_FIELDS,
    FieldTree,
    only,
    served,
    unsupported_ephemeral_fields,
    unsupported_fields,
)
from vkubelet.model.pod import Json


def refused(**spec: Any) -> tuple[str, ...]:
    return unsupported_fields(pod_json(**spec), KUBERUNTIME_FIELDS)


def of_container(**fields: Any) -> tuple[str, ...]:
    return tuple(
        p.removeprefix("spec.containers[0].") for p in refused(containers=[container_json(**fields)])
    )


def of_volume(**source: Any) -> tuple[str, ...]:
    return tuple(p.removeprefix("spec.volumes[0].") for p in refused(volumes=[{"name": "v", **source}]))


PROBE = {"httpGet": {"path": "/", "port": 80}}


def test_a_usual_pod_is_served_whole() -> None:
    container = container_json(
        command=["sh"],
        args=["-c", "true"],
        workingDir="/srv",
        ports=[{"name": "http", "containerPort": 80, "protocol": "TCP"}],
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        ],
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "c"}}],
        resources={
            "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        volumeMounts=[
            {"name": "scratch", "mountPath": "/tmp", "mountPropagation": "None"},
            {"name": "token", "mountPath": "/token", "readOnly": True, "recursiveReadOnly": "Disabled"},
        ],
        stdin=True,
        stdinOnce=True,
        tty=True,
        securityContext={
            "runAsUser": 0,
            "runAsNonRoot": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    )
    assert (
        refused(
            containers=[container],
            initContainers=[container],
            volumes=[
                {"name": "scratch", "emptyDir": {}},
                {"name": "c", "configMap": {"name": "c", "items": [{"key": "a", "path": "b", "mode": 256}]}},
                {"name": "s", "secret": {"secretName": "s", "optional": True, "defaultMode": 420}},
                {"name": "d", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "m"}}]}},
                {
                    "name": "token",
                    "projected": {
                        "defaultMode": 420,
                        "sources": [
                            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "k", "path": "p"}]}},
                            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "m"}}]}},
                        ],
                    },
                },
            ],
            securityContext={
                "runAsUser": 1000,
                "fsGroup": 2000,
                "supplementalGroups": [1],
                "seccompProfile": {"type": "Unconfined"},
            },
            hostUsers=True,
            os={"name": "linux"},
            nodeSelector={"type": "virtual-kubelet"},
            affinity={"nodeAffinity": {}},
            topologySpreadConstraints=[{"maxSkew": 1}],
            imagePullSecrets=[{"name": "r"}],
            hostAliases=[{"ip": "10.0.0.1", "hostnames": ["x"]}],
            dnsPolicy="None",
            dnsConfig={"nameservers": ["1.1.1.1"]},
            activeDeadlineSeconds=10,
            readinessGates=[{"conditionType": "x"}],
        )
        == ()
    )


@pytest.mark.parametrize(
    "field",
    [
        {"livenessProbe": PROBE},
        {"readinessProbe": PROBE},
        {"startupProbe": PROBE},
        {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}},
        {"restartPolicy": "Always"},
        {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]},
        {"fieldOfTheFuture": {"x": 1}},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_container_field_that_nobody_serves_is_named(field: Json) -> None:
    assert of_container(**field) == tuple(field)


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        pytest.param(
            {
                "volumeMounts": [
                    {"name": "v", "mountPath": "/v", "subPath": "x", "mountPropagation": "Bidirectional"}
                ]
            },
            ("volumeMounts[0].subPath", "volumeMounts[0].mountPropagation"),
            id="mounts",
        ),
        pytest.param(
            {"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]},
            ("ports[1].hostPort",),
            id="host port",
        ),
        pytest.param(
            {"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}, "claims": [{"name": "x"}]}},
            ("resources.limits.nvidia.com/gpu", "resources.claims"),
            id="resources",
        ),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "a"}}}]},
            ("env[0].valueFrom.fileKeyRef",),
            id="env",
        ),
        pytest.param(
            {"securityContext": {"seLinuxOptions": {"level": "s0"}, "seccompProfile": {"type": "Localhost"}}},
            ("securityContext.seLinuxOptions", "securityContext.seccompProfile.type"),
            id="security",
        ),
    ],
)
def test_parts_of_a_container_that_nobody_serves_are_named(fields: Json, paths: tuple[str, ...]) -> None:
    assert of_container(**fields) == paths


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ({"nfs": {"server": "s", "path": "/"}}, ("nfs",)),
        ({"hostPath": {"path": "/"}}, ("hostPath",)),
        ({"persistentVolumeClaim": {"claimName": "c"}}, ("persistentVolumeClaim",)),
        ({"emptyDir": {"medium": "HugePages"}}, ("emptyDir.medium",)),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, ("emptyDir.sizeLimit",)),
        ({"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}, ()),
        (
            {"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}},
            ("projected.sources[0].clusterTrustBundle",),
        ),
    ],
)
def test_a_volume_that_nobody_serves_is_named(source: Json, paths: tuple[str, ...]) -> None:
    assert of_volume(**source) == paths


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"runtimeClassName": "kata"}, ("spec.runtimeClassName",)),
        ({"hostUsers": False}, ("spec.hostUsers",)),
        ({"setHostnameAsFQDN": True}, ("spec.setHostnameAsFQDN",)),
        ({"os": {"name": "windows"}}, ("spec.os.name",)),
        ({"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}, ("spec.securityContext.sysctls",)),
        (
            {"initContainers": [container_json("proxy", restartPolicy="Always")]},
            ("spec.initContainers[0].restartPolicy",),
        ),
    ],
)
def test_a_pod_field_that_nobody_serves_is_named(spec: Json, paths: tuple[str, ...]) -> None:
    assert refused(**spec) == paths


def test_an_ephemeral_container_is_judged_apart_from_its_pod() -> None:
    raw = pod_json(
        ephemeralContainers=[
            {"name": "served", "image": "i", "targetContainerName": "main", "stdin": True, "tty": True},
            {"name": "refused", "image": "i", "volumeMounts": [{"name": "v", "subPath": "x"}]},
        ]
    )

    assert unsupported_fields(raw, KUBERUNTIME_FIELDS) == ()
    assert unsupported_ephemeral_fields(raw, KUBERUNTIME_FIELDS) == {
        "refused": ("spec.ephemeralContainers[1].volumeMounts[0].subPath",)
    }


def test_a_provider_without_ephemeral_containers_refuses_them_one_by_one() -> None:
    tree = {k: v for k, v in KUBERUNTIME_FIELDS.items() if k != "ephemeralContainers"}
    raw = pod_json(ephemeralContainers=[{"name": "d", "image": "i"}])

    assert unsupported_fields(raw, tree) == ("spec.ephemeralContainers",)
    assert list(unsupported_ephemeral_fields(raw, tree)) == ["d"]


def test_a_host_port_on_the_hosts_network_is_the_hosts_anyway() -> None:
    port = {"containerPort": 80, "hostPort": 80}

    assert refused(hostNetwork=True, containers=[container_json(ports=[port])]) == ()


def test_what_asks_for_nothing_is_harmless_wherever_it_stands() -> None:
    nothing: Json = {
        "setHostnameAsFQDN": False,
        "runtimeClassName": None,
        "ephemeralContainers": [],
        "resources": {},
    }

    assert refused(**nothing) == ()
    assert of_container(lifecycle={}, volumeDevices=None) == ()


def test_a_provider_can_declare_a_tree_of_its_own() -> None:
    tree: FieldTree = {"containers": {"name": served, "image": only("a")}}
    pod = {"spec": {"containers": [{"name": "x", "image": "a"}, {"name": "y", "image": "b"}, "odd"]}}

    assert unsupported_fields(pod, tree) == ("spec.containers[1].image", "spec.containers[2]")


def test_the_error_names_all_of_them() -> None:
    fields = refused(runtimeClassName="kata", containers=[container_json(livenessProbe=PROBE)])

    error = UnsupportedFeatureError(fields, provider="docker")

    assert str(error) == (
        "the docker provider does not support spec.containers[0].livenessProbe, spec.runtimeClassName: "
        "remove them or run the pod on another node"
    )
