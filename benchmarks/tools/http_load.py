"""HTTP load over keep-alive connections: at the speed of the answers (closed loop) or at given times (open loop).

One process, asyncio streams and a reply parser of a few lines, since processor time of the client is lost to the
service.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Answers:
    """Counts by status (0: no answer) and the seconds of each answered request; in an open loop from its due time."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refused: list[float] = field(default_factory=list)  # seconds of each that was answered 429
    took: float = 0.0
    late: float = 0.0
    """The largest delay, in seconds, with which the client itself sent a request."""

    @property
    def per_s(self) -> float:
        return len(self.seconds) / self.took

    def percentile(self, percent: float) -> float:
        """Of the answered requests, in seconds."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else float("nan")

    def refusal(self, percent: float) -> float:
        """Of the requests that were answered 429, in seconds; 0 if there were none."""
        return float(np.percentile(self.refused, percent)) if self.refused else 0.0


class Connections:
    """A pool of `count` connections to one URL, each with one request at a time."""

    def __init__(self, url: str, path: str, count: int, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._head = (head + ("" if key is None else f"Authorization: Bearer {key}\r\n")).encode()
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(count):
            self._free.put_nowait(None)

    async def post(self, body: bytes) -> int:
        """-> the status."""
        connection = await self._free.get()
        if connection and connection[0].at_eof():  # the server closed an idle connection
            connection[1].close()
            connection = None
        try:
            connection = connection or await asyncio.open_connection(*self._address)
            reader, writer = connection
            writer.write(self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            return int(head[9:12])
        except (OSError, EOFError):
            connection = None
            return 0
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        while not self._free.empty():
            if connection := self._free.get_nowait():
                connection[1].close()


def closed_loop(url: str, path: str, bodies: Iterable[bytes], clients: int, key: str | None = None) -> Answers:
    """Each client sends its next request when its last one is answered, until no bodies are left."""
    answers, waiting = Answers(), iter(bodies)

    async def client(connections: Connections) -> None:
        for body in waiting:
            await _timed(connections, body, time.perf_counter(), answers)

    async def all_of_them() -> None:
        connections = Connections(url, path, clients, key)
        begin = time.perf_counter()
        await asyncio.gather(*(client(connections) for _ in range(clients)))
        answers.took = time.perf_counter() - begin
        await connections.close()

    asyncio.run(all_of_them())
    return answers


def open_loop(
    url: str,
    path: str,
    bodies: Sequence[bytes],
    per_s: float,
    seconds: float,
    seed: int = 0,
    key: str | None = None,
) -> Answers:
    """Requests at random times, whether or not earlier ones are answered.

    A Poisson process of `per_s` requests per second, conditioned on their number. A request's time counts from when it
    was due, so the waiting time of a service that falls behind is included.
    """
    answers = Answers()
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(max(1, round(per_s * seconds)))) * seconds

    async def all_of_them() -> None:
        connections = Connections(url, path, 4096, key)
        begin, tasks = time.perf_counter(), []
        for number, due in enumerate(times.tolist()):
            wait = begin + due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            answers.late = max(answers.late, time.perf_counter() - begin - due)
            tasks.append(asyncio.create_task(_timed(connections, bodies[number % len(bodies)], begin + due, answers)))
        await asyncio.gather(*tasks)
        answers.took = time.perf_counter() - begin
        await connections.close()

    asyncio.run(all_of_them())
    return answers


@contextmanager
def flooded(url: str, path: str, bodies: Sequence[bytes], clients: int, key: str) -> Iterator[Counter[int]]:
    """A closed loop over `bodies`, again and again, by another process. The counts by status are there at the end."""
    spawn = multiprocessing.get_context("spawn")
    begun, end, outcome = spawn.Event(), spawn.Event(), spawn.SimpleQueue()
    process = spawn.Process(target=_flood, args=(url, path, bodies, clients, key, begun, end, outcome))
    process.start()
    statuses: Counter[int] = Counter()
    try:
        begun.wait()
        yield statuses
        end.set()
        statuses.update(outcome.get())
    finally:
        end.set()
        process.join()


def _flood(
    url: str, path: str, bodies: Sequence[bytes], clients: int, key: str, begun: Any, end: Any, outcome: Any
) -> None:
    begun.set()
    endless = itertools.takewhile(lambda _: not end.is_set(), itertools.cycle(bodies))
    outcome.put(closed_loop(url, path, endless, clients, key).statuses)


async def _timed(connections: Connections, body: bytes, begin: float, answers: Answers) -> None:
    status = await connections.post(body)
    answers.statuses[status] += 1
    if status in (200, 429):
        (answers.seconds if status == 200 else answers.refused).append(time.perf_counter() - begin)
