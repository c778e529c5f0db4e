"""
The parts of the documentation that are tables of facts: ``python -m docs.generate`` writes them anew.

`configuration.md` is made from the table of options as a whole. In other pages a table stands between two
comments, ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; the text around it is written by hand.
`tests/test_docs.py` compares every page with what this module would write, so a page cannot fall behind.

Turned down: Sphinx extensions that do this while building. The pages shall be right where they are read
first, in the repository.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from vkubelet.model import features
from vkubelet.model.features import FieldTree, Rule
from vkubelet.model.pod import Json
from vkubelet.settings.flags import unknown_flags
from vkubelet.settings.option import Option
from vkubelet.settings.sources import ALL_OPTIONS

__all__ = ["DOCS", "LIMITS", "REFUSED", "main", "pages", "served_fields"]

DOCS = Path(__file__).parent

_FOREIGN_FLAGS = ("--no-verify-clients", "--namespace", "--enable-node-lease", "--metrics-addr")
"""Flags of virtual-kubelet's commands that are refused with a sentence of their own."""

_LIKE_CONTAINERS = re.compile(r"^(?:initContainers|ephemeralContainers)\.")
_INDEX = re.compile(r"\[[0-9]+\]")

_ON_HOST_NETWORK = "only with `hostNetwork: true`"

LIMITS: Mapping[str, tuple[str | bool, ...] | str] = {
    "hostUsers": (True,),
    "os.name": ("linux",),
    "securityContext.supplementalGroupsPolicy": ("Merge",),
    "securityContext.seccompProfile.type": ("RuntimeDefault", "Unconfined"),
    "volumes.emptyDir.medium": ("Memory",),
    "volumes.emptyDir.sizeLimit": "only with `medium: Memory`",
    "containers.ports.hostPort": _ON_HOST_NETWORK,
    "containers.ports.hostIP": _ON_HOST_NETWORK,
    "containers.volumeMounts.recursiveReadOnly": ("Disabled", "IfPossible"),
    "containers.volumeMounts.mountPropagation": ("None",),
    "containers.securityContext.procMount": ("Default",),
    "containers.securityContext.seccompProfile.type": ("RuntimeDefault", "Unconfined"),
}
"""The fields of which some values are served: which, or when. Other containers are as `containers`."""


