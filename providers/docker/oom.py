"""
Which OOM scores this machine lets the engine set.

To lower a process's score below that of the engine takes CAP_SYS_RESOURCE, which engines in some virtual
machines and containers do not have. The runtime then fails with a message that says nothing about scores.
So the first sandbox finds it out: when it starts without its score and not with it, that was the reason.
"""

from __future__ import annotations

import structlog

__all__ = ["OomScores"]

log = structlog.get_logger(__name__)

_SYMPTOMS = ("can't get final child's PID from pipe", "oom_score_adj")


class OomScores:
    """What was learned so far."""

    def __init__(self) -> None:
        self._highest_refused: int | None = None
        self._lowest_accepted: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything was learned."""
        return self._highest_refused is not None or self._lowest_accepted is not None

    def allowed(self, wanted: int | None) -> int | None:
        """`wanted`, or None where that is refused."""
        refused = self._highest_refused
        return None if wanted is None or (refused is not None and wanted <= refused) else wanted

    def explains(self, message: str) -> bool:
        """Whether a failure to start may come from the score."""
        return any(symptom in message for symptom in _SYMPTOMS)

    def accept(self, score: int) -> None:
        """A container with this score runs."""
        self._lowest_accepted = score if self._lowest_accepted is None else min(score, self._lowest_accepted)

    def refuse(self, score: int) -> None:
        """One with this score does not. No negative one will."""
        if self._highest_refused is None:
            log.warning("the engine may not lower OOM scores here, containers run without them", score=score)
        self._highest_refused = max(score, self._highest_refused or -1, -1)
