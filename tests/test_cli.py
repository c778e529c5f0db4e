"""The command line as a process sees it: arguments in, exit code and sentences on stderr out."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.settings.cases import kubeconfig
from vkubelet.cli import COMMANDS, main
from vkubelet.errors import ApiUnavailableError, ConfigurationError
from vkubelet.settings import Settings, Taint, installed_providers
from vkubelet.settings.flags import unknown_flags
from vkubelet.settings.options import OPTIONS
from vkubelet.settings.sources import ALL_OPTIONS

Run = Callable[[Settings], Awaitable[None]]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A directory to stand in, no variables of ours, and a third party's installed provider.

    The provider is a distribution with nothing but its entry point, as pip would have left it.
    """
    for option in ALL_OPTIONS:
        for variable in option.env_names:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    dist_info = tmp_path / "site" / "otherworld-1.0.dist-info"
    dist_info.mkdir(parents=True)
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherworld\nVersion: 1.0\n")
    (dist_info / "entry_points.txt").write_text(
        "[vkubelet.providers]\notherworld = otherworld.missing:create\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kubeconfig").write_text(kubeconfig())
    return tmp_path


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Puts an application in the place of vkubelet's own."""

    def install(run: Run) -> None:
        monkeypatch.setattr("vkubelet.app.run", run)

    return install


BASICS = ["run", "--kubeconfig=kubeconfig", "--provider=otherworld", "--root-dir=state", "--log-format=json"]


# --- exit codes -------------------------------------------------------------------------------------------


def test_a_normal_stop_is_exit_code_0(application: Callable[[Run], None]) -> None:
    seen: list[Settings] = []

    async def run(settings: Settings) -> None:
        seen.append(settings)

    application(run)
    assert main([*BASICS, "--node-name", "worker-1", "--taint=a=b:NoExecute", "--taint", "c:NoSchedule"]) == 0
    assert seen[0].node_name == "worker-1"
    assert seen[0].taints == (Taint("a", "b", "NoExecute"), Taint("c", "", "NoSchedule"))


def test_it_runs_on_uvloop_where_that_is_installed(application: Callable[[Run], None]) -> None:
    pytest.importorskip("uvloop")
    loops: list[str] = []

    async def run(settings: Settings) -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    application(run)
    main(BASICS)
    assert loops == ["uvloop"]


def failing(error: BaseException) -> Run:
    async def run(settings: Settings) -> None:
        raise error

    return run


API_DOWN = ApiUnavailableError("the API server does not answer")
BAD_HOST = ConfigurationError("--provider-config: host is not a URL")


@pytest.mark.parametrize(
    ("error", "code", "sentences", "traceback"),
    [
        (API_DOWN, 1, ["the API server does not answer"], False),
        (BAD_HOST, 2, ["--provider-config: host is not a URL"], False),
        (ExceptionGroup("tasks", [BAD_HOST]), 2, ["--provider-config: host is not a URL"], False),
        (ExceptionGroup("tasks", [API_DOWN, BAD_HOST]), 1, [str(API_DOWN), str(BAD_HOST)], False),
        (ZeroDivisionError("division by zero"), 1, ["division by zero"], True),
        (ZeroDivisionError(), 1, ["ZeroDivisionError()"], True),
        (ExceptionGroup("tasks", [ExceptionGroup("t", [KeyError("x")])]), 1, ["'x'"], True),
    ],
    ids=["foreseen", "settings", "settings-in-task", "both", "unforeseen", "without-words", "nested"],
)
def test_what_ends_a_run_decides_the_exit_code(
    application: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    sentences: list[str],
    traceback: bool,
) -> None:
    application(failing(error))
    assert main(BASICS) == code
    out, err = capsys.readouterr()
    assert err.splitlines() == [f"vkubelet: {sentence}" for sentence in sentences]
    (line,) = map(json.loads, out.splitlines())
    assert line["event"] == "vkubelet failed"
    assert ("exception" in line) is traceback


def test_an_early_interrupt_is_exit_code_130(application: Callable[[Run], None]) -> None:
    application(failing(KeyboardInterrupt()))
    assert main(BASICS) == 130


