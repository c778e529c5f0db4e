"""What containers find in their environment and on their file system, from whatever the pod refers to."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from e2e.harness import manifests, pods
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.waiting import wait_until

NODE = "docker-node"
ENV_SECRET = "a-secret-for-the-environment-4711"
FILE_SECRET = "a-secret-for-a-file-0815"
BINARY = bytes(range(256))

CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {"color": "blue", "shape": "round", "text": "line 1\nline 2\n"},
    "binaryData": {"bytes": base64.b64encode(BINARY).decode()},
}
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "credentials"},
    "stringData": {"password": ENV_SECRET, "key": FILE_SECRET},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "my-db"},
    "spec": {"selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432}]},
}


def field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": path}}


ENVIRONMENT: list[dict[str, Any]] = [
    {"name": "PLAIN", "value": "value"},
    {"name": "EMPTY", "value": ""},
    {"name": "FROM_OTHERS", "value": "$(PLAIN)/$(color)/$(NOBODY)/$$(PLAIN)"},
    {"name": "POD_NAME", "valueFrom": field("metadata.name")},
    {"name": "POD_UID", "valueFrom": field("metadata.uid")},
    {"name": "POD_LABEL", "valueFrom": field("metadata.labels['role']")},
    {"name": "NODE_NAME", "valueFrom": field("spec.nodeName")},
    {"name": "ACCOUNT", "valueFrom": field("spec.serviceAccountName")},
    {"name": "POD_IP", "valueFrom": field("status.podIP")},
    {"name": "HOST_IP", "valueFrom": field("status.hostIP")},
    {"name": "MEMORY_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    {"name": "SHAPE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "shape"}}},
    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "password"}}},
    {"name": "NOT_THERE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
]

WITH_SECRET = [
    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "password"}}}
]

WITH_ENVIRONMENT = manifests.pod(
    "with-environment",
    NODE,
    containers=[
        container(
            env=ENVIRONMENT,
            envFrom=[
                {"configMapRef": {"name": "settings"}},
                {"prefix": "S_", "secretRef": {"name": "credentials"}},
                {"configMapRef": {"name": "none", "optional": True}},
            ],
            args=["$(PLAIN)"],
            resources={"limits": {"memory": "32Mi"}},
        )
    ],
    labels={"role": "tester"},
)

VOLUMES: list[dict[str, Any]] = [
    {"name": "shared", "emptyDir": {}},
    {"name": "settings", "configMap": {"name": "settings"}},
    {
        "name": "chosen",
        "configMap": {
            "name": "settings",
            "defaultMode": 0o440,
            "items": [
                {"key": "color", "path": "deep/color"},
                {"key": "shape", "path": "shape", "mode": 0o400},
            ],
        },
    },
    {"name": "credentials", "secret": {"secretName": "credentials", "defaultMode": 0o400}},
    {"name": "none", "configMap": {"name": "none", "optional": True}},
    {
        "name": "about",
        "downwardAPI": {
            "items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {
                    "path": "memory",
                    "resourceFieldRef": {
                        "containerName": "main",
                        "resource": "limits.memory",
                        "divisor": "1Mi",
                    },
                },
            ]
        },
    },
    {
        "name": "together",
        "projected": {
            "sources": [
                {"configMap": {"name": "settings", "items": [{"key": "color", "path": "color"}]}},
                {"secret": {"name": "credentials", "items": [{"key": "key", "path": "key", "mode": 0o400}]}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}},
            ]
        },
    },
]
MOUNTS = [{"name": each["name"], "mountPath": f"/volumes/{each['name']}"} for each in VOLUMES]

WITH_VOLUMES = manifests.pod(
    "with-volumes",
    NODE,
    containers=[
        container(volumeMounts=MOUNTS, resources={"limits": {"memory": "32Mi"}}),
        container("reader", volumeMounts=[{"name": "shared", "mountPath": "/seen-here", "readOnly": True}]),
    ],
    volumes=VOLUMES,
    labels={"role": "tester"},
)


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Kubectl:
    assert vkubelet_docker.node_name == NODE
    items = [CONFIG_MAP, SECRET, SERVICE, WITH_ENVIRONMENT, WITH_VOLUMES]
    module_kubectl.apply({"apiVersion": "v1", "kind": "List", "items": items})
    return module_kubectl


@pytest.fixture(scope="module")
def pod(kubectl: Kubectl) -> Any:
    """The pod with the environment, Ready."""
    [ready] = pods.wait_ready(kubectl, "with-environment")
    return ready


@pytest.fixture(scope="module")
def environment(kubectl: Kubectl, pod: Any) -> dict[str, str]:
    """What its first process was started with."""
    name = pod["metadata"]["name"]
    output = kubectl.run("exec", name, "--", "sh", "-c", "tr '\\0' '\\1' < /proc/1/environ")
    return dict(each.split("=", 1) for each in output.split("\1") if each)


def in_volumes(kubectl: Kubectl, script: str, name: str = "main") -> str:
    """What a shell script prints in a container of the pod with volumes."""
    pods.wait_ready(kubectl, "with-volumes")
    return kubectl.run("exec", "with-volumes", f"--container={name}", "--", "sh", "-c", script)


# --- environment ------------------------------------------------------------------------------------------


def test_values_and_references_between_them(environment: dict[str, str]) -> None:
    assert environment["PLAIN"] == "value"
    assert environment["EMPTY"] == ""
    assert environment["FROM_OTHERS"] == "value/blue/$(NOBODY)/$(PLAIN)"


def test_arguments_may_refer_to_the_environment(kubectl: Kubectl, pod: Any) -> None:
    command_line = kubectl.run("exec", pod["metadata"]["name"], "--", "cat", "/proc/1/cmdline")
    assert command_line.rstrip("\0").endswith("\0value")


def test_the_downward_api(environment: dict[str, str], pod: Any, vkubelet_docker: Vkubelet) -> None:
    assert environment["POD_NAME"] == pod["metadata"]["name"]
    assert environment["POD_UID"] == pod["metadata"]["uid"]
    assert environment["POD_LABEL"] == "tester"
    assert environment["NODE_NAME"] == NODE
    assert environment["ACCOUNT"] == "default"
    assert environment["POD_IP"] == pod["status"]["podIP"]
    assert environment["HOST_IP"] == vkubelet_docker.node_ip
    assert environment["MEMORY_LIMIT"] == str(32 * 2**20)


def test_config_maps_and_secrets(environment: dict[str, str]) -> None:
    assert environment["SHAPE"] == "round"
    assert environment["PASSWORD"] == ENV_SECRET
    assert environment["color"] == "blue"
    assert environment["text"] == "line 1\nline 2\n"
    assert environment["S_key"] == FILE_SECRET
    assert "NOT_THERE" not in environment


def test_services_of_the_namespace_and_the_api_server(environment: dict[str, str], kubectl: Kubectl) -> None:
    address = kubectl.get("service", "my-db")["spec"]["clusterIP"]
    assert environment["MY_DB_SERVICE_HOST"] == address
    assert environment["MY_DB_SERVICE_PORT"] == environment["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert environment["MY_DB_PORT"] == f"tcp://{address}:5432"
    assert environment["KUBERNETES_SERVICE_HOST"] == "10.0.0.1"


# --- volumes ----------------------------------------------------------------------------------------------


def test_an_empty_dir_is_shared_by_the_containers(kubectl: Kubectl) -> None:
    in_volumes(kubectl, "echo from main > /volumes/shared/file")
    assert in_volumes(kubectl, "cat /seen-here/file", "reader") == "from main\n"
    answer = in_volumes(kubectl, "touch /seen-here/mine 2>&1 || true", "reader")
    assert "Read-only file system" in answer


def test_a_config_map_as_files(kubectl: Kubectl) -> None:
    assert in_volumes(kubectl, "cd /volumes/settings; ls") == "bytes\ncolor\nshape\ntext\n"
    assert in_volumes(kubectl, "cat /volumes/settings/text") == "line 1\nline 2\n"
    encoded = in_volumes(kubectl, "base64 /volumes/settings/bytes")
    assert base64.b64decode(encoded) == BINARY
    assert in_volumes(kubectl, "stat -L -c %a /volumes/settings/color") == "644\n"
    assert in_volumes(kubectl, "ls -A /volumes/none | grep -v '^[.][.]' || true") == ""


def test_items_choose_paths_and_modes(kubectl: Kubectl) -> None:
    script = "cd /volumes/chosen; cat deep/color; echo; stat -L -c %a deep/color shape; ls"
    assert in_volumes(kubectl, script) == "blue\n440\n400\ndeep\nshape\n"


def test_a_secret_as_files(kubectl: Kubectl) -> None:
    script = "cd /volumes/credentials; cat key; echo; stat -L -c %a key password"
    assert in_volumes(kubectl, script) == f"{FILE_SECRET}\n400\n400\n"


def test_the_downward_api_as_files(kubectl: Kubectl) -> None:
    assert in_volumes(kubectl, "cd /volumes/about; cat labels; echo; cat memory") == 'role="tester"\n32'


def test_a_projected_volume_holds_all_its_sources(kubectl: Kubectl) -> None:
    script = "cd /volumes/together; cat color; echo; cat key; echo; cat name; echo; stat -L -c %a key"
    assert in_volumes(kubectl, script) == f"blue\n{FILE_SECRET}\nwith-volumes\n400\n"


def test_the_api_server_accepts_the_pods_token(kubectl: Kubectl) -> None:
    directory = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = in_volumes(kubectl, f"cat {directory}/token")
    assert in_volumes(kubectl, f"cat {directory}/namespace") == kubectl.namespace
    assert in_volumes(kubectl, f"cat {directory}/ca.crt").startswith("-----BEGIN CERTIFICATE-----")
    user = review(kubectl, token)["user"]
    assert user["username"] == f"system:serviceaccount:{kubectl.namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["with-volumes"]


def test_a_token_for_an_audience_is_for_that_audience_only(kubectl: Kubectl) -> None:
    token = in_volumes(kubectl, "cat /volumes/together/token")
    assert review(kubectl, token, ["somebody"])["audiences"] == ["somebody"]
    assert not review(kubectl, token).get("authenticated")


def review(kubectl: Kubectl, token: str, audiences: list[str] | None = None) -> Any:
    """What the API server says of a token."""
    spec = {"token": token, **({"audiences": audiences} if audiences else {})}
    question = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    answer = kubectl.run("create", "--output=json", "--filename=-", stdin=json.dumps(question))
    return json.loads(answer)["status"]


def test_a_container_does_not_outlive_its_pods_files(kubectl: Kubectl, vkubelet_docker: Vkubelet) -> None:
    manifest = manifests.pod(
        "leaves-nothing",
        NODE,
        containers=[container(volumeMounts=[{"name": "d", "mountPath": "/d"}])],
        volumes=[{"name": "d", "emptyDir": {}}],
    )
    kubectl.apply(manifest)
    [ready] = pods.wait_ready(kubectl, "leaves-nothing")
    uid = ready["metadata"]["uid"]
    kubectl.run("exec", "leaves-nothing", "--", "sh", "-c", "mkdir -m 0 /d/closed; echo x > /d/file")
    assert list(vkubelet_docker.root_dir.glob(f"**/{uid}"))
    kubectl.run("delete", "pod", "leaves-nothing", "--timeout=30s")
    wait_until(
        lambda: not list(vkubelet_docker.root_dir.glob(f"**/{uid}")),
        timeout_s=20,
        describe="the pod's directory to be removed",
    )


# --- changes ----------------------------------------------------------------------------------------------


def test_a_changed_config_map_reaches_the_files(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, "with-volumes")
    kubectl.run("patch", "configmap", "settings", "--patch", '{"data":{"color":"green","new":"key"}}')

    def arrived() -> bool:
        found = in_volumes(kubectl, "cd /volumes/settings; cat color; [ ! -e new ] || cat new")
        return found == "greenkey"

    # The kubelet promises its syncFrequency, a minute, and a while.
    wait_until(arrived, timeout_s=100, describe="the new contents in the volume")
    assert pods.container_status(kubectl.get("pod", "with-volumes"))["restartCount"] == 0


# --- secrecy ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_no_secret_is_in_the_log(
    make_vkubelet: Callable[..., Vkubelet], kubectl: Kubectl, vkubelet_docker: Vkubelet
) -> None:
    """Also where everything is logged, and where something about the secret is wrong."""
    with make_vkubelet("docker", "talkative", arguments=["--log-level", "debug"]) as talkative:
        containers = [
            container(
                env=WITH_SECRET,
                volumeMounts=[{"name": "credentials", "mountPath": "/credentials"}],
                args=["$(PASSWORD)"],
            ),
            container("broken", ["/no/such/command", "$(PASSWORD)"], env=WITH_SECRET),
        ]
        volumes = [{"name": "credentials", "secret": {"secretName": "credentials"}}]
        kubectl.apply(manifests.pod("secretive", "talkative", containers=containers, volumes=volumes))
        kubectl.wait_until(
            "pod",
            "secretive",
            lambda pod: pods.last_terminated(pod, "broken") and pods.container_status(pod).get("started"),
            describe="one container to run and one to fail",
        )
        kubectl.run("exec", "secretive", "--container=main", "--", "cat", "/credentials/key")
        kubectl.run("delete", "pod", "secretive", "--timeout=30s")
    token = in_volumes(kubectl, "cat /var/run/secrets/kubernetes.io/serviceaccount/token")
    said = kubectl.run("get", "events", "--output=json")
    for text in (vkubelet_docker.log_file.read_text(), talkative.log_file.read_text(), said):
        for secret in (ENV_SECRET, FILE_SECRET, token):
            assert secret not in text
            assert base64.b64encode(secret.encode()).decode() not in text
        assert not re.search(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}", text), "a token"
