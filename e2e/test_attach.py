"""`kubectl run -it`, `attach`, `debug`, `cp` and `/run`, against containers in Docker."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.harness import manifests, pods
from e2e.harness.images import BUSYBOX_IMAGE
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Vkubelet

NODE = "docker-node"
SHELL = "shell"
COUNTER = "counter"
TARGET = "target"
MUCH_TIME_S = 180.0
PROMPT = r"[#$] "


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


PODS = [
    manifests.pod(SHELL, NODE, containers=[container(command=["sh"], stdin=True, tty=True)]),
    manifests.pod(
        COUNTER,
        NODE,
        shell("i=0; while true; do i=$((i+1)); echo count $i; echo err $i >&2; sleep 0.2; done"),
    ),
    manifests.pod(TARGET, NODE, shell("echo its own > /tmp/mark; trap 'exit 0' TERM; sleep 98765 & wait $!")),
]


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Kubectl:
    assert vkubelet_docker.node_name == NODE
    module_kubectl.apply({"apiVersion": "v1", "kind": "List", "items": PODS})
    pods.wait_ready(module_kubectl, SHELL, COUNTER, TARGET)
    return module_kubectl


def run_arguments(name: str, *options: str) -> list[str]:
    """`kubectl run` of a busybox on our node."""
    pod = manifests.pod(name, NODE)["spec"]
    spec = {key: pod[key] for key in ("nodeSelector", "tolerations", "terminationGracePeriodSeconds")}
    overrides = json.dumps({"apiVersion": "v1", "spec": spec})
    return [
        "run",
        name,
        f"--image={BUSYBOX_IMAGE}",
        "--restart=Never",
        f"--overrides={overrides}",
        "--override-type=strategic",
        *options,
    ]


@contextmanager
def started(kubectl: Kubectl, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = kubectl.popen(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe
            pipe.close()


def restarts(kubectl: Kubectl, pod: str) -> int:
    return int(pods.container_status(kubectl.get("pod", pod))["restartCount"])


# --- kubectl run ------------------------------------------------------------------------------------------


def test_kubectl_run_it_rm_is_a_shell_in_a_new_pod(kubectl: Kubectl) -> None:
    arguments = run_arguments("visit", "--rm", "-it", "--", "sh")
    with kubectl.terminal(*arguments, rows=31, columns=93) as terminal:
        # What the shell wrote before we came is lost, its prompt among it: Enter brings a new one.
        terminal.expect("try pressing enter", timeout_s=MUCH_TIME_S)
        terminal.send("\r")
        terminal.expect(PROMPT)
        terminal.send("echo $((40 + 2)); tty\r")
        terminal.expect(r"\n42")
        terminal.expect(r"/dev/\w+")
        terminal.send("until [ \"$(stty size)\" = '31 93' ]; do sleep 0.1; done; echo si''zed\r")
        terminal.expect("sized")
        terminal.resize(rows=44, columns=133)
        terminal.send("until [ \"$(stty size)\" = '44 133' ]; do sleep 0.1; done; echo re''sized\r")
        terminal.expect("resized")
        terminal.send("exit 7\r")
        assert terminal.wait(timeout_s=60) == 7
    kubectl.wait_gone("pod", "visit")


def test_kubectl_run_i_feeds_a_container_and_ends_it_with_its_input(kubectl: Kubectl) -> None:
    data = random.Random(5).randbytes(5 * 2**20)
    done = subprocess.run(
        kubectl.command(*run_arguments("eater", "--rm", "-i", "--quiet", "--", *shell("sleep 1; sha256sum"))),
        input=data,
        capture_output=True,
        env=kubectl.environment(),
        timeout=MUCH_TIME_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(data).hexdigest() in done.stdout.decode()
    kubectl.wait_gone("pod", "eater")


# --- kubectl attach ---------------------------------------------------------------------------------------


def test_attach_shows_output_from_now_on_and_leaving_stops_nothing(kubectl: Kubectl) -> None:
    for _ in range(2):
        with started(kubectl, "attach", COUNTER) as process:
            assert process.stdout
            first = next(line for line in iter(process.stdout.readline, b"") if line.startswith(b"count "))
            number = int(first.split()[1])
            # Old output is the log's business.
            assert number > 1
            assert process.stdout.readline() == b"count %d\n" % (number + 1)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
    assert restarts(kubectl, COUNTER) == 0
    assert pods.is_ready(kubectl.get("pod", COUNTER))


def test_attach_keeps_stdout_and_stderr_apart(kubectl: Kubectl) -> None:
    with started(kubectl, "attach", COUNTER) as process:
        assert process.stdout
        assert process.stderr
        for pipe, word in ((process.stdout, b"count "), (process.stderr, b"err ")):
            lines = iter(pipe.readline, b"")
            assert next(line for line in lines if line[:4] == word[:4]).startswith(word)


def test_a_shell_is_left_and_found_again_as_it_was(kubectl: Kubectl) -> None:
    with kubectl.terminal("attach", "-it", SHELL) as terminal:
        terminal.expect("try pressing enter")
        terminal.send("\r")
        terminal.expect(PROMPT)
        terminal.send("kept=until''later; echo set\r")
        terminal.expect(r"\nset")
    with kubectl.terminal("attach", "-it", SHELL) as terminal:
        terminal.expect("try pressing enter")
        terminal.send("\r")
        terminal.expect(PROMPT)
        terminal.send("echo $kept\r")
        terminal.expect(r"\nuntillater")
    assert restarts(kubectl, SHELL) == 0


def test_ctrl_p_ctrl_q_leaves_a_shell_that_runs_on(kubectl: Kubectl) -> None:
    with kubectl.terminal("attach", "-it", SHELL) as terminal:
        terminal.expect("try pressing enter")
        terminal.send("\r")
        terminal.expect(PROMPT)
        terminal.send("\x10\x11")
        assert terminal.wait() == 0
        assert "Session ended" in terminal.output
    assert restarts(kubectl, SHELL) == 0


@pytest.mark.parametrize(
    "command",
    [["attach", "--detach-keys=ctrl-x,ctrl-y", "-it", SHELL], ["exec", "-it", SHELL, "--", "sh"]],
    ids=["attach", "exec"],
)
def test_ctrl_p_reaches_the_shell_at_once(kubectl: Kubectl, command: list[str]) -> None:
    """Docker would keep it for a while, as the first of two keys that mean to detach."""
    with kubectl.terminal(*command) as terminal:
        terminal.send("\r")
        terminal.expect(PROMPT)
        terminal.send("echo fir''st\r")
        terminal.expect(r"\nfirst")
        terminal.expect(PROMPT)
        terminal.send("\x10")
        terminal.expect(r"echo fir''st", timeout_s=10)
        terminal.send("\x15")


def test_attach_ends_with_the_container(kubectl: Kubectl) -> None:
    kubectl.apply(manifests.pod("brief", NODE, shell("sleep 4; echo bye; exit 3"), restartPolicy="Never"))
    pods.wait_ready(kubectl, "brief")
    done = kubectl.try_run("attach", "brief")
    assert done.stdout.endswith("bye\n")
    assert done.returncode == 0


def test_attach_to_a_container_that_does_not_run_says_so(kubectl: Kubectl) -> None:
    kubectl.apply(manifests.pod("over", NODE, shell("exit 0"), restartPolicy="Never"))
    kubectl.wait_until("pod", "over", pods.has_ended, describe="its end")
    done = kubectl.try_run("attach", "over")
    assert done.returncode == 1
    done = kubectl.try_run("exec", "over", "--", "true")
    assert done.returncode == 1
    assert "container not found" in done.stderr or "completed pod" in done.stderr


# --- kubectl debug ----------------------------------------------------------------------------------------


def ephemeral(pod: Any, name: str) -> Any:
    statuses = pod["status"].get("ephemeralContainerStatuses") or []
    return next((each for each in statuses if each["name"] == name), None)


def test_kubectl_debug_looks_into_a_container(kubectl: Kubectl) -> None:
    with kubectl.terminal(
        "debug", "-it", TARGET, f"--image={BUSYBOX_IMAGE}", "--target=main", "--container=doctor", "--", "sh"
    ) as terminal:
        terminal.expect("try pressing enter", timeout_s=MUCH_TIME_S)
        terminal.send("\r")
        terminal.expect(PROMPT)
        terminal.send("ps -o args | grep -cx 'sleep 98765'\r")
        terminal.expect(r"\n1\r")
        terminal.send("cat /proc/1/root/tmp/mark\r")
        terminal.expect(r"\nits own\r")
        terminal.send("echo for the log; exit 3\r")
        terminal.wait(timeout_s=60)
    pod = kubectl.wait_until(
        "pod",
        TARGET,
        lambda pod: pod if (ephemeral(pod, "doctor") or {}).get("state", {}).get("terminated") else None,
        describe="the end of the ephemeral container",
    )
    assert ephemeral(pod, "doctor")["state"]["terminated"]["exitCode"] == 3
    assert ephemeral(pod, "doctor")["restartCount"] == 0
    assert "for the log" in kubectl.run("logs", TARGET, "--container=doctor")
    assert pods.is_ready(pod)
    assert restarts(kubectl, TARGET) == 0


def test_exec_logs_and_attach_work_on_an_ephemeral_container(kubectl: Kubectl) -> None:
    script = "echo here; i=0; while true; do i=$((i+1)); echo beat $i; sleep 0.2; done"
    kubectl.run(
        "debug",
        TARGET,
        f"--image={BUSYBOX_IMAGE}",
        "--container=nurse",
        "--attach=false",
        "--",
        *shell(script),
    )
    kubectl.wait_until(
        "pod",
        TARGET,
        lambda pod: (ephemeral(pod, "nurse") or {}).get("state", {}).get("running"),
        describe="the ephemeral container",
        timeout_s=60,
    )
    assert kubectl.run("exec", TARGET, "--container=nurse", "--", "echo", "hello") == "hello\n"
    assert kubectl.run("logs", TARGET, "--container=nurse").startswith("here\n")
    # Without --target it has processes of its own.
    assert "98765" not in kubectl.run("exec", TARGET, "--container=nurse", "--", "ps")
    with started(kubectl, "attach", TARGET, "--container=nurse") as process:
        assert process.stdout
        assert next(line for line in iter(process.stdout.readline, b"") if line.startswith(b"beat "))


def test_a_restarted_vkubelet_knows_ephemeral_containers(
    kubectl: Kubectl, make_vkubelet: Callable[..., Vkubelet], docker_engine: object
) -> None:
    assert docker_engine
    with make_vkubelet("docker") as vkubelet:
        name = "patient"
        kubectl.apply(manifests.pod(name, vkubelet.node_name))
        pods.wait_ready(kubectl, name)
        kubectl.run(
            "debug",
            name,
            f"--image={BUSYBOX_IMAGE}",
            "--container=nurse",
            "--attach=false",
            "--",
            "sleep",
            "3600",
        )
        running = lambda pod: (ephemeral(pod, "nurse") or {}).get("state", {}).get("running")  # noqa: E731
        kubectl.wait_until("pod", name, running, describe="the ephemeral container", timeout_s=60)
        before = ephemeral(kubectl.get("pod", name), "nurse")["containerID"]
        vkubelet.restart()
        vkubelet.wait_ready()
        assert kubectl.run("exec", name, "--container=nurse", "--", "echo", "hello") == "hello\n"
        time.sleep(3)
        pod = kubectl.get("pod", name)
        assert pods.phase(pod) == "Running"
        assert ephemeral(pod, "nurse")["containerID"] == before
        kubectl.run("delete", "pod", name, "--grace-period=1")


# --- kubectl cp -------------------------------------------------------------------------------------------


def test_kubectl_cp_of_20_mb_there_and_back(kubectl: Kubectl, tmp_path: Path) -> None:
    data = random.Random(6).randbytes(20 * 2**20)
    (tmp_path / "there").write_bytes(data)
    kubectl.run(
        "cp", str(tmp_path / "there"), f"{TARGET}:/tmp/copied", "--container=main", timeout_s=MUCH_TIME_S
    )
    digest = kubectl.run("exec", TARGET, "--container=main", "--", "sha256sum", "/tmp/copied").split()[0]
    assert digest == hashlib.sha256(data).hexdigest()
    kubectl.run(
        "cp", f"{TARGET}:/tmp/copied", str(tmp_path / "back"), "--container=main", timeout_s=MUCH_TIME_S
    )
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest


def test_kubectl_cp_of_a_directory(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_text("deep")
    kubectl.run("cp", str(tmp_path / "tree"), f"{TARGET}:/tmp/tree", "--container=main")
    assert kubectl.run("exec", TARGET, "--container=main", "--", "cat", "/tmp/tree/below/file") == "deep"
    kubectl.run("cp", f"{TARGET}:/tmp/tree", str(tmp_path / "back"), "--container=main")
    assert (tmp_path / "back" / "below" / "file").read_text() == "deep"


# --- /run -------------------------------------------------------------------------------------------------


def run(kubectl: Kubectl, pod: str, container_name: str, command: str) -> subprocess.CompletedProcess[str]:
    """The kubelet's `/run`, through the API server's proxy."""
    path = f"/api/v1/nodes/{NODE}/proxy/run/{kubectl.namespace}/{pod}/{container_name}"
    return kubectl.try_run("create", "--raw", f"{path}?cmd={command}", "--filename", "-", stdin="")


def test_run_answers_with_the_output(kubectl: Kubectl) -> None:
    assert run(kubectl, TARGET, "main", "echo+hello+you").stdout == "hello you\n"
    assert run(kubectl, TARGET, "main", "true").stdout == ""
    failed = run(kubectl, TARGET, "main", "ls+/none")
    assert failed.returncode != 0
    assert re.search(r"command 'ls /none' exited with 1: ls: /none: No such file", failed.stderr)
    assert "container not found" in run(kubectl, TARGET, "other", "true").stderr
