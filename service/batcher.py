"""Batching: requests wait in a queue, one thread computes whatever is waiting as the next batch.

There is no timer: while a batch computes, the next one gathers. A batch is cut by a token budget. There are lanes
in order of urgency; the first goes first, but after `PATIENCE` batches of it in a row whoever waits behind gets one.
The queue of a lane is bounded in tokens; beyond, requests are refused at once. A request that is cancelled leaves the
queue. If a batch fails, each of its units is tried alone once, so that a poisoned one fails its own request only.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqrec.errors import NotReady, Overloaded

log = logging.getLogger(__name__)

PATIENCE = 4
"""Batches of a more urgent lane in a row while a less urgent one waits."""

Compute = Callable[[list[Any]], Sequence[Any]]
"""Units in, one result for each; called on the compute thread only."""


@dataclass(frozen=True)
class Lane:
    """One kind of work. A batch holds units of one lane: `batch_tokens` at most, unless a single unit has more."""

    name: str
    compute: Compute
    batch_tokens: int
    queue_tokens: int


@dataclass(frozen=True)
class BatchRecord:
    """What is told about each batch that was computed: for metrics and logs."""

    lane: str
    units: int
    tokens: int
    seconds: float
    failed: bool


@dataclass(eq=False)
class Ticket:
    """One request's place in the queue. Times are seconds; `batch_units` is the size of the last batch it was in."""

    future: asyncio.Future[list[Any]]
    loop: asyncio.AbstractEventLoop
    results: list[Any]
    missing: int
    submitted: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    batch_units: int = 0
    gone: bool = False  # answered, failed or cancelled: what it still has in the queue is skipped


@dataclass(frozen=True, eq=False)
class _Unit:
    ticket: Ticket
    position: int
    payload: Any
    tokens: int


