"""What the watches have shown, in the forms that others ask for it."""

from __future__ import annotations

from collections.abc import Iterable

from vkubelet.kube.store import Added, Deleted, Modified, Store, StoreEvent
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Pod
from vkubelet.model.references import ServiceData

__all__ = ["PodLister", "ServiceLister"]


class PodLister:
    """The pods of this node by name, for the kubelet API, whose paths have no uid."""

    def __init__(self, store: Store[PodKey, Pod]) -> None:
        self._store = store
        self._by_name: dict[tuple[str, str], PodKey] = {}

    def note(self, event: StoreEvent[Pod]) -> None:
        """Follow the store."""
        match event:
            case Added(new) | Modified(_, new):
                self._by_name[new.namespace, new.name] = new.key
            case Deleted(old):
                if self._by_name.get((old.namespace, old.name)) == old.key:
                    del self._by_name[old.namespace, old.name]

    def pod(self, namespace: str, name: str, uid: str | None = None) -> Pod | None:
        """The pod of that name; None when there is none, or its uid is another than `uid`."""
        key = self._by_name.get((namespace, name))
        if key is None or (uid and key.uid != uid):
            return None
        return self._store.get(key)

    def pods(self) -> Iterable[Pod]:
        """All of them."""
        return self._store.values()


class ServiceLister:
    """Services as a namespace's pods see them: their own and ``default/kubernetes``."""

    def __init__(self, store: Store[tuple[str, str], ServiceData]) -> None:
        self._store = store
        self._by_namespace: dict[str, tuple[ServiceData, ...]] = {}

    def note(self, event: StoreEvent[ServiceData]) -> None:
        """Follow the store."""
        del event
        self._by_namespace.clear()

    def services(self, namespace: str) -> tuple[ServiceData, ...]:
        """In the order of their names; the same tuple until a Service changes."""
        found = self._by_namespace.get(namespace)
        if found is None:
            found = self._by_namespace[namespace] = tuple(
                sorted(
                    (s for s in self._store.values() if _is_seen(s, namespace)),
                    key=lambda s: (s.namespace, s.name),
                )
            )
        return found


def _is_seen(service: ServiceData, namespace: str) -> bool:
    return service.namespace == namespace or (service.namespace, service.name) == ("default", "kubernetes")
