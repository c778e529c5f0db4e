"""
The names that the kubelet's TLS flags know: versions as Go spells them, cipher suites as IANA does.

Those are here that Go's ``crypto/tls`` counts as secure; the kubelet takes insecure ones too and warns, here
they are refused by name. TLS 1.3 has three suites and no choice among them, in Go as in Python: their names
are taken and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from vkubelet.settings.option import Raw
from vkubelet.settings.parsers import items, shown, text

__all__ = ["TLS12_CIPHER_SUITES", "TLS_VERSIONS", "TLSVersion", "cipher_suites"]

TLSVersion: TypeAlias = Literal["VersionTLS12", "VersionTLS13"]
TLS_VERSIONS: tuple[TLSVersion, ...] = ("VersionTLS12", "VersionTLS13")

#: The suites of TLS 1.2, with OpenSSL's names for them.
TLS12_CIPHER_SUITES: Mapping[str, str] = MappingProxyType(
    {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    }
)

_TLS13 = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
_INSECURE = frozenset(
    {
        "TLS_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_RSA_WITH_AES_256_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    }
)


def cipher_suites(raw: Raw) -> tuple[str, ...]:
    """Names of cipher suites, repeated or between commas; empty for our own choice."""
    return tuple(_cipher_suite(text(part)) for part in items(raw))


def _cipher_suite(name: str) -> str:
    if name in _INSECURE:
        raise ValueError(f"{shown(name)} is insecure; use suites with ECDHE and GCM or CHACHA20")
    if name not in TLS12_CIPHER_SUITES and name not in _TLS13:
        raise ValueError(f"{shown(name)} is no known cipher suite; use names such as {_EXAMPLE}")
    return name


_EXAMPLE = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
