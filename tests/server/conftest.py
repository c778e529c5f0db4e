"""Authorities are made once, files for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.kubelet import Files
from tests.server.pki import Pair, make_authority


@pytest.fixture(scope="session")
def server_authority() -> Pair:
    return make_authority("server-ca")


@pytest.fixture(scope="session")
def client_authority() -> Pair:
    return make_authority("client-ca")


@pytest.fixture
def files(tmp_path: Path, server_authority: Pair, client_authority: Pair) -> Files:
    return Files(tmp_path, server_authority, client_authority)
