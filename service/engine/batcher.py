"""Batching: requests wait in a queue, a thread that has nothing to do computes whatever is waiting as the next batch.

There is no timer: while batches compute, the next ones gather. A batch is cut by a token budget. On a CPU each core
computes batches of its own, none waits for another to end; what is there alone, when nothing else is being computed,
has all cores, and what comes meanwhile waits for it. There are lanes in order of urgency; the first goes first, but
after `PATIENCE` batches of it in a row whoever waits behind gets one.
The queue of a lane is bounded in tokens; beyond, requests are refused at once. A request that is cancelled leaves the
queue; one that would wait longer than it has time for, by the pace of the last batches, is refused at once as well.
If a batch fails, each of its units is tried alone once, so that a poisoned one fails its own request only; if it does
not fit into memory, its halves are, and batches of that lane are smaller from then on.
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

import torch

from seqrec.errors import NotReady, Overloaded
from seqrec.runtime.thread_pool import start_single_core_threads

log = logging.getLogger(__name__)

PATIENCE = 4
"""Batches of a more urgent lane in a row while a less urgent one waits."""

_ENDED = "a compute thread has ended; restart the service"
_LIGHT_TOKENS = 4
"""Tokens a unit, up to which nothing of it is encoded."""

Compute = Callable[[list[Any]], Sequence[Any]]
"""Units in, one result for each; called on the compute threads, several at once."""


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


class Pace:
    """How fast a core computes batches: so many seconds for any batch, and so many for each token."""

    def __init__(self) -> None:
        self._seconds_per_batch = 0.0
        self._tokens_per_second = 5_000.0  # a first guess; then measured
        self._guessed = True

    def observe(self, units: int, tokens: int, seconds: float, cores: int = 1) -> None:
        """A batch that so many cores computed together."""
        # They need longer together than each by itself: that says little, but more than a guess.
        if cores > 1 and not self._guessed:
            return
        self._guessed = self._guessed and cores > 1
        seconds *= cores
        # Where nothing is encoded (vectors were in the cache) a batch tells of the search, and nothing of the tokens.
        if tokens <= _LIGHT_TOKENS * units:
            self._seconds_per_batch += 0.2 * (seconds - self._seconds_per_batch)
        else:
            rate = tokens / max(seconds - self._seconds_per_batch, 0.2 * seconds, 1e-6)
            self._tokens_per_second += 0.2 * (rate - self._tokens_per_second)

    def seconds(self, tokens: int, batch_tokens: int, cores: int = 1) -> float:
        """That so many tokens take, in batches of at most `batch_tokens`, side by side on so many cores."""
        rounds = math.ceil(tokens / batch_tokens / cores)
        return rounds * self._seconds_per_batch + tokens / self._tokens_per_second / cores


class Batcher:
    """Owns the compute threads. `submit` belongs to event loops, `compute` functions run on the threads."""

    def __init__(
        self, lanes: Sequence[Lane], observe: Callable[[BatchRecord], object] = lambda record: None, cores: int = 1
    ) -> None:
        """`lanes` in order of urgency. `observe` is called on a compute thread after each batch, by one at a time.

        With several `cores` there is a thread for each, on which torch computes with that one, and one more, on which
        it computes with as many threads as here.
        """
        self._lanes = {lane.name: lane for lane in lanes}
        self._queues: dict[str, deque[_Unit]] = {lane.name: deque() for lane in lanes}
        self._waiting = dict.fromkeys(self._lanes, 0)
        self._observe = observe
        self._wake = threading.Condition()
        self._closing = False
        self._in_a_row = 0
        self._pace = Pace()
        self._budget = {lane.name: lane.batch_tokens for lane in lanes}
        self._cores = cores
        self._computing = 0  # batches
        self._on_all_cores = False  # the one that is computed
        self.failure: BaseException | None = None
        self._observing = threading.Lock()
        self._threads: list[threading.Thread] = []
        if cores > 1:
            start_single_core_threads(cores, lambda begin: self._start(False, begin))
        self._start(True)

    def _start(self, all_cores: bool, begin: Callable[[], object] = torch.get_num_threads) -> None:
        name = "compute" if all_cores else f"compute-{len(self._threads) + 1}"
        self._threads.append(threading.Thread(target=self._run, args=(all_cores, begin), name=name, daemon=True))
        self._threads[-1].start()

    @property
    def alive(self) -> bool:
        """Whether the compute threads run. Once one does not, nothing will ever be answered: restart the process."""
        return all(thread.is_alive() for thread in self._threads)

    def waiting_tokens(self, lane: str) -> int:
        return self._waiting[lane]

    async def submit(
        self, lane: str, units: Sequence[Any], tokens: Sequence[int], deadline: float = math.inf
    ) -> tuple[list[Any], Ticket]:
        """The result of each unit, in order. `tokens` is what each costs, `deadline` how many seconds it may wait.

        Raises Overloaded at once if too much waits (a request is always taken where none waits), NotReady if the
        compute threads are gone, and what `compute` raised for a unit of this request. Cancelled, it leaves the queue.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), loop, [None] * len(units), len(units))
        if not units:
            return [], ticket
        cost = [max(1, count) for count in tokens]
        self._enqueue(self._lanes[lane], ticket, units, cost, deadline)
        try:
            return await ticket.future, ticket
        finally:
            self._leave(lane, ticket)

    def close(self, timeout: float = 10.0) -> None:
        """Compute what waits, then end the threads."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _enqueue(self, lane: Lane, ticket: Ticket, units: Sequence[Any], cost: Sequence[int], deadline: float) -> None:
        total = sum(cost)
        with self._wake:
            if self.failure is not None or self._closing:
                raise NotReady(_ENDED) from self.failure
            waiting = self._waiting[lane.name]
            wait = self._pace.seconds(waiting, self._budget[lane.name], self._cores)
            if waiting and waiting + total > lane.queue_tokens:
                raise Overloaded(
                    f"{waiting} tokens of work are waiting, at most {lane.queue_tokens} may",
                    retry_after=max(1, math.ceil(wait)),
                )
            if waiting and wait > deadline:
                raise Overloaded(
                    f"{waiting} tokens of work are waiting, which take about {wait:.1f} s; it may wait {deadline:g} s",
                    retry_after=max(1, math.ceil(wait - deadline)),
                )
            self._queues[lane.name].extend(
                _Unit(ticket, position, unit, tokens)
                for position, (unit, tokens) in enumerate(zip(units, cost, strict=True))
            )
            self._waiting[lane.name] = waiting + total
            self._wake.notify_all()  # which thread it is for, they know

    def _leave(self, lane: str, ticket: Ticket) -> None:
        with self._wake:
            if ticket.missing and not self.failure:
                queue = self._queues[lane]
                stays = [unit for unit in queue if unit.ticket is not ticket]
                self._waiting[lane] -= sum(unit.tokens for unit in queue if unit.ticket is ticket)
                queue.clear()
                queue.extend(stays)
                self._wake.notify_all()  # what is left may be for another thread now
            ticket.gone = True

    def _run(self, all_cores: bool, begin: Callable[[], object]) -> None:
        begin()
        batch: list[_Unit] = []
        try:
            while True:
                with self._wake:
                    while not (may := self._may_take(all_cores)) and not self._ending():
                        self._wake.wait()
                    if not may:
                        return
                    lane, batch = self._take()
                    self._computing += 1
                    self._on_all_cores = all_cores
                self._compute(lane, batch, all_cores)
                batch = []  # an idle thread holds on to nothing, least of all an old snapshot
                with self._wake:
                    self._computing -= 1
                    self._on_all_cores = False
                    self._wake.notify_all()
        except BaseException as error:
            log.critical("a compute thread died: %r", error, exc_info=True)
            with self._wake:
                self.failure = error
                left = batch + [unit for queue in self._queues.values() for unit in queue]
                for name, queue in self._queues.items():
                    queue.clear()
                    self._waiting[name] = 0
                self._wake.notify_all()
            self._deliver([(unit.ticket, NotReady(_ENDED)) for unit in left])

    def _ending(self) -> bool:
        """Whether there is nothing more to do for any thread. The lock is held."""
        return self.failure is not None or (self._closing and not any(self._queues.values()))

    def _may_take(self, all_cores: bool) -> bool:
        """Whether the next batch is for a thread with all cores, or for one with one core. The lock is held."""
        waiting = sum(len(queue) for queue in self._queues.values())
        if not waiting or self.failure is not None or self._on_all_cores:
            return False
        if self._cores == 1:
            return True
        alone = waiting == 1 and not self._computing
        return alone if all_cores else not alone

    def _take(self) -> tuple[Lane, list[_Unit]]:
        """The next batch: units from the front of one lane, up to its budget. The lock is held.

        No more than a fair share of what waits, if other cores have nothing to do.
        """
        ready = [lane for lane in self._lanes.values() if self._queues[lane.name]]
        behind = len(ready) > 1
        lane = ready[1] if behind and self._in_a_row >= PATIENCE else ready[0]
        self._in_a_row = self._in_a_row + 1 if behind and lane is ready[0] else 0
        queue = self._queues[lane.name]
        share = math.ceil(self._waiting[lane.name] / (self._cores - self._computing))
        budget = min(self._budget[lane.name], share)
        batch = [queue.popleft()]
        tokens = batch[0].tokens
        while queue and tokens + queue[0].tokens <= budget:
            tokens += queue[0].tokens
            batch.append(queue.popleft())
        self._waiting[lane.name] -= tokens
        return lane, batch

    def _compute(self, lane: Lane, batch: list[_Unit], all_cores: bool) -> None:
        begin = time.perf_counter()
        failed = False
        try:
            results = self._results(lane, batch)
        except Exception as error:
            failed = True
            if len(batch) == 1:
                results = [error]
            else:
                log.warning("a batch of %d in lane %s failed, trying each alone: %r", len(batch), lane.name, error)
                results = [_alone(lane, unit) for unit in batch]
        seconds = time.perf_counter() - begin
        tokens = sum(unit.tokens for unit in batch)
        done: list[tuple[Ticket, Exception | None]] = []
        with self._wake:  # other threads may have other units of the same tickets
            self._pace.observe(len(batch), tokens, seconds, self._cores if all_cores else 1)
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
        with self._observing:
            self._observe(BatchRecord(lane.name, len(batch), tokens, seconds, failed))

    def _results(self, lane: Lane, batch: list[_Unit]) -> list[Any]:
        """Of all units; of each half where they do not fit into memory together."""
        try:
            results = list(lane.compute([unit.payload for unit in batch]))
        except Exception as error:
            if len(batch) == 1 or not _out_of_memory(error):
                raise
        else:
            if len(results) != len(batch):
                raise RuntimeError(f"{lane.name}: {len(results)} results for {len(batch)} units")
            return results
        # Outside of the handler, which holds on to what the failed attempt had in memory.
        half, tokens = len(batch) // 2, sum(unit.tokens for unit in batch)
        results = self._results(lane, batch[:half]) + self._results(lane, batch[half:])
        # Now that they did fit: where one unit alone does not, smaller batches are no help.
        with self._wake:
            self._budget[lane.name] = max(1, min(self._budget[lane.name], tokens // 2))
        log.warning("%d tokens in lane %s do not fit into memory: batches are smaller from now on", tokens, lane.name)
        return results

    def _deliver(self, outcomes: Sequence[tuple[Ticket, Exception | None]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Exception | None]]] = {}
        for ticket, error in outcomes:
            by_loop.setdefault(ticket.loop, []).append((ticket, error))
        for loop, theirs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, theirs)
            except RuntimeError:  # the loop has closed: nobody waits any more
                log.debug("%d results came after their event loop had closed", len(theirs))


def _out_of_memory(error: Exception) -> bool:
    # torch's error on a GPU has a class, on a CPU only a text.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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
        # What failed on one thread may come here after what was the last to be done on another.
        error = error or next((result for result in ticket.results if isinstance(result, Exception)), None)
        if error is None:
            ticket.future.set_result(ticket.results)
        else:
            ticket.future.set_exception(error)
