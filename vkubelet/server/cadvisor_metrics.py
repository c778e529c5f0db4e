"""
``/metrics/cadvisor``: the metrics of containers under the names and labels that dashboards know.

Of cAdvisor's metrics those that somebody asks for and that a provider can know. Every sample has the labels
``container``, ``id``, ``image``, ``name``, ``namespace`` and ``pod``, empty where they do not apply, as the
kubelet has them over containerd:

======================== ==================================================================================
a container              all six
a pod's sandbox          ``container`` is empty; the pod's network is counted here
a pod as a whole         ``container``, ``image`` and ``name`` are empty, ``id`` is ``/kubepods/pod<uid>``
the node                 all are empty but ``id="/"``
======================== ==================================================================================

Queries tell containers from sums by ``container!=""``; so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vkubelet.model.stats import ContainerStats, NodeStats, PodStats, StatsSummary
from vkubelet.server.cadvisor_families import FAMILIES, Subject
from vkubelet.server.exposition import escaped, family

__all__ = ["cadvisor_metrics"]


def cadvisor_metrics(summary: StatsSummary | None) -> str:
    """The text; `summary` is None when nothing could be read."""
    failed = f" {0 if summary is not None else 1}"
    error = family(
        "container_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        (failed,),
    )
    if summary is None:
        return error
    subjects = [_node(summary.node), *(each for pod in summary.pods for each in _pod(pod))]
    texts = [
        family(name, kind, words, (line for subject in subjects for line in samples(subject)))
        for name, kind, words, samples in FAMILIES
    ]
    return "".join((*texts, error, *_machine(summary.node)))


def _labels(*, container: str = "", id_: str = "", image: str = "", name: str = "", pod: str = "") -> str:
    return (
        f'container="{escaped(container)}",id="{escaped(id_)}",image="{escaped(image)}",'
        f'name="{escaped(name)}",{pod}'
    )


_NO_POD: Final = 'namespace="",pod=""'


def _node(node: NodeStats) -> Subject:
    whole = ContainerStats(
        "", node.start_ns, cpu=node.cpu, memory=node.memory, swap=node.swap, rootfs=node.fs
    )
    return Subject(_labels(id_="/", pod=_NO_POD), whole, node.network)


def _pod(pod: PodStats) -> Iterator[Subject]:
    of_pod = f'namespace="{escaped(pod.key.namespace)}",pod="{escaped(pod.key.name)}"'
    whole = ContainerStats("", pod.start_ns, cpu=pod.cpu, memory=pod.memory, swap=pod.swap)
    sandbox = pod.sandbox
    whole_labels = _labels(id_=f"/kubepods/pod{pod.key.uid}", pod=of_pod)
    yield Subject(whole_labels, whole, pod.network if sandbox is None else None)
    if sandbox is not None:
        labels = _labels(id_=sandbox.cgroup, image=sandbox.image, name=sandbox.container_id, pod=of_pod)
        yield Subject(labels, sandbox, pod.network)
    for each in pod.containers:
        labels = _labels(
            container=each.name, id_=each.cgroup, image=each.image, name=each.container_id, pod=of_pod
        )
        yield Subject(labels, each)


def _machine(node: NodeStats) -> Iterator[str]:
    if node.cores is not None:
        yield family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", (f" {node.cores}",))
    if node.memory_bytes is not None:
        words = "Amount of memory installed on the machine."
        yield family("machine_memory_bytes", "gauge", words, (f" {node.memory_bytes}",))
