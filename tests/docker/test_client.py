"""What the engine's refusals mean, and connections that change to raw bytes, also under TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from providers.docker.client import EngineClient, EngineError, error_from
from providers.docker.jsonlines import JsonLines
from providers.docker.settings import DockerSettings, Endpoint, endpoint
from tests.docker.fake_engine import FakeEngine, RefusedError
from vkubelet.errors import (
    ConfigurationError,
    PodNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    RemoteProtocolError,
)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, b'{"message":"No such container: x"}', PodNotFoundError, "No such container: x"),
        (404, b'{"message":"Cannot kill container: x: No such container: x"}', PodNotFoundError, "Cannot"),
        (404, b'{"message":"no such image: x: No such image: x"}', PodNotFoundError, "image"),
        (404, b'{"message":"pull access denied for x"}', EngineError, "pull access denied"),
        (400, b'{"message":"bad parameter"}', EngineError, "bad parameter"),
        (409, b'{"message":"Conflict"}', EngineError, "Conflict"),
        (500, b"no JSON", EngineError, "no JSON"),
        (500, b"", EngineError, "HTTP status 500"),
        (500, b"[]", EngineError, "HTTP status 500"),
        (503, b'{"message":"busy"}', ProviderUnavailableError, "busy"),
    ],
)
def test_a_refusal_means(status: int, body: bytes, kind: type[ProviderError], message: str) -> None:
    error = error_from(status, body)
    assert type(error) is kind
    assert message in str(error)


@given(st.lists(st.dictionaries(st.text(), st.integers(0, 99), max_size=3), max_size=5), st.integers(1, 30))
def test_json_lines_may_be_cut_anywhere(objects: list[dict[str, int]], size: int) -> None:
    data = b"".join(json.dumps(value).encode() + b"\r\n" for value in objects)
    lines = JsonLines()
    chunks = [data[n : n + size] for n in range(0, len(data), size)]
    assert [value for chunk in chunks for value in lines.receive_data(chunk)] == objects
    assert lines.receive_data(b"") == []


def test_a_last_line_needs_no_newline() -> None:
    lines = JsonLines()
    assert lines.receive_data(b'{"a":1}') == []
    assert lines.receive_data(b"") == [{"a": 1}]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"x" * (5 << 20)])
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        JsonLines().receive_data(line)


async def test_a_refused_hijack_has_the_engines_words(engine: FakeEngine, settings: DockerSettings) -> None:
    client = EngineClient(endpoint(settings), request_timeout_s=5)
    engine.refuse_next["/exec/"] = RefusedError(409, "Container x is paused")
    async with client.running():
        with pytest.raises(EngineError, match="is paused"):
            await client.hijack("/exec/x/start", {})


@asynccontextmanager
async def listening(socket: Path, until: bytes) -> AsyncIterator[EngineClient]:
    """A client of a server that reads until `until`, or the end where that is b"", and hangs up."""
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (reader.readuntil(until) if until else reader.read())
        writer.close()
        await writer.wait_closed()
        done.set()

    client = EngineClient(Endpoint("unix://x", unix_path=str(socket)), request_timeout_s=0.05)
    async with await asyncio.start_unix_server(handle, str(socket)), client.running():
        yield client
    await done.wait()


async def test_an_answer_that_does_not_come_is_unavailable(socket: Path) -> None:
    async with listening(socket, b"") as client:
        client._prefix = "/v1.41"
        with pytest.raises(ProviderUnavailableError, match="does not answer"):
            await client.get("/info")


async def test_an_engine_that_hangs_up_is_unavailable(socket: Path) -> None:
    async with listening(socket, b"\r\n\r\n") as client:
        with pytest.raises(ProviderUnavailableError):
            await client.get("/info")


async def test_an_engine_that_hangs_up_on_a_hijack_is_unavailable(socket: Path) -> None:
    async with listening(socket, b"\r\n\r\n") as client:
        client._prefix = "/v1.41"
        with pytest.raises(ProviderUnavailableError):
            await client.hijack("/exec/x/start", {})


def test_missing_certificates_are_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="DOCKER_CERT_PATH"):
        EngineClient(Endpoint("tcp://x", host="x", port=1, cert_dir=tmp_path), request_timeout_s=1)


# --- raw connections --------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory as `DOCKER_CERT_PATH`: one self-signed certificate is authority, server and client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engine")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    (tmp_path / "cert.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return tmp_path


Serve = Callable[[Path | None], int]


@pytest.fixture
def echo_server() -> Iterator[Serve]:
    """Upgrades a connection, reads it to its end, and only then sends back what it read."""
    threads: list[threading.Thread] = []

    def serve(certificates: Path | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=_echo, args=(listener, certificates))
        thread.start()
        threads.append(thread)
        port: int = listener.getsockname()[1]
        return port

    yield serve
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def _echo(listener: socket.socket, certificates: Path | None) -> None:
    with listener:
        connection, _ = listener.accept()
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        connection = context.wrap_socket(connection, server_side=True)
    with connection:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nfirst ")
        body = received.partition(b"\r\n\r\n")[2].removeprefix(b"{}")
        while data := connection.recv(65536):
            body += data
        connection.sendall(body)


@pytest.mark.parametrize("tls", [False, True])
async def test_output_goes_on_after_the_end_of_input(
    echo_server: Serve, certificates: Path, tls: bool
) -> None:
    cert_dir = certificates if tls else None
    port = await asyncio.to_thread(echo_server, cert_dir)
    client = EngineClient(Endpoint("x", host="127.0.0.1", port=port, cert_dir=cert_dir), request_timeout_s=5)
    client._prefix = "/v1.41"
    sent = bytes(range(256)) * 4000
    async with asyncio.timeout(10), client.running():
        connection = await client.hijack("/exec/x/start", {})
        for n in range(0, len(sent), 100_000):
            await connection.write(sent[n : n + 100_000])
        await connection.write_eof()
        received = b""
        while data := await connection.read():
            received += data
        connection.close()
    assert received == b"first " + sent
