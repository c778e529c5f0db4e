"""What the documentation says is so: its facts are compared with the code, its examples run."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import vkubelet
from docs import generate
from providers.docker.settings import parse_settings
from providers.memory import MemorySettings
from vkubelet import app
from vkubelet.model import features
from vkubelet.model.pod import Json
from vkubelet.server.authorization import node_subresources
from vkubelet.settings.flags import add_options
from vkubelet.settings.option import Option
from vkubelet.settings.sources import ALL_OPTIONS, from_file

REPOSITORY = Path(vkubelet.__file__).parents[1]
README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *DOCS.glob("**/*.md"),
        *REPOSITORY.glob("bench/*.md"),
        *REPOSITORY.glob("providers/*/README.md"),
    ]
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(page.read_text()) if found == language]


def prose(page: Path) -> str:
    return _BLOCK.sub("", page.read_text())


# --- tables of facts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", generate.pages(), ids=name_of)
def test_generated_parts_are_current(path: Path) -> None:
    assert path.read_text() == generate.pages()[path], "run: python -m docs.generate"


@pytest.mark.parametrize("option", ALL_OPTIONS, ids=lambda option: option.name)
def test_every_option_is_documented_under_all_its_names(option: Option) -> None:
    page = (DOCS / "configuration.md").read_text()
    for name in (*option.flags, *option.env_names):
        assert f"`{name}`" in page
    assert option.help in page


@pytest.mark.parametrize(("subject", "spec"), generate.REFUSED, ids=lambda each: str(each)[:60])
def test_what_is_said_to_be_refused_is(subject: str, spec: Json) -> None:
    assert features.unsupported_fields({"spec": spec}, features.KUBERUNTIME_FIELDS), (
        f"{subject} is served now: remove it from REFUSED in docs/generate.py, and from the README"
    )


@pytest.mark.parametrize("path", generate.LIMITS)
def test_limits_of_fields_are_those_of_the_code(path: str) -> None:
    assert path in dict(generate.served_fields(features.KUBERUNTIME_FIELDS))
    limit = generate.LIMITS[path]
    for value in limit if isinstance(limit, tuple) else ():
        assert not unsupported(path, value)
    assert unsupported(path, "something else")


def unsupported(path: str, value: object) -> tuple[str, ...]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return features.unsupported_fields({"spec": value}, features.KUBERUNTIME_FIELDS)


def test_subresources_in_the_security_page_are_those_that_are_asked_for() -> None:
    rows = re.findall(r"^\| (`/.*?) \| (`.*?) \|$", (DOCS / "security.md").read_text(), re.MULTILINE)
    assert rows
    for paths, subresources in rows:
        for path in re.findall(r"`(/\w+)`", paths):
            assert node_subresources(path) == tuple(re.findall(r"`(\w+)`", subresources))


def test_the_tour_names_files_that_exist() -> None:
    named = re.findall(r"[\w/]+\.py", vkubelet.__doc__ or "")
    assert len(named) >= 5
    for name in named:
        assert (REPOSITORY / "vkubelet" / name).exists(), name


def test_the_version_has_an_entry_in_the_changelog() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_troubleshooting_quotes_the_goodbye_of_a_node() -> None:
    assert app.SHUTDOWN_MESSAGE in (DOCS / "troubleshooting.md").read_text()


@pytest.mark.parametrize(
    ("words", "wired"),
    [
        ("`kubectl attach`", "attach=provider"),
        ("`kubectl port-forward`", "port_forward=provider"),
        ("`kubectl top`", "stats=provider"),
        ("Certificates requested", "vkubelet.kube.certificates"),
    ],
)
def test_the_readme_calls_nothing_missing_that_a_node_is_made_with(words: str, wired: str) -> None:
    missing = README.read_text().partition("## What is not there yet")[2].partition("\n## ")[0]
    assert not (words in missing and wired in inspect.getsource(app)), (
        f'strike {words} from "What is not there yet" in README.md'
    )


# --- commands and files -----------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in a page: lines after ``$``, all lines of ``sh`` blocks, and inline code."""
    text = "".join(re.findall(r"^\$ (.*\n)", "".join(blocks(page, "")), re.MULTILINE))
    text += re.sub(r"<<-? ?END.*?^END$", "", "".join(blocks(page, "sh")), flags=re.DOTALL | re.MULTILINE)
    inline = "\n".join(re.findall(r"`((?:make|kubectl|vkubelet (?:run|version)) ?[^`]*)`", prose(page)))
    for line in f"{text}\n{inline}".replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets, words
        if words[0].endswith("vkubelet") and len(words) > 1:
            check_vkubelet(words[1:])
        if "-m" in words and words[0].endswith("python"):
            assert importlib.util.find_spec(words[words.index("-m") + 1]), words


def check_vkubelet(words: list[str]) -> None:
    assert words[0] in ("run", "version"), words
    if words[0] == "run":
        parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
        add_options(parser)
        _, unplaced = parser.parse_known_args([word.strip("[]") for word in words[1:] if word != "&"])
        assert unplaced in ([], ["--help"]), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_commands_take_exist(page: Path) -> None:
    for words in commands(page):
        for option in ("-f", "--filename"):
            if option in words and "/" in (file := words[words.index(option) + 1]):
                assert (REPOSITORY / file).exists(), file


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(README))}
    assert {page for page in DOCS.glob("*.md") if page not in linked} == set()


# --- snippets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["configuration.md", "install.md"])
def test_settings_files_in_the_pages_are_understood(page: str, tmp_path: Path) -> None:
    found = [text for text in blocks(DOCS / page, "yaml") if "nodeName:" in text]
    assert found
    for text in found:
        (tmp_path / "vkubelet.yaml").write_text(text)
        given, problems = from_file(tmp_path / "vkubelet.yaml")
        assert given
        assert not problems


def test_provider_settings_in_the_page_are_understood() -> None:
    docker, memory = (
        yaml.safe_load(text)
        for text in blocks(DOCS / "providers.md", "yaml")
        if text.startswith("# --provider-config")
    )
    assert parse_settings(docker, {}).system_reserved_memory_mib == 500
    assert MemorySettings.from_config(memory) == MemorySettings()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_and_toml_are_well_formed(page: Path) -> None:
    for text in blocks(page, "yaml"):
        list(yaml.safe_load_all(text))
    for text in blocks(page, "toml"):
        tomllib.loads(text)


def test_code_in_the_guide_is_that_of_the_sources() -> None:
    method, function = blocks(DOCS / "write-a-provider.md", "python")
    assert textwrap.indent(method, "    ") in (DOCS / "examples" / "processes.py").read_text()
    source = (REPOSITORY / "providers" / "memory" / "__init__.py").read_text()
    for line in function.splitlines():
        assert line in source


@pytest.mark.parametrize("path", sorted(DOCS.glob("examples/*.yaml")), ids=name_of)
def test_example_pods_name_how_they_get_to_the_node(path: Path) -> None:
    spec = yaml.safe_load(path.read_text())["spec"]
    assert spec["nodeSelector"]
    assert spec["tolerations"] == [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]
    assert not features.unsupported_fields({"spec": spec}, features.KUBERUNTIME_FIELDS)
