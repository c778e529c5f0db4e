from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from tests.clocks import ManualClock
from vkubelet.errors import ConfigurationError
from vkubelet.server.self_signed import ensure_self_signed
from vkubelet.server.tls import ServingTLS, TLSFiles

DAY_S = 86400


def test_a_certificate_for_all_names_is_made_once_and_used_again(tmp_path: Path) -> None:
    clock = ManualClock()
    pair = ensure_self_signed(tmp_path / "pki", ["node-1"], ["10.0.0.1", "::1"], clock)
    made = pair[0].read_bytes()
    assert ensure_self_signed(tmp_path / "pki", ["node-1"], ["10.0.0.1"], clock) == pair
    assert pair[0].read_bytes() == made
    names = x509.load_pem_x509_certificate(made).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["node-1"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]


def test_the_pair_serves(tmp_path: Path) -> None:
    certificate, key = ensure_self_signed(tmp_path, ["node-1"], [], ManualClock())
    assert ServingTLS(TLSFiles(certificate, key), ManualClock()).client_trust is None


def test_only_the_owner_may_read_the_key(tmp_path: Path) -> None:
    _, key = ensure_self_signed(tmp_path, ["node-1"], [], ManualClock())
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("names", "ips", "after_days"),
    [(["node-2"], [], 0), (["node-1"], ["10.0.0.2"], 0), (["node-1"], [], 336), (["node-1"], [], 400)],
    ids=["another name", "another address", "about to expire", "expired"],
)
async def test_a_certificate_that_does_not_fit_is_replaced(
    tmp_path: Path, names: list[str], ips: list[str], after_days: int
) -> None:
    clock = ManualClock()
    certificate, _ = ensure_self_signed(tmp_path, ["node-1"], ["10.0.0.1"], clock)
    made = certificate.read_bytes()
    await clock.advance(after_days * DAY_S)
    ensure_self_signed(tmp_path, names, ips, clock)
    assert certificate.read_bytes() != made


@pytest.mark.parametrize("content", [b"", b"nonsense"])
@pytest.mark.parametrize("which", [0, 1], ids=["certificate", "key"])
def test_a_broken_file_is_replaced(tmp_path: Path, which: int, content: bytes) -> None:
    pair = ensure_self_signed(tmp_path, ["node-1"], [], ManualClock())
    pair[which].write_bytes(content)
    certificate, key = ensure_self_signed(tmp_path, ["node-1"], [], ManualClock())
    ServingTLS(TLSFiles(certificate, key), ManualClock())


def test_a_directory_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="--root-dir: cannot write"):
        ensure_self_signed(tmp_path / "file" / "pki", ["node-1"], [], ManualClock())
