"""
Answers of the API server to errors of ours.

Pure: `rest` and `reflector` have the real answers.
"""

from __future__ import annotations

import orjson

from vkubelet.errors import (
    ApiError,
    ApiUnavailableError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidObjectError,
    NotFoundError,
    UnauthorizedError,
)
from vkubelet.model.pod import Json

__all__ = ["error_from_answer", "error_from_status"]

_KINDS: dict[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
}
_LONGEST_TEXT = 300


def error_from_answer(code: int, body: bytes, *, retry_after: str | None = None, what: str = "") -> ApiError:
    """
    The error for an HTTP answer that is no success.

    Args:
        code: the HTTP status.
        body: a `metav1.Status`, or whatever a proxy on the way wrote.
        retry_after: the header of that name; only seconds are understood, as the API server sends them.
        what: the request, such as "GET /api/v1/nodes", for messages that do not say it themselves.
    """
    seconds = float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None
    return error_from_status(_status_of(code, body, what), code=code, retry_after_s=seconds)


def error_from_status(
    status: Json, *, code: int | None = None, retry_after_s: float | None = None
) -> ApiError:
    """
    The error that a `metav1.Status` stands for, from an answer or from an ERROR event of a watch.

    `details.retryAfterSeconds` counts where no `retry_after_s` is given. A reason "Expired" is a 410 whatever
    the code.
    """
    code = code or _int(status.get("code"))
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or reason or f"the API server answered {code}")
    if reason == "Expired":
        return GoneError(message, code=code, reason=reason)
    if kind := _KINDS.get(code):
        return kind(message, code=code, reason=reason)
    if 400 <= code < 500 and code not in (408, 425, 429):
        return InvalidObjectError(message, code=code, reason=reason)
    seconds = retry_after_s if retry_after_s is not None else _details_seconds(status)
    return ApiUnavailableError(message, code=code, reason=reason, retry_after_s=seconds)


def _status_of(code: int, body: bytes, what: str) -> Json:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return status
    text = body[:_LONGEST_TEXT].decode("utf-8", "replace").strip()
    return {"message": f"{what or 'the request'} was answered with {code}" + (f": {text}" if text else "")}


def _details_seconds(status: Json) -> float | None:
    details = status.get("details")
    seconds = _int(details.get("retryAfterSeconds")) if isinstance(details, dict) else 0
    return float(seconds) if seconds > 0 else None


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
