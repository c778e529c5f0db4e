"""Every kind of wrong value, and the sentence that tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.settings.cases import BAD, CASES, PROVIDERS, kubeconfig, load, problems
from vkubelet.errors import ConfigurationError
from vkubelet.settings import load_settings
from vkubelet.settings.option import Option, Raw
from vkubelet.settings.options import OPTIONS


def test_every_option_has_bad_values_here() -> None:
    assert BAD.keys() == {option.name for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
class TestEveryBadValue:
    def test_is_told_in_one_sentence_that_starts_with_the_option(self, option: Option, here: Path) -> None:
        for bad in BAD[option.name]:
            told = problems({**CASES[option.name].with_flags, option.name: bad})
            assert len(told) == 1, bad
            assert told[0].startswith(f"{option.flag}: "), bad
            assert not told[0].endswith("."), bad

    def test_says_which_variable_it_came_from(self, option: Option, here: Path) -> None:
        bad = BAD[option.name][0]
        told = problems(CASES[option.name].with_flags, {option.env_names[0]: bad})
        assert told[0].startswith(f"{option.flag}: ")
        assert told[0].endswith(f"(set by {option.env_names[0]})")

    def test_says_which_key_of_the_file_it_came_from(self, option: Option, here: Path) -> None:
        bad = BAD[option.name][0]
        told = problems(CASES[option.name].with_flags, {}, {option.file_key: bad})
        assert told[0].startswith(f"{option.flag}: ")
        assert told[0].endswith(f"(set by {option.file_key} in {here}/vkubelet.yaml)")


def test_a_port_out_of_range_is_told_as_promised(here: Path) -> None:
    assert problems({"port": "70000"}) == ["--port: 70000 is not a port; use a number from 1 to 65535"]


def test_everything_wrong_is_told_at_once(here: Path) -> None:
    told = problems({"port": "x", "node_ip": "y"}, {"VKUBELET_LOG_LEVEL": "loud"}, {"maxPods": -1, "prot": 1})
    assert [sentence.split(":")[0] for sentence in told] == [
        "--config",
        "--node-ip",
        "--max-pods",
        "--port",
        "--log-level",
    ]


def test_what_is_missing_is_named_with_its_choices() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {}, providers=PROVIDERS)
    assert str(caught.value).splitlines() == [
        "--provider: missing; say where the pods shall run: docker, memory",
        "--kubeconfig: missing, and this is not a pod in a cluster; name a kubeconfig, or set KUBECONFIG",
    ]


def test_an_unknown_provider_is_told_with_those_installed(here: Path) -> None:
    assert problems({"provider": "dokcer"}) == [
        "--provider: dokcer is not installed; use one of docker, memory"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (kubeconfig(**{"current-context": ""}), "has no current-context"),
        (kubeconfig(**{"current-context": "there"}), "has no context there"),
        (kubeconfig(contexts=None), "has no context here"),
        (kubeconfig(clusters=[]), "has no cluster c"),
        (kubeconfig(clusters=[{"name": "c", "cluster": {}}]), "names no server"),
        (kubeconfig(users=[{"name": "u"}]), "has no user u"),
        (
            kubeconfig(users=[{"name": "u", "user": {"client-certificate": "gone.crt"}}]),
            "names a client-certificate that is of no use",
        ),
        ("a: [1\n", "is not valid YAML: line 2, column 1"),
        ("a: 1\na: 2\n", "is not valid YAML: line 2, column 1: a stands twice"),
        ("- a\n- b\n", "does not hold a mapping"),
        ("\x01\x02", "is not valid YAML"),
        ("", "has no current-context"),
    ],
    ids=[
        "no-current-context",
        "unknown-context",
        "no-contexts",
        "no-cluster",
        "no-server",
        "no-user",
        "missing-file",
        "broken-yaml",
        "key-twice",
        "a-list",
        "binary",
        "empty",
    ],
)
def test_an_unusable_kubeconfig_is_told(here: Path, content: str, expected: str) -> None:
    (here / "bad.kubeconfig").write_text(content)
    (told,) = problems({"kubeconfig": "bad.kubeconfig"})
    assert told.startswith(f"--kubeconfig: {here}/bad.kubeconfig {expected}")


def test_files_that_a_kubeconfig_names_are_relative_to_it(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "client.crt").write_text("x")
    user = {"client-certificate": "client.crt"}
    (here / "sub" / "kubeconfig").write_text(kubeconfig(users=[{"name": "u", "user": user}]))
    assert load({"kubeconfig": "sub/kubeconfig"}).kubeconfig == here / "sub" / "kubeconfig"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nodeNam: x", "--config: {} has no option nodeNam; did you mean nodeName?"),
        ("node-ip: x", "--config: {} has no option node-ip; did you mean nodeIP?"),
        ("nodeIp: 10.0.0.1", "--config: {} has no option nodeIp; did you mean nodeIP?"),
        ("zzz: x", "--config: {} has no option zzz; see vkubelet run --help"),
        ("config: other.yaml", "--config: {} has no option config; see vkubelet run --help"),
        ("port: 1\nport: 2", "--config: {} is not valid YAML: line 2, column 1: port stands twice"),
        ("- port", "--config: {} does not hold a mapping of names to values"),
        (
            "port: [1, 2]",
            "--port: a list is not a port; use a number from 1 to 65535 (set by port in {})",
        ),
        ("clusterDNS: {a: b}", "--cluster-dns: a mapping is not a list (set by clusterDNS in {})"),
    ],
    ids=["misspelled", "flag", "case", "unlike-any", "config", "twice", "list", "a-list", "a-mapping"],
)
def test_a_wrong_file_is_told(here: Path, content: str, expected: str) -> None:
    basics: dict[str, Raw] = {"kubeconfig": "a.kubeconfig", "provider": "memory"}
    assert problems(basics, {}, content) == [expected.format(here / "vkubelet.yaml")]


def test_a_file_that_cannot_be_read_is_told_alone(here: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--config: .*gone.yaml cannot be read: No such file"):
        load_settings({"config": "gone.yaml", "port": "x"}, {}, providers=PROVIDERS)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"tls_cert_file": "a.crt"}, "--tls-private-key-file: missing; --tls-cert-file needs its key"),
        ({"tls_private_key_file": "a.key"}, "--tls-cert-file: missing; --tls-private-key-file needs"),
        (
            {"tls_cert_file": "a.crt", "tls_private_key_file": "other.key"},
            "--tls-cert-file: .* key values mismatch",
        ),
        (
            {"tls_cert_file": "a.key", "tls_private_key_file": "a.key"},
            "--tls-cert-file: .* cannot be used together",
        ),
        (
            {"tls_cert_file": "a.yaml", "tls_private_key_file": "a.key"},
            "--tls-cert-file: .* cannot be used together",
        ),
        (
            {"tls_cert_file": "a.crt", "tls_private_key_file": "locked.key"},
            "--tls-cert-file: .* cannot be used",
        ),
        (
            {"authentication_token_webhook": "false"},
            "--authentication-token-webhook: false without --client-ca-file leaves nobody",
        ),
        (
            {"anonymous_auth": "true", "authorization_mode": "AlwaysAllow"},
            "--anonymous-auth: with --authorization-mode AlwaysAllow anybody could",
        ),
    ],
    ids=["no-key", "no-cert", "other-key", "key-as-cert", "no-pem", "passphrase", "nobody", "everybody"],
)
def test_what_does_not_go_together_is_told(
    here: Path, pem: Mapping[str, bytes], flags: dict[str, Raw], expected: str
) -> None:
    (here / "other.key").write_bytes(pem["other"])
    (here / "locked.key").write_bytes(pem["locked"])
    (told,) = problems(flags)
    assert re.match(expected, told), told


@pytest.mark.parametrize(
    ("variable", "value"),
    [("VKUBELET_TAINT_KEY", "a b"), ("VKUBELET_TAINT_VALUE", "-a"), ("VKUBELET_TAINT_EFFECT", "Never")],
)
def test_a_part_of_the_taint_is_told_by_its_variable(here: Path, variable: str, value: str) -> None:
    (told,) = problems({}, {variable: value})
    assert told.startswith(f"{variable}: ")
    assert "set by" not in told


def test_an_empty_name_of_a_file_is_told(here: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--config: the value is empty"):
        load_settings({"config": ""}, {}, providers=PROVIDERS)


def test_no_installed_provider_at_all_is_told(here: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--provider: memory is not installed, nor is any other"):
        load_settings({"provider": "memory", "kubeconfig": "a.kubeconfig"}, {}, providers=())


def test_a_long_value_is_not_told_in_full(here: Path) -> None:
    (told,) = problems({"log_level": "x" * 5000})
    assert len(told) < 300


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"tls_cipher_suites": "TLS_RSA_WITH_AES_128_CBC_SHA"},
            "--tls-cipher-suites: TLS_RSA_WITH_AES_128_CBC_SHA is insecure; "
            "use suites with ECDHE and GCM or CHACHA20",
        ),
        (
            {"tls_cipher_suites": "TLS_FAST"},
            "--tls-cipher-suites: TLS_FAST is no known cipher suite; "
            "use names such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
        (
            {"tls_self_signed": "true", "tls_cert_file": "a.crt", "tls_private_key_file": "a.key"},
            "--tls-self-signed: --tls-cert-file is given too; leave out one of the two",
        ),
    ],
    ids=["insecure suite", "unknown suite", "files and self-signed"],
)
def test_tls_is_told_as_promised(flags: Mapping[str, Raw], expected: str, here: Path) -> None:
    assert problems(flags) == [expected]


def test_a_bootstrap_kubeconfig_needs_a_place_for_what_it_leads_to(here: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"provider": "memory", "bootstrap_kubeconfig": "a.kubeconfig"}, {}, providers=PROVIDERS)
    assert str(caught.value).startswith("--kubeconfig: missing; --bootstrap-kubeconfig needs the name")


def test_a_bootstrap_kubeconfig_may_be_gone_once_it_was_used(here: Path) -> None:
    settings = load({"bootstrap_kubeconfig": "used.kubeconfig", "kubeconfig": "a.kubeconfig"})
    assert settings.bootstrap_kubeconfig == here / "used.kubeconfig"
