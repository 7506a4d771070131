"""Continuous batching: an idle compute thread takes whatever is waiting as the next batch.

There is no timer: requests gather while batches compute. A batch is limited by a token budget. On a CPU each core
computes batches independently; a single unit that finds everything idle gets all cores, and what arrives meanwhile
waits for it. Lanes are ordered by urgency: the first lane goes first, but after `MAX_URGENT_BATCHES` batches in a row a
lane behind it gets one. Within a lane clients take turns, and each one's requests do, unit by unit, so that neither a
large request nor a busy client delays the others. A batch that has begun is not interrupted: so that others need not
wait for its end, a client leaves one core to them if any of them asked within `RESERVED_SECONDS`.

The queue of a lane is limited in tokens, and what a client may have in it by what is free; beyond, requests are refused
immediately. So is one that would wait longer than its deadline, estimated from the pace of recent batches. A cancelled
request leaves the queue. If a batch fails, each of its units is retried alone once, so that a bad unit fails its own
request only. If it does not fit into memory, its halves are computed, and later batches of that lane are smaller.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seqrec.errors import NotReady, Overloaded
from seqrec.runtime.thread_pool import start_single_core_threads
from service.engine.turns import Ticket, Turns, Unit

log = logging.getLogger(__name__)

MAX_URGENT_BATCHES = 4
"""Batches of a more urgent lane in a row while a less urgent one waits."""
MULTI_UNIT_SHARE = 0.75
"""Share of a queue that requests of several units may fill; the rest is for those of one."""

CLIENT_SHARE = 3
"""A client may have as much waiting as this many times what is free, so one alone fills three quarters of a queue."""

RESERVED_SECONDS = 1.0
"""How long after a client's last request the others leave a core free for its next one."""

_ENDED = "a compute thread has ended; restart the service"
_LIGHT_TOKENS = 4
"""A unit of at most so many tokens encodes nothing."""

Compute = Callable[[list[Any]], Sequence[Any]]
"""Units in, one result each; called on the compute threads, concurrently."""


@dataclass(frozen=True)
class Lane:
    """One kind of work. A batch has units of one lane: at most `batch_tokens`, unless a single unit has more."""

    name: str
    compute: Compute
    batch_tokens: int
    queue_tokens: int


@dataclass(frozen=True)
class BatchRecord:
    """A computed batch, for metrics and logs."""

    lane: str
    units: int
    tokens: int
    seconds: float
    failed: bool


class Pace:
    """How fast a core computes: seconds for each batch plus seconds for each token."""

    def __init__(self) -> None:
        self._seconds_per_batch = 0.0
        self.tokens_per_second = 5_000.0  # a first guess; then measured
        self._guessed = True

    def observe(self, units: int, tokens: int, seconds: float, cores: int = 1) -> None:
        """Learn from a batch that `cores` computed together."""
        # Together they are less efficient than separately: better than a guess, worse than a measurement.
        if cores > 1 and not self._guessed:
            return
        self._guessed = self._guessed and cores > 1
        seconds *= cores
        # Where nothing is encoded (vectors were cached) the time is that of the search, not of tokens.
        if tokens <= _LIGHT_TOKENS * units:
            self._seconds_per_batch += 0.2 * (seconds - self._seconds_per_batch)
        else:
            rate = tokens / max(seconds - self._seconds_per_batch, 0.2 * seconds, 1e-6)
            self.tokens_per_second += 0.2 * (rate - self.tokens_per_second)

    def seconds(self, tokens: int, batch_tokens: int, cores: int = 1) -> float:
        """The time for `tokens` in batches of at most `batch_tokens`, computed in parallel on `cores`."""
        rounds = math.ceil(tokens / batch_tokens / cores)
        return rounds * self._seconds_per_batch + tokens / self.tokens_per_second / cores


class _Askers:
    """Who asked last, and when anybody else did: enough to know whether a client is the only one."""

    def __init__(self) -> None:
        self._last, self._last_at = "", -math.inf
        self._other_at = -math.inf

    def note(self, client: str, now: float) -> None:
        if client != self._last:
            self._last, self._other_at = client, self._last_at
        self._last_at = now

    def others_since(self, client: str, then: float) -> bool:
        """Whether another client than this one has asked since `then`."""
        return (self._other_at if client == self._last else self._last_at) >= then


