"""HTTP load over keep-alive connections: at the speed of the answers (closed loop) or at given times (open loop).

One process, asyncio streams and a reply parser of a few lines, since processor time of the client is lost to the
service.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Answers:
    """Counts by status (0: no answer) and the seconds of each answered request; in an open loop from its due time."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    took: float = 0.0
    late: float = 0.0
    """The largest delay, in seconds, with which the client itself sent a request."""

    @property
    def per_s(self) -> float:
        return len(self.seconds) / self.took

    def percentile(self, percent: float) -> float:
        """Of the answered requests, in seconds."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else float("nan")


class Connections:
    """A pool of `count` connections to one URL, each with one request at a time."""

    def __init__(self, url: str, path: str, count: int) -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        self._head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n".encode()
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


def closed_loop(url: str, path: str, bodies: Iterable[bytes], clients: int) -> Answers:
    """Each client sends its next request when its last one is answered, until no bodies are left."""
    answers, waiting = Answers(), iter(bodies)

    async def client(connections: Connections) -> None:
        for body in waiting:
            await _timed(connections, body, time.perf_counter(), answers)

    async def all_of_them() -> None:
        connections = Connections(url, path, clients)
        begin = time.perf_counter()
        await asyncio.gather(*(client(connections) for _ in range(clients)))
        answers.took = time.perf_counter() - begin
        await connections.close()

    asyncio.run(all_of_them())
    return answers


def open_loop(url: str, path: str, bodies: Sequence[bytes], per_s: float, seconds: float, seed: int = 0) -> Answers:
    """Requests at random times, whether or not earlier ones are answered.

    A Poisson process of `per_s` requests per second, conditioned on their number. A request's time counts from when it
    was due, so the waiting time of a service that falls behind is included.
    """
    answers = Answers()
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(max(1, round(per_s * seconds)))) * seconds

    async def all_of_them() -> None:
        connections = Connections(url, path, 4096)
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


async def _timed(connections: Connections, body: bytes, begin: float, answers: Answers) -> None:
    status = await connections.post(body)
    answers.statuses[status] += 1
    if status == 200:
        answers.seconds.append(time.perf_counter() - begin)
