from __future__ import annotations

import asyncio
import dataclasses
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.clocks import ManualClock, settle
from tests.kube.signer import DAY_S, Authority, SigningClerk
from vkubelet.errors import ApiUnavailableError, ConfigurationError
from vkubelet.kube.certificate_requests import CertificateRequest, CertificateRequestDenied
from vkubelet.kube.certificates import CertificateManager, client_request, serving_request

REQUEST = serving_request("node-1", ("node-1",), ("10.0.0.1", "fd00::1"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def clerk(clock: ManualClock) -> SigningClerk:
    return SigningClerk(Authority(clock))


@pytest.fixture
def make(clerk: SigningClerk, clock: ManualClock, tmp_path: Path) -> Callable[..., CertificateManager]:
    """A manager, as one more process would have it."""

    def make(request: CertificateRequest = REQUEST, **hooks: Callable[..., object]) -> CertificateManager:
        return CertificateManager(clerk, request, tmp_path / "pki", "kubelet-server", clock=clock, **hooks)

    return make


Make = Callable[..., CertificateManager]


@asynccontextmanager
async def running(manager: CertificateManager) -> AsyncIterator[None]:
    task = asyncio.create_task(manager.run())
    await settle()
    yield
    task.cancel()
    await asyncio.wait([task])


def certificate(manager: CertificateManager) -> x509.Certificate:
    return x509.load_pem_x509_certificate(manager.current_file.read_bytes())


def pairs(manager: CertificateManager) -> list[Path]:
    return sorted(manager.current_file.parent.glob("kubelet-server-2*.pem"))


def test_a_serving_certificate_is_asked_for_as_the_signer_wants_it() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.load_pem_x509_csr(REQUEST.pem(key))
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert request.subject.rfc4514_string() == "CN=system:node:node-1,O=system:nodes"
    assert names.get_values_for_type(x509.DNSName) == ["node-1"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "fd00::1"]
    assert (REQUEST.signer_name, REQUEST.usage) == ("kubernetes.io/kubelet-serving", "server auth")


def test_a_client_certificate_is_asked_for_without_other_names() -> None:
    wanted = client_request("node-1")
    request = x509.load_pem_x509_csr(wanted.pem(ec.generate_private_key(ec.SECP256R1())))
    assert request.subject.rfc4514_string() == "CN=system:node:node-1,O=system:nodes"
    assert not list(request.extensions)
    assert (wanted.signer_name, wanted.usage) == (
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
    )


def test_a_request_is_found_again_by_its_key_and_what_it_asks_for() -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    changed = dataclasses.replace(REQUEST, ips=("10.0.0.2",))
    assert REQUEST.name(key) == REQUEST.name(key)
    assert len({REQUEST.name(key), REQUEST.name(other), changed.name(key)}) == 3


async def test_the_pair_is_there_once_it_was_signed(make: Make) -> None:
    manager = make()
    assert not manager.has_certificate()
    file = await manager.ensure()
    assert manager.has_certificate()
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    assert certificate(manager).public_key() == key.public_key()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.is_symlink()


async def test_a_good_pair_on_disk_is_used_again(make: Make, clerk: SigningClerk) -> None:
    await make().ensure()
    await make().ensure()
    assert len(clerk.asked) == 1


async def test_a_restart_while_nobody_has_decided_waits_for_the_same_request(
    clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    clerk.approved.clear()
    told: list[str] = []
    for _ in range(3):
        async with running(make(on_pending=told.append)):
            pass
    assert len(told) == 3
    assert len(set(told)) == 1
    clerk.approved.set()
    async with running(manager := make()):
        assert manager.has_certificate()
    assert not (manager.current_file.parent / "kubelet-server-pending.key").exists()


async def test_a_request_for_other_addresses_is_another_request(make: Make, clerk: SigningClerk) -> None:
    await make().ensure()
    moved = make(dataclasses.replace(REQUEST, ips=("10.0.0.9",)))
    assert moved.is_usable()
    assert not moved.has_certificate()
    await moved.ensure()
    assert moved.has_certificate()
    assert len(clerk.asked) == 2


async def test_fewer_names_than_the_certificate_has_are_no_reason_to_ask(
    make: Make, clerk: SigningClerk
) -> None:
    await make().ensure()
    await make(dataclasses.replace(REQUEST, ips=("10.0.0.1",))).ensure()
    assert len(clerk.asked) == 1


@pytest.mark.parametrize("attempt", range(5))
async def test_it_is_renewed_when_most_of_its_life_is_over(
    attempt: int, clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    changes: list[float] = []
    async with running(manager := make(on_change=lambda: changes.append(clock.monotonic()))):
        first = certificate(manager)
        await clock.advance(6.99 * DAY_S)
        assert certificate(manager) == first
        await clock.advance(2.02 * DAY_S)
        assert certificate(manager) != first
    assert len(changes) == 2
    assert 7 * DAY_S <= changes[1] <= 9 * DAY_S


async def test_a_short_life_that_was_dated_back_is_not_over_at_once(
    clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    clerk.authority.life_s, clerk.authority.backdated_s = 40, 300
    async with running(make()):
        await clock.advance(27)
        assert len(clerk.asked) == 1
        await clock.advance(10)
        assert len(clerk.asked) == 2
        await clock.advance(3600)
        assert 3600 / 36 <= len(clerk.asked) <= 3600 / 28 + 2


async def test_a_new_key_is_made_for_each_renewal(
    clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    async with running(make()):
        await clock.advance(30 * DAY_S)
    numbers = [key.private_numbers() for _, key in clerk.asked]
    assert len(numbers) >= 4
    assert len(set(numbers)) == len(numbers)


async def test_only_the_present_pair_and_the_one_before_are_kept(clock: ManualClock, make: Make) -> None:
    async with running(manager := make()):
        await clock.advance(60 * DAY_S)
        assert len(pairs(manager)) == 2
        assert manager.current_file.resolve() == pairs(manager)[-1].resolve()


async def test_a_denied_request_is_made_anew_with_another_key(
    clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    clerk.refuse = [CertificateRequestDenied("no"), CertificateRequestDenied("no")]
    async with running(manager := make()):
        await clock.advance(1.9)
        assert len(clerk.asked) == 1
        await clock.advance(10)
        assert manager.has_certificate()
    assert len({key.private_numbers() for _, key in clerk.asked}) == 3


async def test_without_the_api_server_the_same_request_is_tried_again(
    clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    clerk.refuse = [ApiUnavailableError("gone") for _ in range(20)]
    async with running(manager := make()):
        await clock.advance(60)
        assert 5 <= len(clerk.asked) <= 6
        await clock.advance(20 * 40)
        assert manager.has_certificate()
    assert len({key.private_numbers() for _, key in clerk.asked}) == 1


async def test_the_old_pair_stays_while_a_renewal_is_not_answered(
    clock: ManualClock, clerk: SigningClerk, make: Make
) -> None:
    async with running(manager := make()):
        before = certificate(manager)
        clerk.approved.clear()
        await clock.advance(9.5 * DAY_S)
        assert certificate(manager) == before
        assert manager.is_usable()
        await clock.advance(DAY_S)
        assert not manager.is_usable()


class Foreign:
    """A signer that answers with a certificate for another key, then as it should."""

    def __init__(self, clerk: SigningClerk, answer: bytes) -> None:
        self._clerk = clerk
        self._answer: bytes | None = answer

    async def obtain(
        self, request: CertificateRequest, key: ec.EllipticCurvePrivateKey, pending: Callable[[str], object]
    ) -> bytes:
        answer, self._answer = self._answer, None
        return answer or await self._clerk.obtain(request, key, pending)


@pytest.mark.parametrize("kind", ["another key's", "expired", "no certificate"])
async def test_a_certificate_that_is_of_no_use_is_not_put_in_place(
    kind: str, clock: ManualClock, clerk: SigningClerk, tmp_path: Path
) -> None:
    answer = {
        "another key's": clerk.authority.sign(REQUEST.pem(ec.generate_private_key(ec.SECP256R1()))),
        "expired": clerk.authority.pem,
        "no certificate": b"-----BEGIN CERTIFICATE-----\n",
    }[kind]
    manager = CertificateManager(Foreign(clerk, answer), REQUEST, tmp_path, "kubelet-server", clock=clock)
    async with running(manager):
        assert not manager.current_file.exists()
        await clock.advance(3)
        assert manager.has_certificate()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: b"",
        lambda pem: pem[: len(pem) // 2],
        lambda pem: pem[: pem.index(b"-----BEGIN PRIVATE")],
        lambda pem: pem.replace(b"BEGIN CERTIFICATE", b"BEGIN NONSENSE"),
        lambda pem: pem[: pem.index(b"-----BEGIN PRIVATE")] + foreign_key(),
    ],
    ids=["empty", "half", "without its key", "no PEM", "another's key"],
)
async def test_a_broken_pair_is_replaced(
    spoil: Callable[[bytes], bytes], make: Make, clerk: SigningClerk
) -> None:
    file = await make().ensure()
    file.write_bytes(spoil(file.read_bytes()))
    manager = make()
    assert not manager.is_usable()
    await manager.ensure()
    assert manager.has_certificate()
    assert len(clerk.asked) == 2


async def test_a_broken_pending_key_is_replaced(make: Make, clerk: SigningClerk, tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "kubelet-server-pending.key").write_bytes(b"-----BEGIN PRIVATE KEY-----\nhalf")
    assert (await make().ensure()).exists()


async def test_a_link_left_over_from_a_killed_process_is_no_obstacle(make: Make, tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "kubelet-server-next.pem").symlink_to("nowhere")
    assert (await make().ensure()).exists()


async def test_a_directory_that_cannot_be_written_is_a_configuration_error(
    clerk: SigningClerk, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    manager = CertificateManager(clerk, REQUEST, tmp_path / "file" / "pki", "kubelet-server", clock=clock)
    with pytest.raises(ConfigurationError, match="--root-dir: cannot write"):
        await manager.ensure()


async def test_a_certificate_for_another_node_is_not_ours(make: Make) -> None:
    await make().ensure()
    other = make(serving_request("node-2", ("node-1",), ("10.0.0.1", "fd00::1")))
    assert not other.has_certificate()
    await other.ensure()
    names = certificate(other).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert names[0].value == "system:node:node-2"


def foreign_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