class Batcher:
    """Owns the compute thread. `submit` belongs to event loops, `compute` functions run on the thread."""

    def __init__(self, lanes: Sequence[Lane], observe: Callable[[BatchRecord], object] = lambda record: None) -> None:
        """`lanes` in order of urgency. `observe` is called on the compute thread after each batch."""
        self._lanes = {lane.name: lane for lane in lanes}
        self._queues: dict[str, deque[_Unit]] = {lane.name: deque() for lane in lanes}
        self._waiting = dict.fromkeys(self._lanes, 0)
        self._observe = observe
        self._wake = threading.Condition()
        self._closing = False
        self._in_a_row = 0
        self._tokens_per_second = 5_000.0  # a first guess, for Retry-After; then measured
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the compute thread runs. Once it does not, nothing will ever be answered: restart the process."""
        return self._thread.is_alive()

    def waiting_tokens(self, lane: str) -> int:
        return self._waiting[lane]

    async def submit(self, lane: str, units: Sequence[Any], tokens: Sequence[int]) -> tuple[list[Any], Ticket]:
        """The result of each unit, in order. `tokens` is what each costs.

        Raises Overloaded at once if too much waits (a request is always taken where none waits), NotReady if the
        compute thread is gone, and what `compute` raised for a unit of this request. Cancelled, it leaves the queue.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), loop, [None] * len(units), len(units))
        if not units:
            return [], ticket
        cost = [max(1, count) for count in tokens]
        self._enqueue(self._lanes[lane], ticket, units, cost)
        try:
            return await ticket.future, ticket
        finally:
            self._leave(lane, ticket)

    def close(self, timeout: float = 10.0) -> None:
        """Compute what waits, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    def _enqueue(self, lane: Lane, ticket: Ticket, units: Sequence[Any], cost: Sequence[int]) -> None:
        total = sum(cost)
        with self._wake:
            if self.failure is not None or self._closing:
                raise NotReady("the compute thread has ended; restart the service") from self.failure
            waiting = self._waiting[lane.name]
            if waiting and waiting + total > lane.queue_tokens:
                raise Overloaded(
                    f"{waiting} tokens of work are waiting, at most {lane.queue_tokens} may",
                    retry_after=max(1, math.ceil(waiting / self._tokens_per_second)),
                )
            self._queues[lane.name].extend(
                _Unit(ticket, position, unit, tokens)
                for position, (unit, tokens) in enumerate(zip(units, cost, strict=True))
            )
            self._waiting[lane.name] = waiting + total
            self._wake.notify()

    def _leave(self, lane: str, ticket: Ticket) -> None:
        with self._wake:
            if ticket.missing and not self.failure:
                queue = self._queues[lane]
                stays = [unit for unit in queue if unit.ticket is not ticket]
                self._waiting[lane] -= sum(unit.tokens for unit in queue if unit.ticket is ticket)
                queue.clear()
                queue.extend(stays)
            ticket.gone = True

    def _run(self) -> None:
        batch: list[_Unit] = []
        try:
            while True:
                with self._wake:
                    while not any(self._queues.values()) and not self._closing:
                        self._wake.wait()
                    if not any(self._queues.values()):
                        return
                    lane, batch = self._take()
                self._compute(lane, batch)
                batch = []  # an idle thread holds on to nothing, least of all an old snapshot
        except BaseException as error:
            log.critical("the compute thread died: %r", error, exc_info=True)
            with self._wake:
                self.failure = error
                left = batch + [unit for queue in self._queues.values() for unit in queue]
                for name, queue in self._queues.items():
                    queue.clear()
                    self._waiting[name] = 0
            dead = NotReady("the compute thread has ended; restart the service")
            self._deliver([(unit.ticket, dead) for unit in left])

    def _take(self) -> tuple[Lane, list[_Unit]]:
        """The next batch: units from the front of one lane, up to its budget. The lock is held."""
        ready = [lane for lane in self._lanes.values() if self._queues[lane.name]]
        behind = len(ready) > 1
        lane = ready[1] if behind and self._in_a_row >= PATIENCE else ready[0]
        self._in_a_row = self._in_a_row + 1 if behind and lane is ready[0] else 0
        queue = self._queues[lane.name]
        batch = [queue.popleft()]
        tokens = batch[0].tokens
        while queue and tokens + queue[0].tokens <= lane.batch_tokens:
            tokens += queue[0].tokens
            batch.append(queue.popleft())
        self._waiting[lane.name] -= tokens
        return lane, batch

    def _compute(self, lane: Lane, batch: list[_Unit]) -> None:
        begin = time.perf_counter()
        failed = False
        try:
            results: list[Any] = list(lane.compute([unit.payload for unit in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{lane.name}: {len(results)} results for {len(batch)} units")
        except Exception as error:
            failed = True
            if len(batch) == 1:
                results = [error]
            else:
                log.warning("a batch of %d in lane %s failed, trying each alone: %r", len(batch), lane.name, error)
                results = [_alone(lane, unit) for unit in batch]
        seconds = time.perf_counter() - begin
        tokens = sum(unit.tokens for unit in batch)
        self._tokens_per_second += 0.2 * (tokens / max(seconds, 1e-6) - self._tokens_per_second)
        done: list[tuple[Ticket, Exception | None]] = []
        for unit, result in zip(batch, results, strict=True):
            ticket = unit.ticket
            ticket.waited = max(ticket.waited, begin - ticket.submitted)
            ticket.batch_units = len(batch)
            ticket.results[unit.position] = result
            ticket.missing -= 1
            if isinstance(result, Exception):
                done.append((ticket, result))
            elif not ticket.missing:
                done.append((ticket, None))
        self._deliver(done)
        self._observe(BatchRecord(lane.name, len(batch), tokens, seconds, failed))

    def _deliver(self, outcomes: Sequence[tuple[Ticket, Exception | None]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Exception | None]]] = {}
        for ticket, error in outcomes:
            by_loop.setdefault(ticket.loop, []).append((ticket, error))
        for loop, theirs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, theirs)
            except RuntimeError:  # the loop has closed: nobody waits any more
                log.debug("%d results came after their event loop had closed", len(theirs))


def _alone(lane: Lane, unit: _Unit) -> Any:
    if unit.ticket.gone:
        return None
    try:
        [result] = lane.compute([unit.payload])
    except Exception as error:
        return error
    return result


def _resolve(outcomes: Sequence[tuple[Ticket, Exception | None]]) -> None:
    """On the event loop: nothing else sets these futures but a cancellation."""
    for ticket, error in outcomes:
        if ticket.future.done():
            continue
        if error is None:
            ticket.future.set_result(ticket.results)
        else:
            ticket.future.set_exception(error)
