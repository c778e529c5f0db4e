"""
Runs Kubernetes' own tests of streams against vkubelet's Docker node, and lists what became of each.

Most pods of sig-cli's tests have a readiness probe, which a node may refuse. With `--without-probes` the API
server takes it out of every pod, so that the streams are tested all the same; the result then says so.

The tests are those of the release that the control plane is of, built from its Go module, and run by Ginkgo.
Chosen are the NodeConformance tests of commands and logs over WebSocket, and sig-cli's tests of kubectl exec,
port-forward, logs and cp. Left out is what tests something else: a pod that talks to the API server
by its Service (which needs kube-proxy), and what waits for minutes.

No registry is needed: agnhost is built from the same module, on top of busybox, which stands in for the
busybox image of Kubernetes too. They get the names that the tests ask for, and lose them at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import http
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from e2e.harness import go_modules, images, manifests, paths, processes
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.errors import HarnessError
from e2e.harness.progress import Progress
from e2e.harness.waiting import wait_until

_SOURCE = paths.REPOSITORY / "e2e" / "upstream"
_DIRECTORY = paths.CACHE / "e2e" / "upstream"
_AGNHOST = "k8s.io/kubernetes/test/images/agnhost"
_IMAGE_NAMES = {"Agnhost": "agnhost", "BusyBox": "busybox"}
FOCUS = (
    r"Pods should support remote command execution over websockets",
    r"Pods should support retrieving logs from the container over websockets",
    r"\[sig-cli\] Kubectl client Simple pod",
    r"\[sig-cli\] Kubectl client Kubectl copy",
    r"\[sig-cli\] Kubectl exec",
    r"\[sig-cli\] Kubectl logs",
    r"\[sig-cli\] Kubectl Port forwarding",
)
_POLICY = "without-probes"
_PROBE = {"exec": {"command": ["true"]}}
SKIP = (r"\[Slow\]", r"in-cluster config")


def main() -> int:
    """Run what was asked for; 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m e2e.upstream", description=__doc__)
    parser.add_argument("--focus", action="append", help="a regular expression, instead of all of those")
    parser.add_argument("--without-probes", action="store_true", help="take readiness probes out of pods")
    parser.add_argument("--procs", type=int, default=4, help="how many tests at once (default: 4)")
    arguments = parser.parse_args()
    try:
        return _run(arguments.focus or FOCUS, arguments.procs, without_probes=arguments.without_probes)
    except HarnessError as error:
        sys.exit(str(error))


def _run(focus: Sequence[str], procs: int, *, without_probes: bool) -> int:
    processes.end_orphans()
    progress = Progress(sys.stderr)
    tests, ginkgo, agnhost = _build()
    shutil.rmtree(_DIRECTORY, ignore_errors=True)
    with _node(agnhost, progress) as cluster:
        if without_probes:
            _take_out_probes(cluster)
        with progress.step("tests"):
            report = _run_tests(cluster, tests, ginkgo, focus, procs)
    failed = _print(report)
    if without_probes:
        print("readiness probes had been taken out of all pods")
    return failed


def _build() -> tuple[Path, Path, Path]:
    flags = go_modules.kubernetes_link_flags(_SOURCE)
    tests = go_modules.build(
        "e2e.test",
        _SOURCE,
        "k8s.io/kubernetes/test/e2e",
        "building Kubernetes' end-to-end tests (once: about 4 minutes)",
        link_flags=flags,
        verb=("test", "-c"),
    )
    ginkgo = go_modules.build("ginkgo", _SOURCE, "github.com/onsi/ginkgo/v2/ginkgo", "building Ginkgo")
    agnhost = go_modules.build("agnhost", _SOURCE, _AGNHOST, "building agnhost", link_flags=flags)
    return tests, ginkgo, agnhost


# --- the node -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _node(agnhost: Path, progress: Progress) -> Iterator[Cluster]:
    """A cluster whose one node is open to all pods, and an engine with the images."""
    with contextlib.ExitStack() as stack:
        engine = DockerEngine.find_or_start()
        stack.callback(engine.stop)
        images.ensure_images(engine)
        with progress.step("images"):
            stack.enter_context(_images(engine, agnhost))
        with progress.step("control plane and node"):
            cluster = Cluster.start(_DIRECTORY / "cluster", one_process=True)
            stack.callback(engine.remove_containers, f"vkubelet.io/cluster={cluster.uid}")
            stack.callback(cluster.stop)
            stack.enter_context(cluster.vkubelet("docker", "docker-node", arguments=["--disable-taint"]))
        yield cluster


@contextlib.contextmanager
def _images(engine: DockerEngine, agnhost: Path) -> Iterator[None]:
    """The images under Kubernetes' names, which somebody's engine should not keep for ours."""
    names = _image_names()
    _build_agnhost(engine, agnhost, names["agnhost"])
    repository, _, tag = names["busybox"].rpartition(":")
    _request(engine, "POST", f"/images/{images.BUSYBOX_IMAGE}/tag?repo={repository}&tag={tag}")
    try:
        yield
    finally:
        for name in names.values():
            engine.request("DELETE", f"/images/{name}?noprune=1")


