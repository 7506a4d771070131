"""Who is next. In a lane of the batcher, clients take turns, and so do the requests of a client, unit by unit.

The bulk writes of a client wait for each other and rest in between, as long as other clients ask.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from seqrec.errors import Overloaded
from service.deadline import Deadline

WRITE_SHARE = 0.2
"""Of the time, for the bulk writes of a client while other clients ask."""
_LOOK_AGAIN_SECONDS = 0.25
"""How often a resting client looks whether the others are still there."""


@dataclass(eq=False)
class Ticket:
    """One request's place in the queue. Times are seconds; `batch_units` is the size of the last batch it was in.

    `client`: whose request it is, such as an API key.
    """

    future: asyncio.Future[list[Any]]
    loop: asyncio.AbstractEventLoop
    results: list[Any]
    missing: int
    client: str = ""
    submitted: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    batch_units: int = 0
    gone: bool = False  # answered, failed or cancelled: the units it still has in the queue are skipped


@dataclass(frozen=True, eq=False)
class Unit:
    ticket: Ticket
    position: int
    payload: Any
    tokens: int


class Turns:
    """Not safe for several threads: the batcher has a lock."""

    def __init__(self) -> None:
        self._clients: dict[str, dict[Ticket, deque[Unit]]] = {}  # both in order of their turns
        self._tokens: dict[str, int] = {}
        self.tokens = 0
        """Of all units."""

    def __len__(self) -> int:
        """Number of units."""
        return sum(len(units) for requests in self._clients.values() for units in requests.values())

    def __bool__(self) -> bool:
        return bool(self._clients)

    def add(self, ticket: Ticket, units: Iterable[Unit]) -> None:
        waiting = deque(units)
        self._clients.setdefault(ticket.client, {})[ticket] = waiting
        self._count(ticket.client, sum(unit.tokens for unit in waiting))

    def remove(self, ticket: Ticket) -> None:
        units = self._clients.get(ticket.client, {}).pop(ticket, None)
        if units is not None:
            self._count(ticket.client, -sum(unit.tokens for unit in units))
            self._forget_idle(ticket.client)

    def first(self, resting: Container[str] = ()) -> Unit | None:
        """The unit whose turn it is, if the clients `resting` have none; None: nothing else waits."""
        client = self._next(resting)
        return None if client is None else next(iter(self._clients[client].values()))[0]

    def take(self, resting: Container[str] = ()) -> Unit:
        """Remove the unit that is `first`; its request goes behind the client's others, the client behind others."""
        client = self._next(resting)
        assert client is not None
        requests = self._clients[client]
        ticket, units = next(iter(requests.items()))
        unit = units.popleft()
        del requests[ticket], self._clients[client]
        if units:
            requests[ticket] = units
        self._clients[client] = requests
        self._count(client, -unit.tokens)
        self._forget_idle(client)
        return unit

    def tokens_of(self, client: str) -> int:
        return self._tokens.get(client, 0)

    def tokens_for(self, client: str, most: int) -> int:
        """Waiting tokens that delay `client`: of each other client at most `most`.

        A single large request may exceed the queue; that must not shut others out.
        """
        return sum(count if name == client else min(count, most) for name, count in self._tokens.items())

    def tokens_before(self, client: str, count: int) -> int:
        """Tokens of the units that come before the last one of a new request of `client` with `count` units."""
        mine = [unit for units in self._clients.get(client, {}).values() for unit in islice(units, count)]
        turns = len(mine) + count  # of each other client, as many units come first as this one has turns
        others = (
            unit
            for other, requests in self._clients.items()
            if other != client
            for unit in islice(_in_turn(requests), turns)
        )
        return sum(unit.tokens for unit in mine) + sum(unit.tokens for unit in others)

    def clear(self) -> list[Unit]:
        """Remove everything; returns it."""
        left = [unit for requests in self._clients.values() for units in requests.values() for unit in units]
        self._clients.clear()
        self._tokens.clear()
        self.tokens = 0
        return left

    def _next(self, resting: Container[str]) -> str | None:
        return next((client for client in self._clients if client not in resting), None)

    def _count(self, client: str, tokens: int) -> None:
        self.tokens += tokens
        self._tokens[client] = self._tokens.get(client, 0) + tokens

    def _forget_idle(self, client: str) -> None:
        if not self._clients.get(client, True):
            del self._clients[client], self._tokens[client]


def _in_turn(requests: Mapping[Ticket, deque[Unit]]) -> Iterator[Unit]:
    rest = [iter(units) for units in requests.values()]
    while rest:
        going = []
        for units in rest:
            unit = next(units, None)
            if unit is not None:
                going.append(units)
                yield unit
        rest = going


@dataclass(eq=False)
class _Writer:
    """A client that writes in bulk; `seconds` of one write and its rest on average, `rests_until` by time.monotonic."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    seconds: float = 0.0
    rests_until: float = -math.inf


class WriteTurns:
    """Applying a bulk write is work in Python that no thread shares with answers, so a flood of them slows all answers.

    For one event loop.
    """

    def __init__(self, others_ask: Callable[[str], bool]) -> None:
        """`others_ask`: whether any client but this one has asked for something lately."""
        self._others_ask = others_ask
        self._writers: dict[str, _Writer] = {}

    @asynccontextmanager
    async def turn(self, client: str, deadline: Deadline, least_rest: float = 0.0) -> AsyncIterator[None]:
        """Around one bulk write; "" is nobody in particular, who does not wait. `least_rest` in seconds.

        Raises Overloaded where the turn would come after the deadline, DeadlineExceeded where it did not come.
        """
        if not client or not self._others_ask(client):
            yield
            return
        writer = self._writers.setdefault(client, _Writer())
        self._check(writer, deadline)
        writer.waiting += 1
        try:
            async with deadline:
                await writer.turn.acquire()
                try:
                    await self._rest(client, writer)
                except BaseException:
                    writer.turn.release()
                    raise
            began = time.monotonic()
            try:
                yield
            finally:
                took = time.monotonic() - began
                rest = max(least_rest, took * (1 / WRITE_SHARE - 1))
                writer.seconds += (took + rest - writer.seconds) * (0.2 if writer.seconds else 1)
                writer.rests_until = time.monotonic() + rest
                writer.turn.release()
        finally:
            writer.waiting -= 1
            self._forget_rested()

    def _check(self, writer: _Writer, deadline: Deadline) -> None:
        rest = max(0.0, writer.rests_until - time.monotonic())
        wait = rest + writer.waiting * writer.seconds
        if wait > deadline.remaining:
            raise Overloaded(
                f"{writer.waiting} bulk writes of this client come first, which take about {wait:.1f} s while other "
                f"clients ask; it may wait {max(0.0, deadline.remaining):.2g} s",
                retry_after=max(1, math.ceil(wait - deadline.remaining)),
            )

    async def _rest(self, client: str, writer: _Writer) -> None:
        while (rest := writer.rests_until - time.monotonic()) > 0 and self._others_ask(client):
            await asyncio.sleep(min(rest, _LOOK_AGAIN_SECONDS))

    def _forget_rested(self) -> None:
        now = time.monotonic()
        rested = [client for client, one in self._writers.items() if not one.waiting and one.rests_until < now]
        for client in rested:
            del self._writers[client]
