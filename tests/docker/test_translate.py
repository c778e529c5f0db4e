"""Configurations to create bodies: the whole of a plain one, then each field by itself."""

from __future__ import annotations

from typing import Any

import pytest

from providers.docker import translate
from providers.docker.labels import Owner
from providers.docker.settings import DockerSettings
from tests.docker.builders import APP_IMAGE_ID, KEY, container, sandbox
from vkubelet.kuberuntime.contract import ContainerSecurity, DnsConfig, LinuxResources, Mount
from vkubelet.model.pod import ContainerKind

OWNER = Owner("node-1", "cluster-1")
LOGS = {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "5"}}


def sandbox_body(**values: Any) -> dict[str, Any]:
    return translate.sandbox_body(OWNER, DockerSettings(), sandbox(**values), "sha256:pause", -998)


def container_body(sandbox_values: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return translate.container_body(
        OWNER,
        DockerSettings(),
        "f00",
        container(**values),
        sandbox(**(sandbox_values or {})),
        image_ref="app@sha256:abc",
        oom_score_adj=None,
    )


def test_names_are_the_kubelets() -> None:
    uid = KEY.uid
    assert translate.sandbox_name(sandbox(attempt=2)) == f"k8s_POD_web_default_{uid}_2"
    assert translate.container_name(container(attempt=1), sandbox()) == f"k8s_app_web_default_{uid}_1"


def test_a_plain_sandbox() -> None:
    assert sandbox_body(labels={"app": "web", "io.kubernetes.pod.uid": "forged"}) == {
        "Image": "sha256:pause",
        "Hostname": "web",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {
            "app": "web",
            "io.kubernetes.pod.namespace": "default",
            "io.kubernetes.pod.name": "web",
            "io.kubernetes.pod.uid": KEY.uid,
            "io.kubernetes.container.name": "POD",
            "io.kubernetes.attempt": "0",
            "io.kubernetes.docker.type": "podsandbox",
            "vkubelet.io/node": "node-1",
            "vkubelet.io/cluster": "cluster-1",
            "vkubelet.io/annotations": "{}",
        },
        "HostConfig": {
            "NetworkMode": "bridge",
            "IpcMode": "shareable",
            "PidMode": "",
            "CpuShares": 2,
            "OomScoreAdj": -998,
            "SecurityOpt": ["no-new-privileges"],
            "ExtraHosts": [],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": LOGS,
        },
    }


def test_a_plain_container() -> None:
    assert container_body(annotations={"b": "2", "a": "1"}) == {
        "Image": APP_IMAGE_ID,
        "Env": [],
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {
            "io.kubernetes.pod.namespace": "default",
            "io.kubernetes.pod.name": "web",
            "io.kubernetes.pod.uid": KEY.uid,
            "io.kubernetes.container.name": "app",
            "io.kubernetes.container.kind": "app",
            "io.kubernetes.container.hash": "abc",
            "io.kubernetes.attempt": "0",
            "io.kubernetes.docker.type": "container",
            "io.kubernetes.sandbox.id": "f00",
            "vkubelet.io/node": "node-1",
            "vkubelet.io/cluster": "cluster-1",
            "vkubelet.io/image": "app:1",
            "vkubelet.io/image-ref": "app@sha256:abc",
            "vkubelet.io/annotations": '{"a":"1","b":"2"}',
        },
        "HostConfig": {
            "NetworkMode": "container:f00",
            "IpcMode": "container:f00",
            "PidMode": "",
            "Privileged": False,
            "ReadonlyRootfs": False,
            "GroupAdd": [],
            "CapAdd": [],
            "CapDrop": [],
            "SecurityOpt": ["seccomp=unconfined"],
            "Mounts": [],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": LOGS,
        },
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({"host_network": True}, {"NetworkMode": "host"}, id="host network"),
        pytest.param({"host_ipc": True}, {"IpcMode": "host"}, id="host IPC"),
        pytest.param({"host_pid": True}, {"PidMode": "host"}, id="host PID"),
        pytest.param(
            {"host_aliases": (("10.0.0.1", ("a", "b")),)},
            {"ExtraHosts": ["a:10.0.0.1", "b:10.0.0.1"]},
            id="hosts",
        ),
        pytest.param(
            {"dns": DnsConfig(("10.0.0.10",), ("svc", "local"), ("ndots:5",))},
            {"Dns": ["10.0.0.10"], "DnsSearch": ["svc", "local"], "DnsOptions": ["ndots:5"]},
            id="DNS",
        ),
        pytest.param({"dns": DnsConfig(("10.0.0.10",))}, {"DnsSearch": ["."]}, id="no search list"),
    ],
)
def test_a_sandbox_field_is_translated(values: dict[str, Any], expected: dict[str, Any]) -> None:
    body = sandbox_body(**values)
    assert body["HostConfig"] == {**body["HostConfig"], **expected}