def _image_names() -> dict[str, str]:
    """The full names by short ones, from the list that the tests have."""
    module = go_modules.module_directory(_SOURCE, "k8s.io/kubernetes")
    manifest = (module / "test" / "utils" / "image" / "manifest.go").read_text()
    names = {}
    for constant, name in _IMAGE_NAMES.items():
        found = re.search(
            rf'configs\[{constant}\]\s*= Config{{list\.PromoterE2eRegistry, "{name}", "(.+?)"}}', manifest
        )
        if found is None:
            raise HarnessError(f"the tests of {module} name no image {name}")
        names[name] = f"registry.k8s.io/e2e-test-images/{name}:{found[1]}"
    return names


def _build_agnhost(engine: DockerEngine, agnhost: Path, name: str) -> None:
    keys = (
        go_modules.module_directory(_SOURCE, "k8s.io/kubernetes") / "test" / "images" / "agnhost" / "porter"
    )
    dockerfile = (
        f"FROM {images.BUSYBOX_IMAGE}\n"
        "COPY agnhost localhost.crt localhost.key /\n"
        'ENTRYPOINT ["/agnhost"]\nCMD ["pause"]\nEXPOSE 80 8080 8081 9376 5000\n'
    ).encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for file in (agnhost, keys / "localhost.crt", keys / "localhost.key"):
            tar.add(file, file.name)
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        tar.addfile(entry, io.BytesIO(dockerfile))
    _request(engine, "POST", f"/build?t={name}&forcerm=1", context.getvalue())


def _request(engine: DockerEngine, method: str, path: str, body: bytes | None = None) -> None:
    status, answer = engine.request(method, path, body)
    if status >= http.HTTPStatus.BAD_REQUEST or (answer or {}).get("error"):
        raise HarnessError(f"the Docker engine refuses {path}: {answer}")


# --- probes ------------------------------------------------------------------------------------------------


def _take_out_probes(cluster: Cluster) -> None:
    """Have the API server take readiness probes out of pods, and wait until it does."""
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "List", "items": [_policy(), _policy_binding()]})
    probed = manifests.pod("probed", "none", containers=[manifests.container(readinessProbe=_PROBE)])
    create = ("create", "--namespace=default", "--dry-run=server", "--output=json", "--filename=-")

    def taken_out() -> bool:
        made = json.loads(cluster.kubectl.run(*create, stdin=json.dumps(probed)))
        return "readinessProbe" not in made["spec"]["containers"][0]

    cluster.kubectl.wait_until("serviceaccount", "default", lambda found: found is not None)
    wait_until(taken_out, timeout_s=60, describe="the API server to take out probes")


def _policy() -> dict[str, Any]:
    """A MutatingAdmissionPolicy; no pod of the tests has more than four containers."""
    probed = "i < size(object.spec.containers) && has(object.spec.containers[i].readinessProbe)"
    removal = 'JSONPatch{op: "remove", path: "/spec/containers/" + string(i) + "/readinessProbe"}'
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    patch = {"expression": f"[0, 1, 2, 3].filter(i, {probed}).map(i, {removal})"}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": _POLICY},
        "spec": {
            "matchConstraints": {"resourceRules": [pods]},
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": patch}],
        },
    }


def _policy_binding() -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": _POLICY},
        "spec": {"policyName": _POLICY},
    }


# --- the tests ----------------------------------------------------------------------------------------------


def _run_tests(cluster: Cluster, tests: Path, ginkgo: Path, focus: Sequence[str], procs: int) -> list[Any]:
    """Ginkgo's report of the tests that were chosen."""
    report = _DIRECTORY / "report.json"
    command = [
        *(ginkgo, f"--procs={procs}", f"--json-report={report.name}", f"--output-dir={report.parent}"),
        *("--timeout=1h", "--no-color", "--silence-skips"),
        *(f"--focus={pattern}" for pattern in focus),
        *(f"--skip={pattern}" for pattern in SKIP),
        *(tests, "--", "--provider=skeleton", f"--kubeconfig={cluster.kubectl.kubeconfig}"),
        *(f"--kubectl-path={cluster.kubectl.program}", "--num-nodes=1"),
    ]
    log = _DIRECTORY / "ginkgo.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=_DIRECTORY,
            check=False,
        )
    if not report.exists():
        raise HarnessError(
            f"Ginkgo ended with {done.returncode}; the end of {log}:\n{processes.tail(log, 30)}"
        )
    suites = json.loads(report.read_text())
    return [spec for suite in suites for spec in suite["SpecReports"] if spec["State"] != "skipped"] + [
        spec for suite in suites for spec in suite["SpecReports"] if _skipped_itself(spec)
    ]


def _skipped_itself(spec: Any) -> bool:
    """Whether a test was begun and found that it does not apply."""
    return spec["State"] == "skipped" and bool(spec.get("Failure", {}).get("Message"))


def _print(report: list[Any]) -> int:
    tests = [spec for spec in report if spec["LeafNodeType"] == "It"]
    for spec in sorted(tests, key=_name):
        print(f"{spec['State']:8}{spec['RunTime'] / 1e9:7.1f} s  {_name(spec)}")
        if spec["State"] not in ("passed",):
            print(f"          {spec['Failure']['Message'][:500]}")
    failed = [spec for spec in report if spec["State"] not in ("passed", "skipped")]
    passed = sum(spec["State"] == "passed" for spec in tests)
    print(f"{passed} passed, {len(failed)} failed, {len(tests) - passed - len(failed)} skipped themselves")
    return 1 if failed or not passed else 0


def _name(spec: Any) -> str:
    return " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])


if __name__ == "__main__":
    sys.exit(main())
