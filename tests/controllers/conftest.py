"""A node over a fake platform, running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs

from tests.controllers.pod_node import FakeNode


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Log lines with the tracebacks of injected errors would take most of the time."""
    with capture_logs():
        yield


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    """The pod controllers over the whole-pod provider of these tests."""
    node = FakeNode()
    await node.start()
    yield node
    await node.kill()
