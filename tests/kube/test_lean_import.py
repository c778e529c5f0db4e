"""What an import of the client brings along, seen in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAMS = {
    "the generated client stays out": """
import vkubelet.kube.client, sys
assert not [m for m in sys.modules if m.startswith("kubernetes_asyncio")], sys.modules
""",
    "all of it is there for who imports it later": """
import vkubelet.kube.client
from kubernetes_asyncio import client, config
assert client.V1Pod and client.ApiClient and config.load_kube_config
""",
    "what is imported in full already is used": """
import kubernetes_asyncio.config.kube_config as theirs
import vkubelet.kube.lean_import as lean
assert lean.kube_config is theirs
""",
    "a part imported before is left as it was": """
import sys, types
mine = sys.modules["kubernetes_asyncio"] = types.ModuleType("kubernetes_asyncio")
import vkubelet.kube.lean_import
assert sys.modules["kubernetes_asyncio"] is mine
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_imports(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