# --- wrong command lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "70000"], ["--port: 70000 is not a port; use a number from 1 to 65535"]),
        (["--port"], ["--port: expected one argument"]),
        (["--nodename"], ["--node-name: expected one argument"]),
        (["--prot", "1"], ["--prot: no such option; did you mean --port?"]),
        (
            ["--nodnam=x", "-q"],
            ["--nodnam: no such option; did you mean --nodename?", "-q: no such option; see"],
        ),
        (["worker-1"], ["worker-1: unexpected; options start with --"]),
        (["--disable-taint", "maybe"], ["--disable-taint: maybe is not a truth value; use true or false"]),
        (["--node-ip", ""], ["--node-ip: the value is empty; give one or leave the option out"]),
        (["--no-verify-clients"], ["--no-verify-clients: clients are always verified; use --client-ca-file"]),
        (["--namespace", "x"], ["--namespace: pods of every namespace are served"]),
        (["--metrics-addr=:10255"], ["--metrics-addr: everything is served on --port"]),
        (["--provider", "dokcer"], ["--provider: dokcer is not installed; use one of "]),
        (
            ["--port=a", "--os=b"],
            ["--os: b is unknown; use one of Linux, Windows", "--port: a is not a port"],
        ),
    ],
    ids=[
        "value",
        "no-value",
        "alias-without-value",
        "unknown",
        "two-unknown",
        "word",
        "switch",
        "empty",
        "verify",
        "namespace",
        "metrics",
        "provider",
        "two-values",
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]
) -> None:
    assert main([*BASICS, *arguments]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(expected)
    for sentence, beginning in zip(told, expected, strict=True):
        assert sentence.startswith(f"vkubelet: {beginning}")


def test_run_without_options_tells_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    provider, kubeconfig_line = capsys.readouterr().err.splitlines()
    assert provider.startswith("vkubelet: --provider: missing; say where the pods shall run: ")
    assert "otherworld" in provider
    assert kubeconfig_line.startswith("vkubelet: --kubeconfig: missing")


def test_no_command_prints_the_help_and_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "vkubelet COMMAND" in capsys.readouterr().err.replace("[-h] [--version] ", "")


def test_an_unknown_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2
    assert capsys.readouterr().err.startswith("vkubelet: COMMAND: invalid choice: 'rnu'")


@given(st.lists(st.text(max_size=8), max_size=5))
def test_every_unplaced_flag_is_told(words: list[str]) -> None:
    told = unknown_flags(words)
    for word in words:
        if word.startswith("-"):
            assert any(sentence.startswith(word.partition("=")[0] + ": no such option") for sentence in told)


# --- virtual-kubelet's spelling ---------------------------------------------------------------------------


def test_a_command_line_of_virtual_kubelet_is_understood(application: Callable[[Run], None]) -> None:
    seen: list[Settings] = []

    async def run(settings: Settings) -> None:
        seen.append(settings)

    application(run)
    arguments = (
        "--nodename vk-1 --os Windows --provider otherworld --disable-taint --log-level warn "
        "--cluster-domain corp.local --startup-timeout 1m30s --pod-sync-workers 10 --full-resync-period 5m "
        "--authentication-token-webhook=true --kubeconfig kubeconfig"
    )
    assert main(["run", *arguments.split()]) == 0
    (settings,) = seen
    assert settings.node_name == "vk-1"
    assert settings.os == "Windows"
    assert settings.taints == ()
    assert settings.log_level == "warning"
    assert settings.cluster_domain == "corp.local"
    assert settings.startup_timeout_s == 90.0
    assert settings.pod_sync_workers == 10
    assert settings.sync_frequency_s == 300.0


# --- help, version and what is installed ------------------------------------------------------------------


def test_help_names_every_option_with_its_variables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", "--help"])
    assert left.value.code == 0
    help_text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert f" {option.flag}" in help_text
        assert option.env_names[0] in help_text
        assert f"file: {option.file_key}]" in help_text
    assert "--no-verify-clients" not in help_text


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(command.name in out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as left:
        code = left.code
    assert code == 0
    assert capsys.readouterr().out.startswith("vkubelet ")


def test_a_third_partys_provider_is_found_without_being_imported() -> None:
    assert installed_providers()["otherworld"].value == "otherworld.missing:create"


def test_python_dash_m_is_the_same_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "vkubelet", "run", "--port=x"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert ended.returncode == 2
    assert "vkubelet: --port: x is not a port; use a number from 1 to 65535" in ended.stderr.splitlines()
