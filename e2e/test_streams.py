"""`kubectl logs` and `kubectl exec`, from kubectl through the API server and vkubelet to the container."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import random
import re
import ssl
import subprocess
import time
from typing import Any

import pytest

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Vkubelet

NODE = "docker-node"
TALKER = "talker"
CRASHES = "crashes"
FINISHED = "finished"
WAITS = "waits"
ROOM_FOR_MUCH = 180.0


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


PODS = [
    manifests.pod(
        TALKER,
        NODE,
        containers=[
            container(
                command=shell("seq 1 20; echo to stderr >&2; trap 'exit 0' TERM; sleep 3600 & wait $!")
            ),
            container("other", shell("echo the other; trap 'exit 0' TERM; sleep 3600 & wait $!")),
        ],
    ),
    manifests.pod(CRASHES, NODE, shell("echo attempt; cat /proc/sys/kernel/random/uuid; exit 1")),
    manifests.pod(FINISHED, NODE, shell("seq 1 50000"), restartPolicy="Never"),
    manifests.pod(
        WAITS, NODE, containers=[container(image="vkubelet.local/none:1", imagePullPolicy="Never")]
    ),
]


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Kubectl:
    assert vkubelet_docker.node_name == NODE
    module_kubectl.apply({"apiVersion": "v1", "kind": "List", "items": PODS})
    pods.wait_ready(module_kubectl, TALKER)
    return module_kubectl


def run_bytes(
    kubectl: Kubectl, *arguments: str, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run kubectl with bytes for its stdin and from its stdout."""
    return subprocess.run(
        kubectl.command(*arguments),
        input=data,
        capture_output=True,
        env=kubectl.environment(),
        timeout=ROOM_FOR_MUCH,
        check=False,
    )


# --- logs -------------------------------------------------------------------------------------------------

LINES = "".join(f"{number}\n" for number in range(1, 21))


def test_logs_are_both_streams_of_the_container(kubectl: Kubectl) -> None:
    lines = kubectl.run("logs", TALKER, "--container=main").splitlines(keepends=True)
    assert sorted(lines) == sorted([*LINES.splitlines(keepends=True), "to stderr\n"])
    assert [line for line in lines if line != "to stderr\n"] == LINES.splitlines(keepends=True)
    assert kubectl.run("logs", TALKER, "--container=other") == "the other\n"


def test_logs_tail(kubectl: Kubectl) -> None:
    assert kubectl.run("logs", FINISHED, "--tail=2") == "49999\n50000\n"
    assert kubectl.run("logs", FINISHED, "--tail=0") == ""


def test_logs_limit_bytes(kubectl: Kubectl) -> None:
    assert kubectl.run("logs", FINISHED, "--limit-bytes=5") == "1\n2\n3"


def test_logs_timestamps(kubectl: Kubectl) -> None:
    lines = kubectl.run("logs", TALKER, "--container=other", "--timestamps").splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) the other", lines[0])


def test_logs_since(kubectl: Kubectl) -> None:
    assert kubectl.run("logs", FINISHED, "--since=1h", "--tail=1") == "50000\n"
    future = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert kubectl.run("logs", FINISHED, f"--since-time={future:%Y-%m-%dT%H:%M:%SZ}") == ""


def test_logs_of_an_ended_container_are_complete(kubectl: Kubectl) -> None:
    kubectl.wait_until("pod", FINISHED, pods.has_ended, describe="the end")
    output = run_bytes(kubectl, "logs", FINISHED).stdout
    assert output == "".join(f"{number}\n" for number in range(1, 50001)).encode()


def test_logs_of_the_attempt_before(kubectl: Kubectl) -> None:
    kubectl.wait_until(
        "pod",
        CRASHES,
        lambda pod: pods.container_status(pod).get("restartCount", 0) >= 1,
        describe="a restart",
    )
    kubectl.wait_until("pod", CRASHES, lambda pod: pods.waiting(pod, "CrashLoopBackOff"), describe="back-off")
    previous = kubectl.run("logs", CRASHES, "--previous")
    assert previous.startswith("attempt\n")
    answer = kubectl.try_run("logs", TALKER, "--container=main", "--previous")
    assert answer.returncode == 1
    assert f'previous terminated container "main" in pod "{TALKER}" not found' in answer.stderr


