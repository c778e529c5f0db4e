"""Pods by name, Services by namespace."""

from __future__ import annotations

from tests.builders import make_pod
from vkubelet.controllers.listers import PodLister, ServiceLister
from vkubelet.kube.store import Store
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Pod
from vkubelet.model.references import ServiceData


class Pods:
    """A store and the lister that follows it."""

    def __init__(self) -> None:
        self.store: Store[PodKey, Pod] = Store()
        self.lister = PodLister(self.store)

    def put(self, pod: Pod) -> None:
        if (event := self.store.put(pod.key, pod)) is not None:
            self.lister.note(event)

    def remove(self, pod: Pod) -> None:
        if (event := self.store.remove(pod.key)) is not None:
            self.lister.note(event)


def test_a_pod_is_found_by_name_and_by_its_uid_only_if_that_fits() -> None:
    pods, pod = Pods(), make_pod()
    pods.put(pod)

    assert pods.lister.pod("default", "web") is pod
    assert pods.lister.pod("default", "web", "uid-web") is pod
    assert pods.lister.pod("default", "web", "another") is None
    assert pods.lister.pod("other", "web") is None
    assert list(pods.lister.pods()) == [pod]


def test_a_changed_pod_is_shown_as_it_is_now() -> None:
    pods, changed = Pods(), make_pod(metadata={"labels": {"a": "b"}})
    pods.put(make_pod())
    pods.put(changed)

    assert pods.lister.pod("default", "web") is changed


def test_of_two_pods_of_one_name_the_later_is_shown() -> None:
    pods, old, new = Pods(), make_pod(uid="old"), make_pod(uid="new")
    pods.put(old)
    pods.put(new)
    assert pods.lister.pod("default", "web") is new

    pods.remove(old)
    assert pods.lister.pod("default", "web") is new
    pods.remove(new)
    assert pods.lister.pod("default", "web") is None


def service(name: str, namespace: str = "default") -> ServiceData:
    return ServiceData(namespace, name, "10.0.0.1", ())


def test_a_namespace_sees_its_own_services_and_the_api_servers_in_order() -> None:
    store: Store[tuple[str, str], ServiceData] = Store()
    lister = ServiceLister(store)
    for one in (service("b"), service("kubernetes"), service("z", "team"), service("a", "team")):
        event = store.put((one.namespace, one.name), one)
        assert event is not None
        lister.note(event)

    assert [s.name for s in lister.services("default")] == ["b", "kubernetes"]
    assert [s.name for s in lister.services("team")] == ["kubernetes", "a", "z"]
    assert [s.name for s in lister.services("empty")] == ["kubernetes"]
    assert lister.services("team") is lister.services("team")

    gone = store.remove(("team", "z"))
    assert gone is not None
    lister.note(gone)
    assert [s.name for s in lister.services("team")] == ["kubernetes", "a"]
