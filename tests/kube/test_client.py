"""Requests and their errors, against the fake API server."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest

from tests.builders import make_pod, pod_json
from tests.clocks import ManualClock
from tests.fake_api_server import FakeApiServer
from vkubelet.errors import (
    ApiError,
    ApiUnavailableError,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidObjectError,
    NotFoundError,
    UnauthorizedError,
)
from vkubelet.kube import api_errors
from vkubelet.kube.client import KubeClient
from vkubelet.kube.pods import pod_key
from vkubelet.kube.references import parse_service
from vkubelet.kube.rest import JSON_MERGE_PATCH
from vkubelet.model.access import AccessAttributes, UserInfo
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import parse_pod
from vkubelet.model.references import ConfigMapData, ServiceData, ServicePort, TokenKey

POD = "/api/v1/namespaces/default/pods/web"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidObjectError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, InvalidObjectError),
        (408, ApiUnavailableError),
        (409, ConflictError),
        (410, GoneError),
        (413, InvalidObjectError),
        (422, InvalidObjectError),
        (429, ApiUnavailableError),
        (500, ApiUnavailableError),
        (503, ApiUnavailableError),
        (504, ApiUnavailableError),
    ],
)
async def test_each_status_is_its_error(
    api_server: FakeApiServer, kube_client: KubeClient, status: int, error: type[ApiError]
) -> None:
    api_server.fail(status, "GET", times=2)
    with pytest.raises(error, match=f"fault {status}") as caught:
        await kube_client.get(POD)
    assert type(caught.value) is error
    assert caught.value.code == status


async def test_the_servers_delay_is_passed_on(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.fail(429, retry_after=3)
    with pytest.raises(ApiUnavailableError) as caught:
        await kube_client.get(POD)
    assert caught.value.retry_after_s == 3.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Bad gateway</html>", "GET /x was answered with 502: <html>Bad gateway</html>"),
        (b"", "GET /x was answered with 502"),
        (b"[1]", "GET /x was answered with 502: [1]"),
        (b'{"kind":"Status","message":"from the server"}', "from the server"),
        (b'{"kind":"Status","reason":"Broken"}', "Broken"),
    ],
)
def test_answers_of_whatever_stands_between_are_understood(body: bytes, message: str) -> None:
    error = api_errors.error_from_answer(502, body, retry_after="soon", what="GET /x")
    assert isinstance(error, ApiUnavailableError)
    assert (str(error), error.retry_after_s) == (message, None)


def test_a_delay_may_stand_in_the_details() -> None:
    error = api_errors.error_from_status({"code": 500, "details": {"retryAfterSeconds": 2}})
    assert isinstance(error, ApiUnavailableError)
    assert error.retry_after_s == 2.0


async def test_a_dropped_connection_is_no_answer(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.drop("PATCH")
    with pytest.raises(ApiUnavailableError, match="no answer from the API server http") as caught:
        await kube_client.patch(POD, {})
    assert caught.value.code == 0


async def test_a_server_that_is_not_there_is_no_answer(api_server: FakeApiServer, tmp_path: Path) -> None:
    api_server.url = "http://127.0.0.1:1"
    async with KubeClient.connect(api_server.kubeconfig(tmp_path)) as client:
        with pytest.raises(ApiUnavailableError, match="Connection refused"):
            await client.get(POD)


async def test_objects_come_and_go_as_they_are(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    body = {**pod_json("web"), "fieldFromTheFuture": {"a": [1, None]}}
    made = await kube_client.create("/api/v1/namespaces/default/pods", body)
    assert made["fieldFromTheFuture"] == {"a": [1, None]}
    assert await kube_client.get(POD) == made
    patched = await kube_client.patch(POD, {"metadata": {"labels": {"a": "b"}}}, JSON_MERGE_PATCH)
    assert patched["metadata"]["labels"] == {"a": "b"}
    await kube_client.delete(POD, {"gracePeriodSeconds": 0})
    with pytest.raises(NotFoundError, match='pods "web" not found'):
        await kube_client.get(POD)


async def test_requests_say_who_asks(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    await kube_client.cluster_id()
    (request,) = api_server.requests
    assert request.headers["User-Agent"].startswith("vkubelet/")
    assert "Cookie" not in request.headers


async def test_more_requests_than_connections_wait_their_turn(
    api_server: FakeApiServer, tmp_path: Path
) -> None:
    async with KubeClient.connect(api_server.kubeconfig(tmp_path), connections=2) as client:
        gate = api_server.hold("GET", "/configmaps", times=100)
        tasks = [asyncio.create_task(client.get("/api/v1/configmaps")) for _ in range(10)]
        await api_server.wait_for(lambda: len(api_server.requests) == 2)
        async with client.watch("/api/v1/pods", {"resourceVersion": "0"}, timeout_s=5):
            pass  # a watch does not wait for them
        assert len(api_server.requests_to("GET")) == 2
        gate.set()
        await asyncio.gather(*tasks)
    assert len(api_server.requests_to("GET")) == 10


# --- names


async def test_new_connections_break_off_watches_but_no_request(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    clock, answering = ManualClock(), api_server.hold("GET", "kube-system")
    asking = asyncio.create_task(kube_client.cluster_id())
    await api_server.wait_for(lambda: len(api_server.requests) == 1)
    async with kube_client.watch("/api/v1/pods", {}, timeout_s=60) as batches:
        renewing = asyncio.create_task(kube_client.renew_connections(clock))
        with pytest.raises(ApiUnavailableError):
            await anext(batches)
    assert await kube_client.get("/api/v1/namespaces/default")
    answering.set()
    assert await asking
    await clock.advance(60)
    await renewing
    assert await kube_client.get("/api/v1/namespaces/default")


@pytest.mark.parametrize("name", ["../secrets/admin", "..", ".", "", "a/b", "a%2fb"])
async def test_a_name_cannot_become_another_request(
    api_server: FakeApiServer, kube_client: KubeClient, name: str
) -> None:
    with pytest.raises(InvalidObjectError, match="invalid resource name"):
        await kube_client.references.get_config_map("default", name)
    assert api_server.requests == []


async def test_odd_names_are_quoted(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    with pytest.raises(NotFoundError, match=r'configmaps "a b\?x=1#\u00e4" not found'):
        await kube_client.references.get_config_map("default", "a b?x=1#\u00e4")


# --- pods


async def test_a_status_patch_for_another_pod_of_that_name_is_a_conflict(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    made = api_server.objects.create("pods", pod_json("web"))
    patch = {"metadata": {"uid": "another"}, "status": {"phase": "Failed"}}
    with pytest.raises(ConflictError):
        await kube_client.pods.patch_status(pod_key(made), patch)
    assert api_server.objects.get("pods", "web")["status"]["phase"] == "Pending"


async def test_a_pod_is_deleted_only_if_it_is_the_one_meant(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    key = pod_key(api_server.objects.create("pods", pod_json("web")))
    with pytest.raises(ConflictError):
        await kube_client.pods.delete(PodKey(key.namespace, key.name, "another"))
    await kube_client.pods.delete(key)
    with pytest.raises(NotFoundError):
        await kube_client.pods.delete(key)
    assert api_server.objects.find("pods", "web") is None


async def test_pods_of_the_node_are_listed_consistently(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.objects.create("pods", pod_json("here"))
    api_server.objects.create("pods", pod_json("there", nodeName="node-2"))
    assert [pod.name for pod in await kube_client.pods.list_on_node("node-1")] == ["here"]
    assert "resourceVersion" not in api_server.requests[-1].query


# --- references, reviews


async def test_data_is_decoded(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.objects.create(
        "configmaps", {"metadata": {"name": "c"}, "data": {"a": "b"}, "binaryData": {"x": "AP8="}}
    )
    api_server.objects.create(
        "secrets", {"metadata": {"name": "s"}, "type": "T", "data": {"k": "djE=", "empty": None}}
    )
    references = kube_client.references
    assert await references.get_config_map("default", "c") == ConfigMapData({"a": "b"}, {"x": b"\x00\xff"})
    secret = await references.get_secret("default", "s")
    assert (secret.data, secret.type) == ({"k": b"v1", "empty": b""}, "T")
    assert "v1" not in repr(secret)
    with pytest.raises(NotFoundError):
        await references.get_secret("default", "missing")


async def test_a_token_is_asked_for_the_pod(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    pod = parse_pod(api_server.objects.create("pods", pod_json("web")))
    token = await kube_client.references.request_token(pod, TokenKey("vault", 600))
    left = token.expires_at - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(seconds=590) < left < datetime.timedelta(seconds=610)
    assert api_server.requests[-1].body["spec"] == {
        "audiences": ["vault"],
        "expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod.uid},
    }
    with pytest.raises(ConflictError):
        await kube_client.references.request_token(make_pod("web", uid="another"), TokenKey("", 3600))
    other = parse_pod(api_server.objects.create("pods", pod_json("x", serviceAccountName="none")))
    with pytest.raises(NotFoundError):
        await kube_client.references.request_token(other, TokenKey("", 3600))


def test_only_services_with_an_address_count() -> None:
    metadata = {"namespace": "default", "name": "db"}
    ports = [{"port": 80}, {"name": "x", "port": 53, "protocol": "UDP"}]
    service = {"metadata": metadata, "spec": {"clusterIP": "10.0.0.9", "ports": ports}}
    expected = (ServicePort("", 80, "TCP"), ServicePort("x", 53, "UDP"))
    assert parse_service(service) == ServiceData("default", "db", "10.0.0.9", expected)
    assert parse_service({"metadata": metadata, "spec": {"clusterIP": "None"}}) is None
    assert parse_service({"metadata": metadata, "spec": {"type": "ExternalName"}}) is None


async def test_token_reviews(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.tokens["t"] = {"username": "bob", "groups": ["g"], "extra": {"k": ["v"]}}
    known = await kube_client.reviews.review_token("t")
    assert (known.authenticated, known.user) == (True, UserInfo("bob", groups=("g",), extra={"k": ("v",)}))
    unknown = await kube_client.reviews.review_token("x")
    assert (unknown.authenticated, unknown.user) == (False, None)


async def test_access_reviews(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.allow = lambda spec: spec["resourceAttributes"]["subresource"] == "log"
    bob = UserInfo("bob", groups=("g",))
    assert (
        await kube_client.reviews.review_access(AccessAttributes(bob, "get", "nodes", "log", "n"))
    ).allowed
    other = await kube_client.reviews.review_access(AccessAttributes(bob, "get", "nodes", "proxy", "n"))
    assert not other.allowed
    assert api_server.requests[-1].body["spec"]["groups"] == ["g"]


async def test_the_cluster_is_known_by_its_system_namespace(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    expected = api_server.objects.get("namespaces", "kube-system")["metadata"]["uid"]
    assert await kube_client.cluster_id() == expected


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ({"major": "1", "minor": "36"}, (1, 36)),
        ({"major": "1", "minor": "36+"}, (1, 36)),
        ({}, (0, 0)),
        (None, (0, 0)),
    ],
    ids=["plain", "with a provider's suffix", "empty", "not served"],
)
async def test_the_version_of_the_api_server(
    api_server: FakeApiServer,
    kube_client: KubeClient,
    answer: dict[str, str] | None,
    version: tuple[int, int],
) -> None:
    api_server.version = answer
    assert await kube_client.server_version() == version


# --- the check at the start


async def test_good_credentials_pass_the_check(kube_client: KubeClient) -> None:
    await kube_client.check_credentials()


async def test_refused_credentials_name_the_option(api_server: FakeApiServer, tmp_path: Path) -> None:
    api_server.accepted_token = "good"
    async with KubeClient.connect(api_server.kubeconfig(tmp_path, token="bad")) as client:
        with pytest.raises(ConfigurationError, match=r"--kubeconfig .*kubeconfig: .*does not accept"):
            await client.check_credentials()


async def test_an_absent_server_is_no_mistake_in_the_configuration(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.fail(503)
    with pytest.raises(ApiUnavailableError):
        await kube_client.check_credentials()


async def test_an_old_server_without_that_question_is_accepted(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.fail(404)
    await kube_client.check_credentials()