def test_logs_of_a_container_that_waits_say_why(kubectl: Kubectl) -> None:
    kubectl.wait_until(
        "pod", WAITS, lambda pod: pods.waiting(pod, "ErrImageNeverPull"), describe="the reason"
    )
    answer = kubectl.try_run("logs", WAITS)
    assert answer.returncode == 1
    assert f'container "main" in pod "{WAITS}" is waiting to start: ErrImageNeverPull' in answer.stderr


def test_following_logs_ends_with_the_container(kubectl: Kubectl) -> None:
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done"
    kubectl.apply(manifests.pod("counts", NODE, shell(script), restartPolicy="Never"))
    kubectl.wait_until("pod", "counts", lambda pod: pods.phase(pod) == "Running", describe="its start")
    begun = time.monotonic()
    assert kubectl.run("logs", "--follow", "counts") == "1\n2\n3\n4\n5\n6\n"
    assert time.monotonic() - begun < 30
    pod = kubectl.wait_until("pod", "counts", lambda pod: pod if pods.has_ended(pod) else None)
    assert pods.phase(pod) == "Succeeded"


def test_followed_lines_come_as_they_are_written(kubectl: Kubectl) -> None:
    kubectl.apply(manifests.pod("told", NODE, shell("mkfifo /tmp/f; while true; do cat /tmp/f; done")))
    pods.wait_ready(kubectl, "told")
    with kubectl.terminal("logs", "--follow", "told") as following:
        for word in ("first", "second"):
            kubectl.run("exec", "told", "--", *shell(f"echo {word} > /tmp/f"))
            following.expect(word, timeout_s=15)
        kubectl.run("delete", "pod", "told", "--grace-period=1", "--wait=false")
        assert following.wait() == 0


# --- exec -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)],
    ids=["success", "failure", "killed"],
)
def test_exec_ends_with_the_commands_exit_code(kubectl: Kubectl, script: str, code: int) -> None:
    done = kubectl.try_run("exec", TALKER, "--container=main", "--", *shell(script))
    assert done.returncode == code, done.stderr


def test_exec_keeps_stdout_and_stderr_apart(kubectl: Kubectl) -> None:
    done = kubectl.try_run("exec", TALKER, "--", *shell("echo out; echo err >&2; exit 3"))
    assert done.stdout == "out\n"
    assert done.stderr.splitlines()[-2:] == ["err", "command terminated with exit code 3"]


def test_exec_passes_arguments_as_they_are(kubectl: Kubectl) -> None:
    words = ["two words", "a;b", "$HOME", "*", '"quoted"', "", "ü€"]
    output = run_bytes(kubectl, "exec", TALKER, "--container=main", "--", "printf", "[%s]", *words).stdout
    assert output.decode() == "".join(f"[{word}]" for word in words)


def test_exec_chooses_the_container(kubectl: Kubectl) -> None:
    for name in ("main", "other"):
        found = kubectl.run("exec", TALKER, f"--container={name}", "--", "cat", "/proc/1/cmdline")
        assert ("the other" in found) == (name == "other")