def test_a_sandbox_on_the_hosts_network_has_the_hosts_name() -> None:
    assert "Hostname" not in sandbox_body(host_network=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({"command": ("a",)}, {"Entrypoint": ["a"], "Cmd": []}, id="command"),
        pytest.param({"args": ("b",)}, {"Cmd": ["b"]}, id="args"),
        pytest.param({"command": ("a",), "args": ("b",)}, {"Entrypoint": ["a"], "Cmd": ["b"]}, id="both"),
        pytest.param({"env": (("A", "1"), ("B", "2"), ("A", "3"))}, {"Env": ["A=3", "B=2"]}, id="env"),
        pytest.param({"working_dir": "/srv"}, {"WorkingDir": "/srv"}, id="directory"),
        pytest.param(
            {"stdin": True, "stdin_once": True, "tty": True},
            {"OpenStdin": True, "StdinOnce": True, "Tty": True},
            id="streams",
        ),
        pytest.param({"security": ContainerSecurity(user="1000")}, {"User": "1000"}, id="user"),
        pytest.param({"security": ContainerSecurity(user="0", group=5)}, {"User": "0:5"}, id="group"),
        pytest.param({"kind": ContainerKind.INIT}, {}, id="init"),
    ],
)
def test_a_container_field_is_translated(values: dict[str, Any], expected: dict[str, Any]) -> None:
    body = container_body(**values)
    assert body == {**body, **expected}
    assert ("Entrypoint" in body) == ("Entrypoint" in expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {"resources": LinuxResources(512, 50000, 100000, 1 << 20)},
            {
                "CpuShares": 512,
                "CpuQuota": 50000,
                "CpuPeriod": 100000,
                "Memory": 1 << 20,
                "MemorySwap": 1 << 20,
            },
            id="resources",
        ),
        pytest.param(
            {
                "security": ContainerSecurity(
                    supplemental_groups=(7, 8),
                    privileged=True,
                    read_only_root_filesystem=True,
                    no_new_privileges=True,
                    add_capabilities=("NET_ADMIN",),
                    drop_capabilities=("ALL",),
                )
            },
            {
                "GroupAdd": ["7", "8"],
                "Privileged": True,
                "ReadonlyRootfs": True,
                "CapAdd": ["NET_ADMIN"],
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
            },
            id="security",
        ),
        pytest.param(
            {"mounts": (Mount("/a:b", "/c", read_only=True),)},
            {
                "Mounts": [
                    {
                        "Type": "bind",
                        "Source": "/a:b",
                        "Target": "/c",
                        "ReadOnly": True,
                        "BindOptions": {"Propagation": "rprivate"},
                    }
                ]
            },
            id="mount",
        ),
    ],
)
def test_a_host_field_is_translated(values: dict[str, Any], expected: dict[str, Any]) -> None:
    host_config = container_body(**values)["HostConfig"]
    assert host_config == {**host_config, **expected}


@pytest.mark.parametrize(
    ("sandbox_values", "expected"),
    [
        pytest.param({"host_network": True}, {"NetworkMode": "container:f00"}, id="host network"),
        pytest.param({"host_ipc": True}, {"IpcMode": "host"}, id="host IPC"),
        pytest.param({"host_pid": True}, {"PidMode": "host"}, id="host PID"),
        pytest.param({"share_process_namespace": True}, {"PidMode": "container:f00"}, id="shared PID"),
    ],
)
def test_a_container_joins_its_sandbox(sandbox_values: dict[str, Any], expected: dict[str, Any]) -> None:
    host_config = container_body(sandbox_values)["HostConfig"]
    assert host_config == {**host_config, **expected}
