"""When a call is sent again. Every call of the API may be: reads, upserts by id, deletes, events with an id."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import httpx

from seqrec.client.errors import NoAnswer
from seqrec.client.retry_after import seconds_of

_PROXY_ERRORS = (502, 503, 504)


@dataclass(frozen=True)
class RetryPolicy:
    """At most `attempts` of a call, and no wait that would end later than `seconds` after its beginning.

    The wait is the answer's Retry-After; without one it doubles from `first_wait` on, at random (full jitter).
    """

    attempts: int = 5
    seconds: float = 30.0
    first_wait: float = 0.1
    longest_wait: float = 5.0


class Retries:
    """The attempts of one call."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._end = time.monotonic() + policy.seconds
        self.attempt = 1

    def after_answer(self, response: httpx.Response) -> float | None:
        """Seconds to wait before the next attempt; None if this answer is final."""
        if response.status_code not in (429, *_PROXY_ERRORS):
            return None
        asked = seconds_of(response.headers.get("retry-after"))
        if asked is None and response.headers.get("content-type", "").startswith("application/problem+json"):
            return None  # the service itself: the same request would fail again
        return self._next(asked)

    def after_failure(self, error: httpx.TransportError) -> float:
        """The same where no answer came. Raises NoAnswer after the last attempt."""
        wait = self._next(None)
        if wait is None:
            raise NoAnswer(f"no answer after {self.attempt} attempts: {type(error).__name__}: {error}") from error
        return wait

    def _next(self, asked: float | None) -> float | None:
        policy = self._policy
        most = min(policy.longest_wait, policy.first_wait * 2 ** (self.attempt - 1))
        wait = random.uniform(0, most) if asked is None else asked
        if self.attempt >= policy.attempts or time.monotonic() + wait > self._end:
            return None
        self.attempt += 1
        return wait
