"""The server as a client meets it: real TLS, real connections."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.builders import make_pod
from tests.clocks import ManualClock
from tests.server.kubelet import (
    ApiServer,
    Files,
    Kubelet,
    Logs,
    Pods,
    serving,
    with_logs,
    without_client_ca,
)
from tests.server.pki import DAY, Pair, make_authority
from vkubelet.clock import SystemClock
from vkubelet.errors import ProviderUnavailableError
from vkubelet.model.access import UserInfo
from vkubelet.model.keys import PodKey
from vkubelet.provider import ExecIO, LogOptions
from vkubelet.server.app import Powers
from vkubelet.server.authorization import AlwaysAllow

ENDPOINTS = [
    ("/healthz", "healthz"),
    ("/healthz/ping", "healthz"),
    ("/livez", "healthz"),
    ("/readyz", "healthz"),
    ("/pods", "pods"),
    ("/runningpods/", "pods"),
    ("/containerLogs/default/web/main", None),
]
"""Paths and the subresource of their own that opens them, beside ``proxy``."""


async def hello(_: LogOptions) -> AsyncIterator[bytes]:
    yield b"hello\n"


def all_powers() -> Powers:
    async def list_running() -> list[object]:
        return []

    return replace(with_logs(Logs(hello)), list_running=list_running)  # type: ignore[arg-type] # empty anyway


async def status_of(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as response:
        await response.read()
        return response.status


# --- who may do what --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [path for path, _ in ENDPOINTS] + ["/nothing", "/", "/exec/default/web/main"]
)
async def test_nobody_is_served_without_credentials(files: Files, path: str) -> None:
    async with serving(files, all_powers()) as kubelet:
        assert await kubelet.get(path, token=None) == (401, "Unauthorized")


@pytest.mark.parametrize(("path", "subresource"), ENDPOINTS)
async def test_a_user_without_permission_is_told_what_is_missing(
    files: Files, path: str, subresource: str | None
) -> None:
    api = ApiServer(tokens={"t": UserInfo("jane")})
    asked = f"{subresource} proxy" if subresource else "proxy"
    async with serving(files, all_powers(), api=api) as kubelet:
        status, text = await kubelet.get(path, token="t")
    assert status == 403
    assert text == f"Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[{asked}])\n"


@pytest.mark.parametrize(("path", "subresource"), ENDPOINTS)
async def test_a_user_with_the_permission_is_served(files: Files, path: str, subresource: str | None) -> None:
    for allowed in filter(None, (subresource, "proxy")):
        api = ApiServer(tokens={"t": UserInfo("jane")}, allowed={("jane", "get", allowed)})
        async with serving(files, all_powers(), api=api) as kubelet:
            assert (await kubelet.get(path, token="t"))[0] == 200


async def test_the_permission_is_asked_for_this_node_and_method(files: Files) -> None:
    async with serving(files) as kubelet:
        async with kubelet.session() as session, session.post("/exec/default/web/main") as response:
            assert response.status == 501
        (asked,) = kubelet.api.reviewed_access
    assert (asked.verb, asked.resource, asked.subresource, asked.name) == (
        "create",
        "nodes",
        "proxy",
        "node-1",
    )
    assert asked.user == UserInfo("admin", groups=("system:authenticated",))


async def test_an_unknown_path_is_404_only_for_those_who_may_ask(files: Files) -> None:
    api = ApiServer(tokens={"t": UserInfo("jane"), "admin-token": UserInfo("admin")})
    async with serving(files, api=api) as kubelet:
        assert (await kubelet.get("/nothing", token="t"))[0] == 403
        assert (await kubelet.get("/nothing"))[0] == 404


async def test_a_method_that_an_endpoint_has_not_is_405(files: Files) -> None:
    async with serving(files) as kubelet, kubelet.session() as session, session.put("/pods") as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]


async def test_without_the_api_server_tokens_are_refused_and_access_is_an_error(files: Files) -> None:
    client = files.client_authority.issue_client("admin")
    async with serving(files, api=ApiServer(is_up=False)) as kubelet:
        assert await kubelet.get("/pods") == (401, "Unauthorized")
        assert await kubelet.get("/pods", token=None, client=client) == (
            500,
            "Authorization error (user=admin, verb=get, resource=nodes, subresource=pods)",
        )


async def test_anonymous_clients_are_users_of_their_own_where_they_are_let_in(files: Files) -> None:
    async with serving(files, anonymous_auth=True) as kubelet:
        assert (await kubelet.get("/healthz", token=None))[0] == 403
        kubelet.api.allowed.add(("system:anonymous", "get", "pods"))
        assert (await kubelet.get("/pods", token=None))[0] == 200
        assert (await kubelet.get("/pods", token="wrong"))[0] == 401


async def test_always_allow_lets_every_authenticated_user_do_everything(files: Files) -> None:
    api = ApiServer(tokens={"t": UserInfo("jane")})
    async with serving(files, api=api) as kubelet:
        kubelet.server._gate = replace(kubelet.server._gate, authorizer=AlwaysAllow())
        assert (await kubelet.get("/pods", token="t"))[0] == 200
        assert (await kubelet.get("/pods", token=None))[0] == 401


# --- client certificates ----------------------------------------------------------------------------------


async def test_a_client_certificate_names_user_groups_and_uid(files: Files) -> None:
    client = files.client_authority.issue_client("jane", ["dev", "ops"], uids=["7"])
    async with serving(files) as kubelet:
        assert (await kubelet.get("/pods", token=None, client=client))[0] == 403
        user = kubelet.api.reviewed_access[0].user
    assert (user.name, user.uid) == ("jane", "7")
    assert user.groups == ("dev", "ops", "system:authenticated")
    (fingerprint,) = user.extra["authentication.kubernetes.io/credential-id"]
    assert fingerprint == "X509SHA256=" + client.certificate.fingerprint(hashes.SHA256()).hex()


async def test_a_certificate_signed_through_an_intermediate_authority_is_accepted(files: Files) -> None:
    intermediate = files.client_authority.issue_authority("intermediate")
    client = intermediate.issue_client("admin")
    async with (
        serving(files) as kubelet,
        kubelet.session(None, client, intermediate) as session,
        session.get("/pods") as response,
    ):
        assert response.status == 200


@pytest.mark.parametrize(
    "issue",
    [
        lambda files: make_authority("stranger").issue_client("admin"),
        lambda files: files.client_authority.issue_client("admin", starts=-2 * DAY, ends=-DAY),
        lambda files: files.client_authority.issue_client("admin", starts=DAY, ends=2 * DAY),
        lambda files: files.client_authority.issue_client("admin", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    ],
    ids=["of another authority", "expired", "not yet valid", "not for clients"],
)
async def test_a_bad_client_certificate_ends_the_handshake(
    files: Files, issue: Callable[[Files], Pair]
) -> None:
    async with serving(files) as kubelet:
        with pytest.raises(aiohttp.ClientError):
            await kubelet.get("/healthz", token=None, client=issue(files))
        assert (await kubelet.get("/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("name", "uids"), [(None, []), ("jane", ["1", "2"]), ("jane", [""])], ids=["no name", "two uids", "empty"]
)
async def test_a_certificate_without_a_clear_user_is_nobodys(
    files: Files, name: str | None, uids: list[str]
) -> None:
    client = files.client_authority.issue_client(name, ["dev"], uids=uids)
    async with serving(files) as kubelet:
        assert (await kubelet.get("/healthz", token=None, client=client))[0] == 401


async def test_the_certificate_counts_before_the_token_and_the_token_where_that_names_nobody(
    files: Files,
) -> None:
    async with serving(files) as kubelet:
        await kubelet.get("/pods", client=files.client_authority.issue_client("jane"))
        await kubelet.get("/pods", client=files.client_authority.issue_client(None, ["dev"]))
        assert [asked.user.name for asked in kubelet.api.reviewed_access] == ["jane", "jane", "admin"]


async def test_a_certificate_that_expires_while_its_connection_stands_is_refused(files: Files) -> None:
    clock = ManualClock(SystemClock().now().isoformat())
    client = files.client_authority.issue_client("admin", ends=datetime.timedelta(minutes=1))
    async with serving(files, clock=clock) as kubelet, kubelet.session(None, client) as session:
        assert await status_of(session, "/pods") == 200
        await clock.advance(61)
        assert await status_of(session, "/pods") == 401


async def test_without_a_client_ca_a_certificate_says_nothing(files: Files) -> None:
    client = files.client_authority.issue_client("admin")
    async with serving(without_client_ca(files)) as kubelet:
        assert (await kubelet.get("/healthz", token=None, client=client))[0] == 401
        assert (await kubelet.get("/healthz", client=client))[0] == 200


# --- reloads ----------------------------------------------------------------------------------------------


async def served_certificate(kubelet: Kubelet) -> str:
    """The common name that a new client sees."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


