"""Where things are in a checkout. All that is built or written at run time is under `.cache/`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CACHE", "CONTROLPLANE_SOURCE", "EXAMPLES", "RBAC_MANIFEST", "REPOSITORY"]

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache"
CONTROLPLANE_SOURCE = REPOSITORY / "e2e" / "controlplane"
EXAMPLES = REPOSITORY / "deploy" / "examples"
RBAC_MANIFEST = REPOSITORY / "deploy" / "kubernetes" / "rbac.yaml"
