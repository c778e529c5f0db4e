"""
What end-to-end tests are given: a cluster, a Docker engine, vkubelets, a namespace of their own.

A failed test's report carries its objects and events and the vkubelets' logs. A Docker engine that is not
to be had is an error, never a skipped test: a test run that silently left out the main job would be green.

All that a run writes is below `.cache/e2e/run-<pid>`; it stays for a look at its logs until the next run.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.harness import diagnosis, images, paths, processes
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.kubectl import Kubectl
from e2e.harness.namespaces import own_namespace, wait_for_namespaces
from e2e.harness.vkubelet import Identity, Vkubelet

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def run_directory() -> Path:
    """Where this run writes; earlier runs' remains are removed."""
    processes.end_orphans()
    for earlier in (paths.CACHE / "e2e").glob("run-*"):
        if not psutil.pid_exists(int(earlier.name.removeprefix("run-"))):
            shutil.rmtree(earlier, ignore_errors=True)
    directory = paths.CACHE / "e2e" / f"run-{os.getpid()}"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture(scope="session")
def cluster_ids() -> list[str]:
    """The identities of all clusters of this run, by which their containers are found at its end."""
    return []


@pytest.fixture(scope="session")
def cluster(run_directory: Path, cluster_ids: list[str]) -> Iterator[Cluster]:
    """The cluster that most tests share: one process, which nobody kills."""
    started = Cluster.start(run_directory / "cluster", one_process=True)
    cluster_ids.append(started.uid)
    yield started
    started.stop()


@pytest.fixture
def make_cluster(run_directory: Path, cluster_ids: list[str]) -> Iterator[Callable[[], Cluster]]:
    """Makes a cluster of this test's own, in four processes, to kill and restart."""
    made: list[Cluster] = []

    def make() -> Cluster:
        made.append(Cluster.start(run_directory / f"cluster-{next(_numbers)}", one_process=False))
        cluster_ids.append(made[-1].uid)
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture(scope="session")
def docker_engine(cluster_ids: list[str]) -> Iterator[DockerEngine]:
    """
    A Docker engine with the test images; stopped at the end if it had to be started.

    Containers that are left then, of vkubelets that were killed and not started again, are removed.
    """
    engine = DockerEngine.find_or_start()
    images.ensure_images(engine)
    yield engine
    for uid in cluster_ids:
        engine.remove_containers(f"vkubelet.io/cluster={uid}")
    engine.stop()


@pytest.fixture(scope="session")
def docker_containers(docker_engine: DockerEngine) -> Callable[[str], list[Any]]:
    """The containers that the engine has of the pod with a uid, sandbox and ended ones included."""
    return lambda uid: docker_engine.containers(f"io.kubernetes.pod.uid={uid}")


@pytest.fixture(scope="session")
def vkubelet_docker(cluster: Cluster, docker_engine: DockerEngine) -> Iterator[Vkubelet]:
    """The node `docker-node` that tests share; nobody kills its vkubelet."""
    with cluster.vkubelet("docker", "docker-node", arguments=["--cluster-dns", "10.0.0.10"]) as vkubelet:
        yield vkubelet
        wait_for_namespaces(cluster.kubectl)


@pytest.fixture(scope="session")
def vkubelet_memory(cluster: Cluster) -> Iterator[Vkubelet]:
    """The node `memory-node` that tests share; nobody kills its vkubelet."""
    with cluster.vkubelet("memory", "memory-node") as vkubelet:
        yield vkubelet
        wait_for_namespaces(cluster.kubectl)


@pytest.fixture
def make_vkubelet(cluster: Cluster) -> Iterator[Callable[..., Vkubelet]]:
    """
    Makes a vkubelet of this test's own, with the arguments of `Cluster.vkubelet`; not started yet.

    Without a node name it gets one. A test of the docker provider asks for `docker_engine` too.
    """
    made: list[Vkubelet] = []

    def make(
        provider: str,
        node_name: str | None = None,
        *,
        identity: Identity = "vkubelet",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        serving_files: bool = True,
    ) -> Vkubelet:
        name = node_name or f"{provider}-{next(_numbers)}"
        made.append(
            cluster.vkubelet(
                provider,
                name,
                identity=identity,
                arguments=arguments,
                environment=environment,
                port=port,
                serving_files=serving_files,
            )
        )
        return made[-1]

    yield make
    for each in made:
        cluster.retire(each)


@pytest.fixture
def namespace(kubectl: Kubectl) -> str:
    """The name of the test's namespace."""
    assert kubectl.namespace
    return kubectl.namespace


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """The administrator's kubectl in a namespace of the test's own, which is deleted afterwards."""
    with own_namespace(cluster.kubectl, str(next(_numbers))) as within:
        yield within


@pytest.fixture(scope="module")
def module_kubectl(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """
    The same in a namespace that the tests of a module share.

    Such a module makes its pods at once, so that they run side by side, and overrides `kubectl`.
    """
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    with own_namespace(cluster.kubectl, name) as within:
        yield within


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when in ("setup", "call"):
        report.sections.extend(_explanations(item))
    return report


def _explanations(item: pytest.Function) -> Iterator[tuple[str, str]]:
    cluster = item.funcargs.get("cluster")
    if isinstance(cluster, Cluster):
        kubectl = item.funcargs.get("kubectl")
        logs = [vkubelet.log_file for vkubelet in cluster.vkubelets]
        text = diagnosis.explain(kubectl if isinstance(kubectl, Kubectl) else cluster.kubectl, logs)
        yield "what the cluster and the vkubelets say", text
