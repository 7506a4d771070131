"""The errors that calls of the client raise.

ApiError                 the service answered with an error, or not at all
├── Unauthorized         401: no valid key
├── Forbidden            403: the key lacks a scope
├── NotFound             404
├── InvalidRequest       400, 413, 415, 422: `field` names the wrong value
├── RateLimited          429: busy, or the key's rate or quota is reached; retry after `retry_after` seconds
├── Unavailable          502, 503, 504: not ready, the store is unreachable, or too slow
├── NoAnswer             no answer arrived; a write may have happened
└── BulkError            a bulk call stopped; `done` were stored before
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from seqrec.client.retry_after import seconds_of
from seqrec.errors import SeqrecError


class ApiError(SeqrecError):
    """Times are seconds. `kind` is the last part of the problem's `type`, such as "key-invalid"; branch on it."""

    status: int = 0
    kind: str = ""
    field: str | None = None
    advice: str = ""
    retry_after: float | None = None
    request_id: str | None = None


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class InvalidRequest(ApiError):
    pass


class RateLimited(ApiError):
    pass


class Unavailable(ApiError):
    pass


class NoAnswer(ApiError):
    pass


class BulkError(ApiError):
    """`done`: how many entries were stored before the batch that failed, which is `batch`: what was sent.

    The entries of `batch` may or may not be stored. It is safe to send them again: items are replaced, and events have
    the ids that this call gave them. `__cause__` is the error of the batch.
    """

    def __init__(self, cause: ApiError, done: int, batch: Sequence[dict[str, Any]]) -> None:
        super().__init__(f"after {done} entries: {cause}")
        self.done = done
        self.batch = list(batch)
        for name in ("status", "kind", "field", "advice", "retry_after", "request_id"):
            setattr(self, name, getattr(cause, name))


_CLASSES: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(response: httpx.Response) -> ApiError:
    """The error that a response stands for, also where a proxy made it."""
    problem: dict[str, Any] = {}
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem = response.json()
    message = f"HTTP {response.status_code}"
    if problem:
        message = f"{problem.get('detail', problem.get('title', message))} ({message})"
    error = _CLASSES.get(response.status_code, ApiError)(message)
    error.status = response.status_code
    error.kind = str(problem.get("type", "")).rpartition(":")[2]
    error.field = problem.get("field")
    error.advice = problem.get("advice", "")
    error.retry_after = seconds_of(response.headers.get("retry-after"))
    error.request_id = response.headers.get("x-request-id")
    return error
