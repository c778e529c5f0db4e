"""What the harness raises."""

from __future__ import annotations

__all__ = ["HarnessError"]


class HarnessError(Exception):
    """Something that tests need is not to be had. The message is for a person and says what to do."""