class Batcher:
    """Owns the compute threads. `submit` is called on event loops, `compute` functions run on the threads."""

    def __init__(
        self, lanes: Sequence[Lane], observe: Callable[[BatchRecord], object] = lambda record: None, cores: int = 1
    ) -> None:
        """`lanes` in order of urgency. `observe` is called on a compute thread after each batch, one call at a time.

        With several `cores` there is a thread for each, on which torch computes single-threaded, and one more on which
        torch computes with as many threads as in the calling thread.
        """
        self._lanes = {lane.name: lane for lane in lanes}
        self._queues = {lane.name: Turns() for lane in lanes}
        self._observe = observe
        self._wake = threading.Condition()
        self._closing = False
        self._in_a_row = 0
        self.pace = Pace()
        """Learns from each batch; the waits of deadlines are estimated by it."""
        self._budget = {lane.name: lane.batch_tokens for lane in lanes}
        self._cores = cores
        self.computing = 0
        """How many batches are computed now."""
        self._computing_of: Counter[str] = Counter()  # those of each client
        self._askers = _Askers()
        self._on_all_cores = False  # whether one of them is
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
        """Whether all compute threads run. If not, requests may never be answered: restart the process."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def busy(self) -> bool:
        """Whether a batch is computed or anything waits."""
        return self.computing > 0 or any(queue.tokens for queue in self._queues.values())

    def waiting_tokens(self, lane: str) -> int:
        return self._queues[lane].tokens

    def others_ask(self, client: str) -> bool:
        """Whether another client than this one submitted anything within `RESERVED_SECONDS`."""
        with self._wake:
            return self._askers.others_since(client, time.monotonic() - RESERVED_SECONDS)

    async def submit(
        self,
        lane: str,
        units: Sequence[Any],
        tokens: Sequence[int],
        deadline: float = math.inf,
        client: str = "",
    ) -> tuple[list[Any], Ticket]:
        """The result of each unit, in order. `tokens` is the cost of each, `deadline` how many seconds it may wait.

        `client`: whose request it is; "" where that is not known, then only the limit of the whole queue applies.

        Raises Overloaded immediately if too much is waiting (into an empty queue a request is always accepted),
        NotReady if a compute thread has died, and what `compute` raised for a unit of this request. A cancelled request
        leaves the queue.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), loop, [None] * len(units), len(units), client)
        if not units:
            return [], ticket
        cost = [max(1, count) for count in tokens]
        self._enqueue(self._lanes[lane], ticket, units, cost, deadline)
        try:
            return await ticket.future, ticket
        finally:
            self._leave(lane, ticket)

    def close(self, timeout: float = 10.0) -> None:
        """Compute what is waiting, then end the threads."""
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
            queue = self._queues[lane.name]
            own = queue.tokens_of(ticket.client)
            waiting = queue.tokens_for(ticket.client, int(CLIENT_SHARE / (CLIENT_SHARE + 1) * lane.queue_tokens))
            most = lane.queue_tokens if len(units) == 1 else int(MULTI_UNIT_SHARE * lane.queue_tokens)
            before = queue.tokens_before(ticket.client, len(units))
            if ticket.client:
                self._askers.note(ticket.client, time.monotonic())
            wait = self.pace.seconds(before, self._budget[lane.name], self._cores_for(ticket.client))
            if waiting and waiting + total > most:
                raise Overloaded(
                    f"{waiting} tokens of work are waiting, at most {most} may wait",
                    retry_after=max(1, math.ceil(wait)),
                )
            if ticket.client and own and own + total > CLIENT_SHARE * (lane.queue_tokens - waiting):
                raise Overloaded(
                    f"{own} tokens of this client's work are waiting, and the rest of the queue is for others",
                    retry_after=max(1, math.ceil(wait)),
                )
            if waiting and wait > deadline:
                raise Overloaded(
                    f"{before} tokens of work come first, which take about {wait:.1f} s; it may wait {deadline:.2g} s",
                    retry_after=max(1, math.ceil(wait - deadline)),
                )
            queue.add(
                ticket,
                (
                    Unit(ticket, position, unit, tokens)
                    for position, (unit, tokens) in enumerate(zip(units, cost, strict=True))
                ),
            )
            self._wake.notify_all()

    def _leave(self, lane: str, ticket: Ticket) -> None:
        with self._wake:
            if ticket.missing and not self.failure:
                self._queues[lane].remove(ticket)
                self._wake.notify_all()  # which thread may take the next batch may have changed
            ticket.gone = True

    def _run(self, all_cores: bool, begin: Callable[[], object]) -> None:
        begin()
        batch: list[Unit] = []
        try:
            while True:
                with self._wake:
                    while not (may := self._may_take(all_cores)) and not self._ending():
                        self._wake.wait()
                    if not may:
                        return
                    lane, batch = self._take()
                    clients = {unit.ticket.client for unit in batch}
                    self.computing += 1
                    self._computing_of.update(clients)
                    self._on_all_cores = all_cores
                self._compute(lane, batch, all_cores)
                batch = []  # an idle thread must not keep an old snapshot alive
                with self._wake:
                    self.computing -= 1
                    self._computing_of -= Counter(clients)
                    self._on_all_cores = False
                    if self._closing or any(self._queues.values()):  # else they would wake up for nothing
                        self._wake.notify_all()
        except BaseException as error:
            log.critical("a compute thread died: %r", error, exc_info=True)
            with self._wake:
                self.failure = error
                left = batch + [unit for queue in self._queues.values() for unit in queue.clear()]
                self._wake.notify_all()
            self._deliver([(unit.ticket, NotReady(_ENDED)) for unit in left])

    def _ending(self) -> bool:
        """Whether no thread has anything left to do. Call it with the lock."""
        return self.failure is not None or (self._closing and not any(self._queues.values()))

    def _may_take(self, all_cores: bool) -> bool:
        """Whether this kind of thread may take the next batch. Call it with the lock."""
        if not any(self._queues.values()) or self.failure is not None or self._on_all_cores:
            return False
        if self._cores == 1:
            return True
        resting = self._resting()
        if not any(queue.first(resting) for queue in self._queues.values()):
            return False
        alone = sum(map(len, self._queues.values())) == 1 and not self.computing
        return alone if all_cores else not alone

    def _cores_for(self, client: str) -> int:
        """How many cores may compute for a client: all but one where another client asked lately."""
        others = client and self.others_ask(client)
        return max(1, self._cores - 1) if others else self._cores

    def _resting(self) -> set[str]:
        """The clients that compute on as many cores as they may. Call it with the lock."""
        return {client for client, count in self._computing_of.items() if count >= self._cores_for(client)}

    def _take(self) -> tuple[Lane, list[Unit]]:
        """The next batch: units of one lane in turn, up to its budget. Call it with the lock.

        If other cores are idle, it is only this core's share of what is waiting.
        """
        resting = self._resting()
        ready = [lane for lane in self._lanes.values() if self._queues[lane.name].first(resting)]
        behind = len(ready) > 1
        lane = ready[1] if behind and self._in_a_row >= MAX_URGENT_BATCHES else ready[0]
        self._in_a_row = self._in_a_row + 1 if behind and lane is ready[0] else 0
        queue = self._queues[lane.name]
        share = math.ceil(queue.tokens / (self._cores - self.computing))
        budget = min(self._budget[lane.name], share)
        batch: list[Unit] = []
        tokens = 0
        while (unit := queue.first(resting)) and not (batch and tokens + unit.tokens > budget):
            batch.append(queue.take(resting))
            tokens += unit.tokens
        return lane, batch

    def _compute(self, lane: Lane, batch: list[Unit], all_cores: bool) -> None:
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
        with self._wake:  # other threads may compute other units of the same tickets
            self.pace.observe(len(batch), tokens, seconds, self._cores if all_cores else 1)
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

    def _results(self, lane: Lane, batch: list[Unit]) -> list[Any]:
        """The results of all units; computed in halves where they do not fit into memory together."""
        try:
            results = list(lane.compute([unit.payload for unit in batch]))
        except Exception as error:
            if len(batch) == 1 or not _out_of_memory(error):
                raise
        else:
            if len(results) != len(batch):
                raise RuntimeError(f"{lane.name}: {len(results)} results for {len(batch)} units")
            return results
        # Outside of the handler, which keeps the memory of the failed attempt alive.
        half, tokens = len(batch) // 2, sum(unit.tokens for unit in batch)
        results = self._results(lane, batch[:half]) + self._results(lane, batch[half:])
        # Only now that the halves did fit: where a single unit does not, smaller batches do not help.
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
            except RuntimeError:  # the loop has closed: nobody is waiting
                log.debug("%d results arrived after their event loop had closed", len(theirs))


def _out_of_memory(error: Exception) -> bool:
    # torch has an error class for a GPU; for a CPU only the message differs.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _alone(lane: Lane, unit: Unit) -> Any:
    if unit.ticket.gone:
        return None
    try:
        [result] = lane.compute([unit.payload])
    except Exception as error:
        return error
    return result


def _resolve(outcomes: Sequence[tuple[Ticket, Exception | None]]) -> None:
    """Runs on the event loop. Only a cancellation sets these futures otherwise."""
    for ticket, error in outcomes:
        if ticket.future.done():
            continue
        # A failure on one thread may arrive after the last result of another.
        error = error or next((result for result in ticket.results if isinstance(result, Exception)), None)
        if error is None:
            ticket.future.set_result(ticket.results)
        else:
            ticket.future.set_exception(error)