REFUSED: tuple[tuple[str, Json], ...] = (
    ("probes", {"containers": [{"livenessProbe": {"exec": {"command": ["true"]}}}]}),
    ("probes", {"containers": [{"readinessProbe": {"tcpSocket": {"port": 80}}}]}),
    ("probes", {"containers": [{"startupProbe": {"httpGet": {"port": 80}}}]}),
    ("lifecycle hooks", {"containers": [{"lifecycle": {"postStart": {"sleep": {"seconds": 1}}}}]}),
    ("init containers that keep running", {"initContainers": [{"restartPolicy": "Always"}]}),
    ("ports mapped to the host", {"containers": [{"ports": [{"hostPort": 80}]}]}),
    ("parts of volumes", {"containers": [{"volumeMounts": [{"subPath": "a"}]}]}),
    ("parts of volumes", {"containers": [{"volumeMounts": [{"subPathExpr": "$(A)"}]}]}),
    ("directories of the machine", {"volumes": [{"hostPath": {"path": "/srv"}}]}),
    ("persistent volumes", {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}),
    ("generic ephemeral volumes", {"volumes": [{"ephemeral": {"volumeClaimTemplate": {"a": 1}}}]}),
    ("inline CSI volumes", {"volumes": [{"csi": {"driver": "a"}}]}),
    ("network file systems", {"volumes": [{"nfs": {"server": "a"}}]}),
    ("images as volumes", {"volumes": [{"image": {"reference": "a"}}]}),
    ("kernel parameters", {"securityContext": {"sysctls": [{"name": "a", "value": "1"}]}}),
    ("own seccomp profiles", {"securityContext": {"seccompProfile": {"localhostProfile": "a"}}}),
    ("AppArmor profiles", {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
    ("dynamic resources", {"resourceClaims": [{"name": "gpu"}]}),
    ("the full name as host name", {"setHostnameAsFQDN": True}),
    ("other container runtimes", {"runtimeClassName": "gvisor"}),
    ("limits of other resources", {"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]}),
)
"""Pods that people may want to run: what it is about, and a `spec` that has only that."""


def pages() -> dict[Path, str]:
    """What each page with generated parts should say, by its path."""
    by_hand = DOCS / "providers.md"
    return {
        DOCS / "configuration.md": _configuration(),
        by_hand: _filled_in(
            _filled_in(by_hand.read_text(), "served fields", _served_fields_table()),
            "refused fields",
            _refused_fields_list(),
        ),
    }


def main() -> int:
    """Write the pages that have changed and name them."""
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"written: {path.relative_to(DOCS.parent)}")
    return 0


# --- configuration.md -------------------------------------------------------------------------------------

_CONFIGURATION = """\
# Configuration

<!-- This page is made by `python -m docs.generate` from the options in vkubelet/settings. -->

`vkubelet run` takes its options from four places. The first that gives a value wins:

1. a flag, `--node-name worker-1`
2. an environment variable, `VKUBELET_NODE_NAME=worker-1`
3. the YAML file that `--config` names, `nodeName: worker-1`
4. the default

So a `KUBECONFIG` in your shell wins over `kubeconfig` in the file; the flag `--kubeconfig` wins over both.

Every value is checked before anything happens in the cluster. A wrong one ends vkubelet with exit code 2 and
one sentence for each mistake. The sentence names the option and the place the value came from.

- **Durations** are written as in Kubernetes: `90s`, `1m30s`, `5m`. A plain number is seconds.
- **Lists** are values between commas, a flag that is repeated, or a YAML list.
- **Switches** stand alone (`--disable-taint`) or with a value (`--disable-taint=false`).
- **Paths** in the file are relative to the file, other paths to the working directory.
- A variable that is set but empty counts as not set.

A small file:

```yaml
kubeconfig: /etc/vkubelet/kubeconfig
provider: docker
nodeName: worker-1
clientCAFile: /etc/vkubelet/client-ca.crt
clusterDNS: [10.96.0.10]
nodeLabels:
  team: storage
```

`vkubelet run --help` says the same as the tables below. Settings of a provider go into a file of their own,
`--provider-config`; see [providers](providers.md).
"""

_ENVIRONMENT_ONLY = """\

## Environment only

Parts of the default taint, as virtual-kubelet's users know them. `--taint` and `--disable-taint` win.

| variable | default | meaning |
|---|---|---|
"""

_FOREIGN = """\

## Coming from another virtual kubelet

Its flags and variables are understood where they mean the same; they are the further names in the tables.
These flags are refused, with the sentence that follows, because ignoring them would be worse:

| flag | what vkubelet says |
|---|---|
"""


def _configuration() -> str:
    groups: dict[str, list[Option]] = {}
    for option in ALL_OPTIONS:
        if not option.only_env:
            groups.setdefault(option.group, []).append(option)
    parts = [_CONFIGURATION]
    for group, members in groups.items():
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n")
        parts.append("| flag | in the file | environment | default | meaning |\n|---|---|---|---|---|\n")
        parts += [_option_row(option) for option in members]
    parts.append(_ENVIRONMENT_ONLY)
    parts += [_variable_row(option) for option in ALL_OPTIONS if option.only_env]
    parts.append(_FOREIGN)
    parts += [f"| `{flag}` | {unknown_flags([flag])[0].partition(': ')[2]} |\n" for flag in _FOREIGN_FLAGS]
    return "".join(parts)


def _option_row(option: Option) -> str:
    key = "" if option.name == "config" else f"`{option.file_key}`"
    cells = (_names(option.flags), key, _names(option.env_names), _default(option), option.help)
    return f"| {' | '.join(cells)} |\n"


def _variable_row(option: Option) -> str:
    return f"| {_names(option.env_names)} | {_default(option)} | {option.help} |\n"


def _names(names: tuple[str, ...]) -> str:
    return "<br>".join(f"`{name}`" for name in names)


def _default(option: Option) -> str:
    return option.default_help or f"`{option.default}`"


# --- served fields ----------------------------------------------------------------------------------------


def served_fields(tree: FieldTree, prefix: str = "") -> Iterator[tuple[str, Rule]]:
    """Each field of a tree by its path, without indexes, with the rule for its values."""
    for name, part in tree.items():
        path = f"{prefix}{name}"
        if callable(part):
            yield path, part
        elif not part:
            yield path, features.served  # an object of which no field is served: ``emptyDir: {}``
        else:
            yield from served_fields(part, f"{path}.")


def _served_fields_table() -> str:
    """A row for each object: its fields between commas, limits in brackets."""
    objects: dict[str, list[str]] = {}
    fields = dict(served_fields(features.KUBERUNTIME_FIELDS))
    for path, rule in fields.items():
        if fields.get(_LIKE_CONTAINERS.sub("containers.", path)) is rule and _LIKE_CONTAINERS.match(path):
            continue
        parent, _, name = path.rpartition(".")
        objects.setdefault(parent, []).append(f"`{name}`{_limit(path, rule)}")
    rows = (
        f"| `{'.'.join(filter(None, ('spec', p)))}` | {', '.join(n)} |" for p, n in sorted(objects.items())
    )
    return "\n".join(["| object | fields |", "|---|---|", *rows])


def _refused_fields_list() -> str:
    """A bullet for each subject: the paths that a refusal names."""
    subjects: dict[str, list[str]] = {}
    for subject, spec in REFUSED:
        for path in features.unsupported_fields({"spec": spec}, features.KUBERUNTIME_FIELDS):
            subjects.setdefault(subject, []).append(f"`{re.sub(_INDEX, '', path)}`")
    return "\n".join(f"- {subject}: {', '.join(paths)}" for subject, paths in subjects.items())


def _limit(path: str, rule: Rule) -> str:
    if rule is features.served:
        return ""
    limit = LIMITS.get(path)
    if limit is None:
        raise ValueError(f"some values of {path} are served: say in LIMITS of docs/generate.py which")
    words = limit if isinstance(limit, str) else "only " + ", ".join(f"`{_as_yaml(v)}`" for v in limit)
    return f" ({words})"


def _as_yaml(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


def _filled_in(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- generated: {name} -->\n", f"\n<!-- end of {name} -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the page has no place for {name}")
    return f"{before}{begin}{text}{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
