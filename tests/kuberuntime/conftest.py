from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kuberuntime.engine import Engine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """A node that runs."""
    engine = Engine(tmp_path)
    async with engine.running():
        yield engine
