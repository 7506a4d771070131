"""How long a request may take, counted from its arrival."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from seqrec.errors import DeadlineExceeded


class Deadline:
    """Limits the work of one request, on the event loop and on threads.

    On the event loop it is an async context manager that raises DeadlineExceeded when the time is up. A loop on a
    thread calls `check`, which raises as soon as the time is up or the context has been left: no work is
    done for a client that has gone.
    """

    def __init__(self, seconds: float, arrived: float | None = None) -> None:
        """`arrived` by time.perf_counter; None: now."""
        self.seconds = seconds
        self._until = (time.perf_counter() if arrived is None else arrived) + seconds
        self._left = False
        self._timeout: asyncio.Timeout | None = None

    @property
    def remaining(self) -> float:
        """Seconds; negative once the time is up."""
        return self._until - time.perf_counter()

    def check(self) -> None:
        if self._left or self.remaining <= 0:
            raise self._exceeded()

    async def __aenter__(self) -> Deadline:
        if self.remaining <= 0:
            raise self._exceeded()
        self._timeout = asyncio.timeout(self.remaining)
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._timeout is not None
        self._left = True
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise self._exceeded() from None

    def _exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer within {self.seconds:g} s")