async def test_a_new_serving_certificate_is_shown_while_an_open_stream_goes_on(files: Files) -> None:
    clock = ManualClock(SystemClock().now().isoformat())
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def follow(_: LogOptions) -> AsyncIterator[bytes]:
        while line := await lines.get():
            yield line

    async with (
        serving(files, with_logs(Logs(follow)), clock=clock) as kubelet,
        kubelet.session() as session,
        session.get("/containerLogs/default/web/main?follow=true") as stream,
    ):
        lines.put_nowait(b"before\n")
        assert await stream.content.readline() == b"before\n"
        assert await served_certificate(kubelet) == "CN=node-1"
        files.server_authority.issue_server("renewed").write(files.directory, "serving")
        await clock.advance(10)
        assert await served_certificate(kubelet) == "CN=renewed"
        lines.put_nowait(b"after\n")
        assert await stream.content.readline() == b"after\n"
        lines.put_nowait(b"")
        assert await stream.content.read() == b""


async def test_a_client_ca_that_is_taken_away_counts_for_open_connections_too(files: Files) -> None:
    client = files.client_authority.issue_client("admin")
    other = make_authority("other")
    assert files.paths.client_ca is not None
    async with serving(files) as kubelet, kubelet.session(None, client) as session:
        assert await status_of(session, "/pods") == 200
        files.paths.client_ca.write_bytes(other.certificate_pem)
        assert kubelet.tls.reload()
        assert await status_of(session, "/pods") == 401
        with pytest.raises(aiohttp.ClientError):
            await kubelet.get("/pods", token=None, client=client)
        assert (await kubelet.get("/pods", token=None, client=other.issue_client("admin")))[0] == 200


