"""Every option from every source, in order of precedence; and the defaults."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path

import pytest

from tests.settings.cases import CASES, PROVIDERS, load, problems
from vkubelet.settings import Settings, Taint, defaults, load_settings
from vkubelet.settings.defaults import host_root_dir, route_ip
from vkubelet.settings.option import Option, Raw
from vkubelet.settings.options import OPTIONS
from vkubelet.settings.sources import ALL_OPTIONS


def of(settings: Settings, option: Option) -> object:
    """The field's value; a path by its name, since the tests' files are all in one directory."""
    value = getattr(settings, option.name)
    return value.name if isinstance(value, Path) else value


def test_every_option_has_a_case_here() -> None:
    assert CASES.keys() == {option.name for option in OPTIONS}


def test_no_two_options_share_a_name_in_any_source() -> None:
    for names in (
        [flag for option in ALL_OPTIONS for flag in option.flags],
        [variable for option in ALL_OPTIONS for variable in option.env_names],
        [option.file_key for option in ALL_OPTIONS],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
class TestEveryOption:
    def test_comes_from_the_flag(self, option: Option, here: Path) -> None:
        case = CASES[option.name]
        for text, value in zip(case.texts, case.values, strict=True):
            assert of(load({**case.with_flags, option.name: text}), option) == value

    def test_comes_from_each_of_its_variables(self, option: Option, here: Path) -> None:
        case = CASES[option.name]
        for variable in option.env_names:
            assert of(load(case.with_flags, {variable: case.texts[0]}), option) == case.values[0]

    def test_comes_from_the_file(self, option: Option, here: Path) -> None:
        case = CASES[option.name]
        for text, value in zip(case.texts, case.values, strict=True):
            assert of(load(case.with_flags, {}, {option.file_key: text}), option) == value

    def test_flag_beats_environment_beats_file_beats_default(self, option: Option, here: Path) -> None:
        case = CASES[option.name]
        first, second, _ = case.texts
        best, other = case.values[:2]
        variable = option.env_names[0]
        assert best != other
        assert of(load({**case.with_flags, option.name: first}, {variable: second}), option) == best
        assert of(load(case.with_flags, {variable: first}, {option.file_key: second}), option) == best
        assert of(load(case.with_flags, {}, {option.file_key: first}), option) == best

    def test_our_own_variable_beats_the_ones_of_virtual_kubelet(self, option: Option, here: Path) -> None:
        case = CASES[option.name]
        environ = dict.fromkeys(option.env_names, case.texts[1]) | {option.env_names[0]: case.texts[0]}
        assert of(load(case.with_flags, environ), option) == case.values[0]

    def test_an_empty_variable_counts_as_not_set(self, option: Option, here: Path) -> None:
        environ = dict.fromkeys(option.env_names, "")
        assert of(load({}, environ), option) == of(load(), option)

    def test_an_empty_key_in_the_file_counts_as_not_set(self, option: Option, here: Path) -> None:
        basics: dict[str, Raw] = {"kubeconfig": "a.kubeconfig", "provider": "memory"}
        for nothing in ("", "null", "~"):
            with_nothing = load(basics, {}, f"{option.file_key}: {nothing}\n")
            assert of(with_nothing, option) == of(load(basics, {}, ""), option)


# --- defaults


def test_what_is_not_given_has_the_documented_default(here: Path) -> None:
    settings = load()
    assert settings.address == "0.0.0.0"
    assert settings.port == 10250
    assert settings.node_name == socket.gethostname().strip().lower()
    assert settings.taints == (Taint("virtual-kubelet.io/provider", "memory", "NoSchedule"),)
    assert settings.node_labels == {}
    assert settings.cluster_dns == ()
    assert settings.cluster_domain == "cluster.local"
    assert settings.max_pods is None
    assert settings.tls_cert_file is None
    assert settings.authentication_token_webhook
    assert settings.authorization_mode == "Webhook"
    assert not settings.anonymous_auth
    assert (settings.node_lease_duration_s, settings.node_status_update_frequency_s) == (40, 300.0)
    assert (settings.event_qps, settings.event_burst) == (50, 100)
    assert (settings.log_level, settings.log_format) == ("info", "auto")
    assert settings.os == "Linux"


def test_the_settings_cannot_be_changed(here: Path) -> None:
    settings = load({"node_labels": ["a=1"]})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]  # that it is refused is what is tested
    with pytest.raises(TypeError):
        settings.node_labels["b"] = "2"  # type: ignore[index]  # likewise


def test_the_node_address_is_one_of_this_machine() -> None:
    with socket.socket(socket.AF_INET6 if ":" in route_ip({}) else socket.AF_INET) as listener:
        listener.bind((route_ip({}), 0))


def test_without_a_route_the_node_address_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = ((socket.AF_INET, "255.255.255.255"),)  # a broadcast, which a plain socket may not send
    monkeypatch.setattr(defaults, "_ELSEWHERE", nowhere)
    assert route_ip({}) == "127.0.0.1"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/u"}, "/home/u/.local/state/vkubelet"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "/state"}, "/state/vkubelet"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "relative"}, "/home/u/.local/state/vkubelet"),
    ],
    ids=["home", "xdg", "xdg-relative-is-ignored"],
)
def test_state_of_a_user_is_kept_below_the_home_directory(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host_root_dir(environ) == expected


def test_in_a_cluster_no_kubeconfig_is_needed(here: Path) -> None:
    in_cluster = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert load({}, in_cluster, {"kubeconfig": None}).kubeconfig is None


def test_kubeconfig_beats_the_service_account(here: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBECONFIG": "b.kubeconfig"}
    assert load({}, environ).kubeconfig == here / "b.kubeconfig"


def test_a_variable_that_kubernetes_sets_for_a_service_of_our_name_is_not_taken_for_the_port(
    here: Path,
) -> None:
    environ = {"VKUBELET_PORT": "tcp://10.96.3.4:10250", "KUBELET_PORT": "10260"}
    assert load({}, environ).port == 10260


def test_paths_in_the_file_are_relative_to_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    (here / "vkubelet.yaml").write_text("kubeconfig: a.kubeconfig\nprovider: memory\nrootDir: ../state\n")
    monkeypatch.chdir(here / "elsewhere")
    settings = load_settings({"config": "../vkubelet.yaml"}, {}, providers=PROVIDERS)
    assert settings.kubeconfig == here / "a.kubeconfig"
    assert settings.root_dir == here.parent / "state"


def test_yaml_types_do_not_change_what_was_written(here: Path) -> None:
    settings = load(
        {}, {}, "kubeconfig: a.kubeconfig\nprovider: memory\nclusterID: 0123\nnodeLabels: {on: no}\n"
    )
    assert settings.cluster_id == "0123"
    assert settings.node_labels == {"on": "no"}


def test_lists_and_mappings_of_the_file_are_understood(here: Path) -> None:
    settings = load(
        file={
            "clusterDNS": ["10.96.0.10", "10.96.0.11"],
            "nodeLabels": {"example.com/zone": "b", "empty": ""},
            "taints": [{"key": "spot", "effect": "NoSchedule"}, "dedicated=ml:NoExecute"],
        }
    )
    assert settings.cluster_dns == ("10.96.0.10", "10.96.0.11")
    assert settings.taints == (Taint("spot", "", "NoSchedule"), Taint("dedicated", "ml", "NoExecute"))
    assert settings.node_labels == {"example.com/zone": "b", "empty": ""}


# --- taints


def test_virtual_kubelets_variables_shape_the_default_taint(here: Path) -> None:
    environ = {"VKUBELET_TAINT_KEY": "virtual-node.liqo.io/not-allowed", "VKUBELET_TAINT_EFFECT": "NoExecute"}
    assert load({}, environ).taints == (Taint("virtual-node.liqo.io/not-allowed", "memory", "NoExecute"),)


def test_an_empty_taint_value_is_a_value(here: Path) -> None:
    taints = load({}, {"VKUBELET_TAINT_VALUE": ""}).taints
    assert taints == (Taint("virtual-kubelet.io/provider", "", "NoSchedule"),)


@pytest.mark.parametrize(
    ("flags", "environ", "file", "expected"),
    [
        ({"disable_taint": "true"}, {}, {}, ()),
        ({}, {"VKUBELET_DISABLE_TAINT": "1"}, {}, ()),
        ({}, {}, {"disableTaint": "true"}, ()),
        ({"disable_taint": "true"}, {}, {"taints": ["a:NoSchedule"]}, ()),
        ({"taints": ["a:NoSchedule"]}, {}, {"disableTaint": "true"}, (Taint("a", "", "NoSchedule"),)),
        (
            {"disable_taint": "false"},
            {},
            {},
            (Taint("virtual-kubelet.io/provider", "memory", "NoSchedule"),),
        ),
    ],
    ids=["flag", "env", "file", "flag-over-file", "given-taint-over-file", "not-disabled"],
)
def test_the_taint_can_be_disabled(
    here: Path,
    flags: dict[str, Raw],
    environ: dict[str, str],
    file: dict[str, object],
    expected: tuple[Taint, ...],
) -> None:
    assert load(flags, environ, file).taints == expected


def test_a_taint_given_and_disabled_in_one_source_is_a_contradiction(here: Path) -> None:
    assert problems({"taints": ["a:NoSchedule"], "disable_taint": "true"}) == [
        "--disable-taint: taints are given too; leave out one of the two"
    ]
