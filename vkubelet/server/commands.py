"""The routes that run commands in containers and attach to them, over what the provider can do of it."""

from __future__ import annotations

from aiohttp import web

from vkubelet.model.keys import PodKey
from vkubelet.provider import Attacher, ExecRunner
from vkubelet.server.attach import AttachHandler
from vkubelet.server.endpoint import not_supported
from vkubelet.server.exec import ExecHandler
from vkubelet.server.pods import PodLookup
from vkubelet.server.remote_session import RemoteCommandServer
from vkubelet.server.run import RunHandler

__all__ = ["command_routes"]


def command_routes(
    pods: PodLookup, runner: ExecRunner | None, attacher: Attacher | None, streams: RemoteCommandServer
) -> list[web.RouteDef]:
    """``/exec``, ``/run`` and ``/attach``; 501 for what the provider cannot do."""

    def find_pod(namespace: str, name: str, uid: str | None) -> PodKey | None:
        pod = pods.pod(namespace, name, uid)
        return pod.key if pod is not None else None

    routes: list[web.RouteDef] = []
    if runner is None:
        sentence = "this node's provider cannot run commands in containers"
        routes += [*_refused("exec", sentence), *_refused("run", sentence)]
    else:
        routes += ExecHandler(runner, find_pod, streams).routes() + RunHandler(runner, find_pod).routes()
    if attacher is None:
        routes += _refused("attach", "this node's provider cannot attach to containers")
    else:
        routes += AttachHandler(attacher, find_pod, streams).routes()
    return routes


def _refused(family: str, sentence: str) -> list[web.RouteDef]:
    refuse = not_supported(sentence)
    return [web.route(method, f"/{family}/{{rest:.+}}", refuse) for method in ("GET", "POST")]
