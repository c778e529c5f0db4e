"""A node over a fake platform, running."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.controllers.pod_node import FakeNode


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    """The pod controllers over the whole-pod provider of these tests."""
    node = FakeNode()
    await node.start()
    yield node
    await node.kill()