async def test_a_client_ca_that_is_added_leaves_open_connections_alone(files: Files) -> None:
    client = files.client_authority.issue_client("admin")
    assert files.paths.client_ca is not None
    async with serving(files) as kubelet, kubelet.session(None, client) as session:
        assert await status_of(session, "/pods") == 200
        with files.paths.client_ca.open("ab") as file:
            file.write(make_authority("other").certificate_pem)
        assert kubelet.tls.reload()
        assert await status_of(session, "/pods") == 200


def get_pods(context: ssl.SSLContext, port: int, session: object = None) -> tuple[str, object, bool | None]:
    """Status line, TLS session and whether it was resumed, of one request; blocks."""
    assert isinstance(session, ssl.SSLSession | None)
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as connection,
    ):
        connection.sendall(b"GET /pods HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = connection.recv(4096)
        while connection.recv(4096):
            pass
        return answer.partition(b"\r\n")[0].decode(), connection.session, connection.session_reused


async def test_a_resumed_session_does_not_bring_back_an_authority_that_was_taken_away(files: Files) -> None:
    context = files.client(files.client_authority.issue_client("admin"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert files.paths.client_ca is not None
    async with serving(files) as kubelet:
        port = kubelet.server.port
        status, session, _ = await asyncio.to_thread(get_pods, context, port)
        assert status == "HTTP/1.1 200 OK"
        status, session, resumed = await asyncio.to_thread(get_pods, context, port, session)
        assert (status, resumed) == ("HTTP/1.1 200 OK", True)
        files.paths.client_ca.write_bytes(make_authority("other").certificate_pem)
        kubelet.tls.reload()
        status, _, _ = await asyncio.to_thread(get_pods, context, port, session)
        assert status == "HTTP/1.1 401 Unauthorized"


# --- the port, faults and the end -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/containerLogs/default/web/main", "this node's provider cannot show container logs"),
        ("/exec/default/web/main", "this node's provider cannot run commands in containers"),
        ("/exec/default/web/uid-web/main", "this node's provider cannot run commands in containers"),
        ("/run/default/web/main", "this node's provider cannot run commands in containers"),
        ("/attach/default/web/main", "this node's provider cannot attach to containers"),
        ("/runningpods/", "this node's provider cannot list what it runs"),
    ],
)
async def test_what_the_provider_cannot_do_is_501_with_a_sentence(
    files: Files, path: str, sentence: str
) -> None:
    async with serving(files) as kubelet:
        assert await kubelet.get(path) == (501, sentence + "\n")


async def test_exec_reaches_its_handler(files: Files) -> None:
    class Runner:
        async def is_running(self, key: PodKey, container: str) -> bool:
            return True

        async def exec(self, key: PodKey, container: str, command: object, io: ExecIO) -> int:
            return 0

    async with serving(files, Powers(pods=Pods(make_pod()), exec=Runner())) as kubelet:
        assert (await kubelet.get("/exec/default/other/main?command=true&output=1"))[0] == 404
        assert (await kubelet.get("/exec/default/web/other-uid/main?command=true&output=1"))[0] == 404
        assert (await kubelet.get("/exec/default/web/main?command=true&output=1"))[0] == 400  # no upgrade


async def test_a_bug_costs_one_request_and_shows_no_stack(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(_: LogOptions) -> AsyncIterator[bytes]:
        raise RuntimeError("a secret detail")
        yield b""  # type: ignore[unreachable] # makes it a generator

    def list_running() -> object:
        raise RuntimeError("a secret detail")

    powers = replace(with_logs(Logs(broken)), list_running=list_running)  # type: ignore[arg-type] # a bug
    async with serving(files, powers) as kubelet:
        status, text = await kubelet.get("/runningpods/")
        assert status == 500
        assert "secret" not in text
        assert "Traceback" not in text
        assert (await kubelet.get("/healthz"))[0] == 200
    assert "a secret detail" in capsys.readouterr().out


async def test_a_provider_that_does_not_answer_is_503(files: Files) -> None:
    async def list_running() -> list[object]:
        raise ProviderUnavailableError("the engine does not answer")

    powers = Powers(pods=Pods(), list_running=list_running)  # type: ignore[arg-type] # never returns
    async with serving(files, powers) as kubelet:
        assert await kubelet.get("/runningpods/") == (503, "the engine does not answer\n")


async def test_queries_never_reach_the_log(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(files) as kubelet:
        await kubelet.get("/exec/default/web/main?command=hunter2")
        await kubelet.get("/pods?hunter2", token="hunter2")
    output = capsys.readouterr()
    assert "/exec/default/web/main" in output.out
    assert "hunter2" not in output.out + output.err


async def test_a_long_command_passes_and_a_long_header_does_not(files: Files) -> None:
    async with serving(files) as kubelet, kubelet.session() as session:
        async with session.get("/healthz", params={"command": "x" * 200_000}) as response:
            assert response.status == 200
        async with session.get("/healthz", headers={"X-Long": "x" * 20_000}) as response:
            assert response.status == 400


async def test_a_running_stream_may_end_within_the_limit(files: Files) -> None:
    go_on = asyncio.Event()

    async def follow(_: LogOptions) -> AsyncIterator[bytes]:
        yield b"first\n"
        await go_on.wait()
        yield b"last\n"

    async with asyncio.timeout(5), AsyncExitStack() as stack:
        kubelet = await stack.enter_async_context(serving(files, with_logs(Logs(follow))))
        async with kubelet.session() as session, session.get("/containerLogs/default/web/main") as stream:
            assert await stream.content.readline() == b"first\n"
            leaving = asyncio.create_task(stack.aclose())
            while await lets_in(kubelet):
                pass
            go_on.set()
            assert await stream.content.read() == b"last\n"
            await leaving


async def lets_in(kubelet: Kubelet) -> bool:
    try:
        await kubelet.get("/healthz")
    except aiohttp.ClientError:
        return False
    return True


async def test_a_stream_that_does_not_end_is_closed_after_the_limit(files: Files) -> None:
    async def follow(_: LogOptions) -> AsyncIterator[bytes]:
        yield b"first\n"
        await asyncio.Event().wait()

    logs = Logs(follow)
    async with asyncio.timeout(5), AsyncExitStack() as stack:
        kubelet = await stack.enter_async_context(serving(files, with_logs(logs), shutdown_timeout_s=0.01))
        async with kubelet.session() as session, session.get("/containerLogs/default/web/main") as stream:
            assert await stream.content.readline() == b"first\n"
            await stack.aclose()
            assert logs.closed.is_set()
            with pytest.raises(aiohttp.ClientError):
                await stream.content.read()


async def test_reviews_are_remembered_between_requests(files: Files) -> None:
    async with serving(files) as kubelet:
        for _ in range(3):
            await kubelet.get("/pods")
        assert len(kubelet.api.reviewed_tokens) == len(kubelet.api.reviewed_access) == 1