def test_50_mb_go_through_a_pipe_and_come_back_unchanged(kubectl: Kubectl) -> None:
    data = random.Random(3).randbytes(50 * 2**20)
    done = run_bytes(kubectl, "exec", "-i", TALKER, "--container=main", "--", "cat", data=data)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == len(data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    done = run_bytes(kubectl, "exec", "-i", TALKER, "--container=main", "--", "sha256sum", data=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_kubectl_cp_there_and_back(kubectl: Kubectl, tmp_path: Any) -> None:
    data = random.Random(4).randbytes(3 * 2**20)
    (tmp_path / "there").write_bytes(data)
    kubectl.run("cp", str(tmp_path / "there"), f"{TALKER}:/tmp/copied", "--container=main")
    kubectl.run("cp", f"{TALKER}:/tmp/copied", str(tmp_path / "back"), "--container=main")
    assert (tmp_path / "back").read_bytes() == data


def test_a_command_that_ends_does_not_wait_for_stdin(kubectl: Kubectl) -> None:
    process = kubectl.popen("exec", "-i", TALKER, "--container=main", "--", *shell("head -c 3; exit 4"))
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        process.stdin.write(b"abcdef")
        process.stdin.flush()
        assert process.wait(timeout=20) == 4
        assert process.stdout.read() == b"abc"
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def test_a_terminal_is_a_terminal_of_the_right_size(kubectl: Kubectl) -> None:
    with kubectl.terminal(
        "exec", "-it", TALKER, "--container=main", "--", "sh", rows=30, columns=91
    ) as terminal:
        terminal.expect(r"[#$] ")
        terminal.send("tty && stty size\r")
        terminal.expect(r"/dev/pts/\d+")
        terminal.expect(r"30 91")
        terminal.resize(rows=44, columns=133)
        # The new size travels by itself; what is typed meanwhile may be quicker.
        terminal.send("until [ \"$(stty size)\" = '44 133' ]; do sleep 0.1; done; echo re''sized\r")
        terminal.expect("resized")
        # While it reads a line, the shell takes Ctrl-C as a key: only a program is interrupted.
        terminal.send("echo wai''ting; sleep 100\r")
        terminal.expect("waiting")
        terminal.send("\x03")
        terminal.expect(r"[#$] ")
        terminal.send("exit 7\r")
        assert terminal.wait() == 7


def test_a_command_that_does_not_exist_is_named(kubectl: Kubectl) -> None:
    done = kubectl.try_run("exec", TALKER, "--container=main", "--", "no-such-command")
    assert done.returncode != 0
    assert "no-such-command" in done.stdout + done.stderr


def test_many_commands_at_the_same_time(kubectl: Kubectl) -> None:
    script = "read line; echo $line; exit $line"
    processes = [
        kubectl.popen("exec", "-i", TALKER, "--container=main", "--", *shell(script)) for _ in range(8)
    ]
    outcomes = []
    for number, process in enumerate(processes):
        output, _ = process.communicate(f"{number}\n".encode(), timeout=60)
        outcomes.append((output, process.returncode))
    assert outcomes == [(f"{number}\n".encode(), number) for number in range(8)]


# --- who may ----------------------------------------------------------------------------------------------


def ask(vkubelet: Vkubelet, path: str, context: ssl.SSLContext, token: str = "") -> tuple[int, str]:
    connection = http.client.HTTPSConnection(vkubelet.node_ip, vkubelet.port, timeout=20, context=context)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_nobody_is_let_in_without_a_name_and_a_right(
    cluster: Cluster, kubectl: Kubectl, vkubelet_docker: Vkubelet
) -> None:
    context = ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))
    kubectl.run("create", "serviceaccount", "reader")
    token = kubectl.run("create", "token", "reader").strip()
    logs = f"/containerLogs/{kubectl.namespace}/{TALKER}/other"
    for path in (logs, "/pods"):
        assert ask(vkubelet_docker, path, context)[0] == 401
        assert ask(vkubelet_docker, path, context, "no-such-token")[0] == 401
        status, message = ask(vkubelet_docker, path, context, token)
        assert status == 403
        assert f"system:serviceaccount:{kubectl.namespace}:reader" in message


def test_a_token_with_the_right_is_enough(
    cluster: Cluster, kubectl: Kubectl, vkubelet_docker: Vkubelet
) -> None:
    context = ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))
    kubectl.run("create", "serviceaccount", "scraper")
    name = f"scraper-{kubectl.namespace}"
    kubectl.run("create", "clusterrole", name, "--verb=get", "--resource=nodes/proxy")
    subject = f"--serviceaccount={kubectl.namespace}:scraper"
    kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={name}", subject)
    try:
        token = kubectl.run("create", "token", "scraper").strip()
        status, body = ask(vkubelet_docker, "/pods", context, token)
        assert status == 200
        names = {each["metadata"]["name"] for each in json.loads(body)["items"]}
        assert TALKER in names
    finally:
        kubectl.run("delete", "clusterrolebinding,clusterrole", name)


def test_the_api_server_reaches_the_nodes_own_pages(kubectl: Kubectl) -> None:
    assert kubectl.run("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/healthz") == "ok"
    found = json.loads(kubectl.run("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/pods"))
    assert found["kind"] == "PodList"
