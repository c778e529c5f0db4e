"""
Pods in Docker, placed by the scheduler: how they run, restart, end and are deleted, and what is said of it.

Each pod is declared beside its test; all are made at once before the first test, and run side by side.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.images import BUSYBOX_IMAGE, PAUSE_IMAGE
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.waiting import wait_until

NODE = "docker-node"
CLUSTER_DNS = "10.0.0.10"  # what the fixture of this node gives to it
_prepared: list[dict[str, Any]] = []


def prepare(manifest: dict[str, Any]) -> str:
    """Have it made before the first test; its name."""
    _prepared.append(manifest)
    return str(manifest["metadata"]["name"])


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Iterator[Kubectl]:
    assert vkubelet_docker.node_name == NODE
    module_kubectl.apply({"apiVersion": "v1", "kind": "List", "items": _prepared})
    yield module_kubectl
    # What a test holds back by a finalizer would keep the namespace, should the test fail.
    for pod in module_kubectl.items("pods"):
        if pod["metadata"].get("finalizers"):
            release(module_kubectl, pod["metadata"]["name"])


def release(kubectl: Kubectl, name: str) -> None:
    """Take the finalizers away."""
    kubectl.try_run("patch", "pod", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}')


def ended(kubectl: Kubectl, name: str) -> Any:
    """The pod once it has succeeded or failed."""
    return kubectl.wait_until(
        "pod", name, lambda pod: pod if pods.has_ended(pod) else None, describe=f"the end of {name}"
    )


# --- Running ----------------------------------------------------------------------------------------------

RUNS = prepare(
    manifests.pod(
        "runs",
        NODE,
        containers=[
            container(
                resources={
                    "requests": {"cpu": "50m", "memory": "8Mi"},
                    "limits": {"cpu": "250m", "memory": "64Mi"},
                }
            )
        ],
    )
)


def test_a_deployment_is_placed_scaled_up_and_down(kubectl: Kubectl) -> None:
    kubectl.apply(manifests.deployment("web", NODE))
    selector = "--selector=app=web"

    def wait_for(count: int) -> list[Any]:
        def right() -> list[Any] | None:
            found = kubectl.items("pods", selector)
            return found if pods.all_ready(found, count) else None

        return wait_until(right, timeout_s=90, describe=f"{count} pods of the deployment")

    [first] = wait_for(1)
    assert first["spec"]["nodeName"] == NODE
    kubectl.run("scale", "deployment/web", "--replicas=3")
    three = wait_for(3)
    assert len({pod["status"]["podIP"] for pod in three}) == 3
    assert pods.container_status(first)["containerID"] in {
        pods.container_status(pod)["containerID"] for pod in three
    }
    kubectl.run("scale", "deployment/web", "--replicas=1")
    wait_for(1)
    kubectl.run("delete", "deployment", "web")
    wait_until(
        lambda: not kubectl.items("pods", selector), timeout_s=60, describe="the deployment's pods to go"
    )


NOT_TOLERATING = prepare(manifests.pod("not-tolerating", NODE, tolerations=[]))


def test_a_pod_that_does_not_tolerate_the_taint_is_not_placed(kubectl: Kubectl) -> None:
    pods.wait_for_event(kubectl, NOT_TOLERATING, "FailedScheduling", "untolerated taint")
    assert "nodeName" not in kubectl.get("pod", NOT_TOLERATING)["spec"]


def test_the_status_is_complete(kubectl: Kubectl, vkubelet_docker: Vkubelet) -> None:
    [pod] = pods.wait_ready(kubectl, RUNS)
    status = pod["status"]
    assert status["hostIP"] == vkubelet_docker.node_ip
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["qosClass"] == "Burstable"
    assert status["startTime"]
    assert status["observedGeneration"] == pod["metadata"]["generation"]
    for condition in ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"):
        assert pods.condition(pod, condition) == "True", condition
    main = pods.container_status(pod)
    assert main["ready"] is main["started"] is True
    assert main["restartCount"] == 0
    assert main["containerID"].startswith("docker://")
    assert main["image"] == BUSYBOX_IMAGE
    assert main["imageID"]


def test_up_to_ready_the_status_is_written_once_for_each_change(cluster: Cluster, kubectl: Kubectl) -> None:
    [pod] = pods.wait_ready(kubectl, RUNS)
    requests = cluster.audit.requests("pods", RUNS, str(kubectl.namespace))
    ours = [each for each in requests if each.user == "vkubelet"]
    writes = [each for each in ours if each.verb != "get"]
    assert {(each.verb, each.subresource) for each in writes} == {("patch", "status")}
    assert all(each.code == 200 for each in writes)
    # Taken on, then Running; a write in between where the container took long to start.
    assert 1 <= len(writes) <= 3, [each.body for each in writes]
    for each in writes:
        assert each.body["metadata"]["uid"] == pod["metadata"]["uid"]
        assert each.body["metadata"].get("resourceVersion") != "0"
    assert not [each for each in ours if each.verb == "get"]


def test_events_tell_the_way_of_a_pod(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, RUNS)
    pods.wait_for_event(kubectl, RUNS, "Started")
    events = {event["reason"]: event for event in pods.events(kubectl, RUNS)}
    assert set(events) == {"Scheduled", "Pulled", "Created", "Started"}
    assert f'"{BUSYBOX_IMAGE}" already present on machine' in events["Pulled"]["message"]
    for reason in ("Pulled", "Created", "Started"):
        event = events[reason]
        assert event["type"] == "Normal"
        assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
        assert event["source"] == {"component": "kubelet", "host": NODE}


def test_limits_are_the_containers_cgroup(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, RUNS)
    v1 = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us"
    v2 = "cd /sys/fs/cgroup; cat memory.max cpu.max"
    output = kubectl.run(
        "exec", RUNS, "--", *shell(f"if [ -e /sys/fs/cgroup/memory ]; then {v1}; else {v2}; fi")
    )
    memory, quota, period = (int(number) for number in output.split())
    assert memory == 64 * 2**20
    assert quota / period == 0.25


def test_hostname_is_the_pods_name(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, RUNS)
    assert kubectl.run("exec", RUNS, "--", "hostname") == f"{RUNS}\n"
    assert kubectl.get("pod", RUNS)["status"]["podIP"] in kubectl.run("exec", RUNS, "--", "cat", "/etc/hosts")


def test_names_are_asked_of_the_clusters_dns(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, RUNS)
    namespace = kubectl.namespace
    resolver = kubectl.run("exec", RUNS, "--", "cat", "/etc/resolv.conf")
    searched = f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local"
    assert re.search(rf"^{searched}", resolver, re.MULTILINE)
    assert re.findall(r"^nameserver (.*)$", resolver, re.MULTILINE) == [CLUSTER_DNS]
    assert re.search(r"^options ndots:5$", resolver, re.MULTILINE)


SERVES = prepare(
    manifests.pod(
        "serves",
        NODE,
        containers=[
            container("server", shell("while true; do echo hello | nc -l -p 8080; done")),
            container("neighbour"),
        ],
    )
)


def test_pods_reach_each_other_and_containers_share_an_address(kubectl: Kubectl) -> None:
    server, _ = pods.wait_ready(kubectl, SERVES, RUNS)
    address = server["status"]["podIP"]
    questions = {
        "another pod": ("exec", RUNS, "--", "nc", address, "8080"),
        "the same pod": ("exec", SERVES, "--container=neighbour", "--", "nc", "127.0.0.1", "8080"),
    }
    for who, question in questions.items():

        def answer(question: tuple[str, ...] = question) -> bool:
            return kubectl.try_run(*question).stdout == "hello\n"

        wait_until(answer, timeout_s=20, describe=f"an answer for {who}")


AS_SOMEBODY = prepare(
    manifests.pod(
        "as-somebody",
        NODE,
        shell("id -u; id -g; touch /file"),
        restartPolicy="Never",
        securityContext={"runAsUser": 1234, "runAsGroup": 2345, "runAsNonRoot": True},
    )
)


def test_it_runs_as_the_user_it_asks_for(kubectl: Kubectl) -> None:
    pod = ended(kubectl, AS_SOMEBODY)
    assert pods.terminated(pod)["exitCode"] == 1
    # Two streams: which line comes first is not determined.
    assert set(kubectl.run("logs", AS_SOMEBODY).splitlines()) == {
        "1234",
        "2345",
        "touch: /file: Permission denied",
    }


# --- ending and restarting --------------------------------------------------------------------------------

SUCCEEDS = prepare(manifests.pod("succeeds", NODE, shell("exit 0"), restartPolicy="Never"))


def test_exit_code_0_is_success(kubectl: Kubectl) -> None:
    pod = ended(kubectl, SUCCEEDS)
    assert pods.phase(pod) == "Succeeded"
    end = pods.terminated(pod)
    assert (end["exitCode"], end["reason"]) == (0, "Completed")
    assert end["startedAt"] <= end["finishedAt"]
    assert pods.condition(pod, "Ready") == "False"
    assert kubectl.get("pod", SUCCEEDS, "--output=jsonpath-as-json={.status.conditions[*].reason}")


FAILS = prepare(manifests.pod("fails", NODE, shell("exit 3"), restartPolicy="Never"))


def test_with_never_a_failure_stays(kubectl: Kubectl) -> None:
    pod = ended(kubectl, FAILS)
    assert pods.phase(pod) == "Failed"
    end = pods.terminated(pod)
    assert (end["exitCode"], end["reason"]) == (3, "Error")
    assert pods.container_status(pod)["restartCount"] == 0


SECOND_TIME_LUCKY = prepare(
    manifests.pod(
        "second-time-lucky",
        NODE,
        containers=[
            container(
                command=shell(
                    "echo attempt; if [ -e /data/tried ]; then exit 0; fi; touch /data/tried; exit 5"
                ),
                volumeMounts=[{"name": "data", "mountPath": "/data"}],
            )
        ],
        volumes=[{"name": "data", "emptyDir": {}}],
        restartPolicy="OnFailure",
    )
)


def test_with_on_failure_only_a_failure_is_repeated(kubectl: Kubectl) -> None:
    pod = ended(kubectl, SECOND_TIME_LUCKY)
    assert pods.phase(pod) == "Succeeded"
    main = pods.container_status(pod)
    assert main["restartCount"] == 1
    assert main["state"]["terminated"]["exitCode"] == 0
    assert main["lastState"]["terminated"]["exitCode"] == 5


COMES_AND_GOES = prepare(manifests.pod("comes-and-goes", NODE, shell("echo hello; exit 0")))


def test_with_always_even_a_success_is_repeated_with_back_off(kubectl: Kubectl) -> None:
    pod = kubectl.wait_until(
        "pod",
        COMES_AND_GOES,
        lambda pod: pod if pods.waiting(pod, "CrashLoopBackOff") else None,
        describe="CrashLoopBackOff",
    )
    assert pods.phase(pod) == "Running"
    assert pods.container_status(pod)["restartCount"] >= 1
    assert pods.last_terminated(pod)["exitCode"] == 0
    message = pods.waiting(pod, "CrashLoopBackOff")["message"]
    name = f"{COMES_AND_GOES}_{kubectl.namespace}({pod['metadata']['uid']})"
    assert message.startswith("back-off ")
    assert message.endswith(f" restarting failed container=main pod={name}")
    event = pods.wait_for_event(kubectl, COMES_AND_GOES, "BackOff", "Back-off restarting failed container")
    assert event["type"] == "Warning"
    pods.wait_for_event(kubectl, COMES_AND_GOES, "Started")


# The engine hears of the kernel's deed a moment late, and only once it has begun to listen: without the
# pauses it would now and then call this an ordinary end.
EATS_MEMORY = prepare(
    manifests.pod(
        "eats-memory",
        NODE,
        containers=[
            container(
                command=shell(
                    "sleep 2; dd if=/dev/zero of=/dev/null bs=64M count=1; code=$?; sleep 1; exit $code"
                ),
                resources={"limits": {"memory": "16Mi"}},
            )
        ],
        restartPolicy="Never",
    )
)


def test_a_container_that_is_killed_for_memory_is_oom_killed(kubectl: Kubectl) -> None:
    pod = ended(kubectl, EATS_MEMORY)
    assert pods.phase(pod) == "Failed"
    end = pods.terminated(pod)
    assert end["reason"] == "OOMKilled"
    assert end["exitCode"] == 137


OUT_OF_TIME = prepare(manifests.pod("out-of-time", NODE, activeDeadlineSeconds=3))


def test_a_pod_past_its_deadline_fails(kubectl: Kubectl) -> None:
    pod = ended(kubectl, OUT_OF_TIME)
    assert (pods.phase(pod), pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")


def test_a_job_completes(kubectl: Kubectl) -> None:
    template = manifests.pod("job", NODE, shell("echo done"), restartPolicy="Never")
    kubectl.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "job"},
            "spec": {"completions": 3, "parallelism": 3, "template": {"spec": template["spec"]}},
        }
    )
    kubectl.run("wait", "job/job", "--for=condition=Complete", "--timeout=90s", timeout_s=120)
    assert kubectl.get("job", "job")["status"]["succeeded"] == 3


REPLACED = prepare(manifests.pod("replaced", NODE))


def test_a_new_image_replaces_the_container(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, REPLACED)
    # The sleeping shell script becomes the argument of another program: all that counts is the image.
    kubectl.run("set", "image", f"pod/{REPLACED}", f"main={PAUSE_IMAGE}")
    event = pods.wait_for_event(kubectl, REPLACED, "Killing", "definition changed, will be restarted")
    assert event["type"] == "Normal"
    kubectl.wait_until(
        "pod",
        REPLACED,
        lambda pod: pods.container_status(pod)["restartCount"] >= 1,
        describe="a restart",
    )


# --- init containers --------------------------------------------------------------------------------------

INITIALIZED = prepare(
    manifests.pod(
        "initialized",
        NODE,
        containers=[
            container(
                command=shell("cat /data/order; sleep 600"),
                volumeMounts=[{"name": "d", "mountPath": "/data"}],
            )
        ],
        initContainers=[
            container(
                name,
                shell(f"sleep 0.5; echo {name} >> /data/order"),
                volumeMounts=[{"name": "d", "mountPath": "/data"}],
            )
            for name in ("first", "second", "third")
        ],
        volumes=[{"name": "d", "emptyDir": {}}],
        terminationGracePeriodSeconds=0,
    )
)


def test_init_containers_run_one_after_the_other(kubectl: Kubectl) -> None:
    [pod] = pods.wait_ready(kubectl, INITIALIZED)
    assert kubectl.run("logs", INITIALIZED) == "first\nsecond\nthird\n"
    ends = [pods.terminated(pod, name) for name in ("first", "second", "third")]
    assert [end["exitCode"] for end in ends] == [0, 0, 0]
    assert all(pods.container_status(pod, name)["ready"] for name in ("first", "second", "third"))
    running = pods.container_status(pod)["state"]["running"]
    times = [time for end in ends for time in (end["startedAt"], end["finishedAt"])] + [running["startedAt"]]
    assert times == sorted(times)


INIT_FAILS = prepare(
    manifests.pod(
        "init-fails", NODE, initContainers=[container("init", shell("exit 9"))], restartPolicy="Never"
    )
)


def test_an_init_container_that_fails_ends_the_pod(kubectl: Kubectl) -> None:
    pod = ended(kubectl, INIT_FAILS)
    assert pods.phase(pod) == "Failed"
    assert pods.terminated(pod, "init")["exitCode"] == 9
    assert "running" not in pods.container_status(pod)["state"]
    assert kubectl.run("get", "pod", INIT_FAILS, "--no-headers").split()[2] == "Init:Error"


INIT_CRASHES = prepare(
    manifests.pod("init-crashes", NODE, initContainers=[container("init", shell("exit 9"))])
)


def test_an_init_container_that_fails_is_repeated_with_back_off(kubectl: Kubectl) -> None:
    pod = kubectl.wait_until(
        "pod",
        INIT_CRASHES,
        lambda pod: pod if pods.waiting(pod, "CrashLoopBackOff", "init") else None,
        describe="CrashLoopBackOff",
    )
    assert pods.phase(pod) == "Pending"
    assert pods.condition(pod, "Initialized") == "False"
    assert pods.container_status(pod)["state"]["waiting"]["reason"] == "PodInitializing"


# --- last words -------------------------------------------------------------------------------------------

LEAVES_A_MESSAGE = prepare(
    manifests.pod(
        "leaves-a-message",
        NODE,
        shell("echo the reason > /dev/termination-log; exit 1"),
        restartPolicy="Never",
    )
)
LOGS_ITS_END = prepare(
    manifests.pod(
        "logs-its-end",
        NODE,
        containers=[
            container(
                command=shell("echo a; echo the end of it; exit 1"),
                terminationMessagePolicy="FallbackToLogsOnError",
            )
        ],
        restartPolicy="Never",
    )
)


def test_the_termination_message_is_shown(kubectl: Kubectl) -> None:
    assert pods.terminated(ended(kubectl, LEAVES_A_MESSAGE))["message"] == "the reason\n"
    assert pods.terminated(ended(kubectl, LOGS_ITS_END))["message"].endswith("the end of it\n")


# --- deletion ---------------------------------------------------------------------------------------------

HOLD = "example.com/hold"


def held(manifest: dict[str, Any]) -> dict[str, Any]:
    """With a finalizer, so that the final status can be looked at."""
    manifest["metadata"]["finalizers"] = [HOLD]
    return manifest


SAYS_GOODBYE = prepare(
    held(
        manifests.pod(
            "says-goodbye",
            NODE,
            shell("trap 'sleep 1; exit 42' TERM; while true; do sleep 1 & wait $!; done"),
            terminationGracePeriodSeconds=30,
        )
    )
)
HARD_OF_HEARING = prepare(
    held(
        manifests.pod(
            "hard-of-hearing",
            NODE,
            shell("trap '' TERM; while true; do sleep 1; done"),
            terminationGracePeriodSeconds=3,
        )
    )
)


def test_the_grace_period_is_given_and_no_more(cluster: Cluster, kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, SAYS_GOODBYE, HARD_OF_HEARING)
    begun = time.monotonic()
    kubectl.run("delete", "pod", SAYS_GOODBYE, HARD_OF_HEARING, "--wait=false")
    polite = kubectl.wait_until(
        "pod", SAYS_GOODBYE, lambda pod: pod if pods.terminated(pod) else None, describe="its end"
    )
    assert time.monotonic() - begun < 20
    assert pods.terminated(polite)["exitCode"] == 42
    assert pods.phase(polite) == "Failed"
    stubborn = kubectl.wait_until(
        "pod", HARD_OF_HEARING, lambda pod: pod if pods.terminated(pod) else None, describe="its end"
    )
    assert 2 < time.monotonic() - begun < 25
    assert pods.terminated(stubborn)["exitCode"] == 137
    for name in (SAYS_GOODBYE, HARD_OF_HEARING):
        pods.wait_for_event(kubectl, name, "Killing", "Stopping container main")
        release(kubectl, name)
        kubectl.wait_gone("pod", name, timeout_s=20)
    check_order_of_deletion(cluster, kubectl, SAYS_GOODBYE, polite["metadata"]["uid"])


def check_order_of_deletion(cluster: Cluster, kubectl: Kubectl, name: str, uid: str) -> None:
    """The final status first, then the deletion with grace period 0 and the uid."""
    requests = cluster.audit.requests("pods", name, str(kubectl.namespace))
    ours = [each for each in requests if each.user == "vkubelet" and each.verb in ("patch", "delete")]
    first_delete = next(index for index, each in enumerate(ours) if each.verb == "delete")
    final = ours[first_delete - 1]
    assert "42" in json.dumps(final.body)
    options = ours[first_delete].body
    assert options["gracePeriodSeconds"] == 0
    assert options["preconditions"]["uid"] == uid
    assert [each for each in ours[first_delete:] if each.verb == "patch"] == []


SHORTENED = prepare(
    manifests.pod(
        "shortened",
        NODE,
        shell("trap '' TERM; while true; do sleep 1; done"),
        terminationGracePeriodSeconds=45,
    )
)


def test_a_second_deletion_shortens_the_grace_period(kubectl: Kubectl) -> None:
    pods.wait_ready(kubectl, SHORTENED)
    kubectl.run("delete", "pod", SHORTENED, "--wait=false")
    pods.wait_for_event(kubectl, SHORTENED, "Killing")
    kubectl.run("delete", "pod", SHORTENED, "--grace-period=1", "--timeout=25s")


FORCED = prepare(manifests.pod("forced", NODE))


def test_a_forced_deletion_leaves_no_container(kubectl: Kubectl, docker_containers: Any) -> None:
    [pod] = pods.wait_ready(kubectl, FORCED)
    uid = pod["metadata"]["uid"]
    assert len(docker_containers(uid)) == 2
    kubectl.run("delete", "pod", FORCED, "--force", "--grace-period=0")
    wait_until(
        lambda: not docker_containers(uid), timeout_s=30, describe="the containers of a deleted pod to go"
    )


def test_a_name_is_free_for_a_new_pod_at_once(kubectl: Kubectl, docker_containers: Any) -> None:
    """As a StatefulSet uses it: the same name, another uid."""
    kubectl.apply(manifests.pod("reused", NODE))
    [first] = pods.wait_ready(kubectl, "reused")
    kubectl.run("delete", "pod", "reused", "--force", "--grace-period=0")
    kubectl.apply(manifests.pod("reused", NODE))
    [second] = pods.wait_ready(kubectl, "reused")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert pods.container_status(second)["restartCount"] == 0
    gone = first["metadata"]["uid"]
    wait_until(lambda: not docker_containers(gone), timeout_s=30, describe="the first pod's containers to go")
