"""Sends broken and hostile requests to a service: mutated JSON bodies of every endpoint, and mutated HTTP streams.

    seqrec bench fuzz                        # 100,000 bodies and 10,000 streams; about 10 minutes

No answer may be a 500, no worker may die, and memory must stay flat. Exit code 1 otherwise. Bodies begin as the
examples of the service's own OpenAPI document, so a new endpoint is fuzzed as soon as it is documented.
"""

from __future__ import annotations

import copy
import json
import random
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil

from benchmarks.speed.serve import DATA
from benchmarks.tools.service_process import Service, make_checkpoint, seqrec
from seqrec.runtime.arguments import Parser

CLIENTS = 4
_JOBS = ("/reindex", "/snapshots")
"""Begin work that takes long, or change what is served."""
_GROWTH = 64 * 2**20
"""Bytes by which memory may grow after the first fifth: posted items and events are kept, up to their limits."""
_SECONDS = 30.0
_HOSTILE: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: None,
    lambda rng: rng.choice([True, -1, 0, 2**31, 2**63, -(2**80), 10.0, 1e308, float("nan"), float("-inf")]),
    lambda rng: rng.choice(
        ["", " ", "\u200b", "\x00", "\ud800", "\U0001f600" * 50, "a" * 10_000, "7d", "1e5", "\u202e"]
    ),
    lambda rng: [rng.choice(["x", 1, None, {}, []])] * rng.choice([0, 1, 2000]),
    lambda rng: {rng.choice(["and", "or", "not", "title", "$ne", "__proto__"]): rng.choice([[], {}, None, [{}] * 300])},
    lambda rng: _nested(rng.choice([5, 60, 200])),
    lambda rng: {f"made-up-{number}": number for number in range(rng.choice([1, 70, 3000]))},
)


@dataclass
class Result:
    """Statuses of the answers (0: the connection was closed without one), and what must not happen."""

    statuses: Counter[int] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)  # requests that were answered with 500
    workers_died: bool = False
    ready: bool = False
    memory: list[int] = field(default_factory=list)  # bytes of the service, after each tenth

    @property
    def growth(self) -> int:
        """Bytes, since the second tenth."""
        return self.memory[-1] - self.memory[1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="seqrec bench fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.bodies, options.streams, options.seed)
    print("status   answers")
    for status, count in sorted(result.statuses.items()):
        print(f"{status or 'none':>6}{count:>10,}")
    print("memory, MiB, after each tenth: " + " ".join(f"{size / 2**20:.0f}" for size in result.memory))
    for request in result.failed[:10]:
        print(f"500: {request}")
    if result.workers_died:
        print("a worker died")
    if not result.ready:
        print("the service is not ready afterwards")
    sys.exit(bool(result.failed) or result.workers_died or not result.ready or result.growth > _GROWTH)


def measure(folder: Path, bodies: int, streams: int, seed: int) -> Result:
    """Start a service over the bundled shop, with the model without weights, and send it so many of both."""
    home, checkpoint = folder / "home", make_checkpoint(folder / "checkpoint", dim=32)
    data = ("--items", str(DATA / "items.jsonl.gz"))
    seqrec(home, "index", "build", "--checkpoint", str(checkpoint), *data, "--publish")
    service = Service(home, folder / "service.log", threads="1")
    result, lock = Result(), threading.Lock()
    try:
        url = service.start().url
        examples = list(_examples(httpx.get(f"{url}/openapi.json", timeout=_SECONDS).json()))
        workers = service.workers()

        def client(number: int, tenth: int) -> None:
            rng = random.Random(f"{seed}-{tenth}-{number}")
            address = urlsplit(url).netloc
            connection = HTTPConnection(address, timeout=_SECONDS)
            for _ in range(bodies // (10 * CLIENTS)):
                method, path, body = rng.choice(examples)
                path, content = _filled(path, rng), _mutated_body(body, rng)
                status = _send(connection, method, path, content)
                with lock:
                    result.statuses[status] += 1
                    if status == 500:
                        result.failed.append(f"{method} {path} {content[:300]!r}")
            connection.close()
            for _ in range(streams // (10 * CLIENTS)):
                stream = _mutated_stream(address, rng.choice(examples), rng)
                status = _send_raw(address, stream)
                with lock:
                    result.statuses[status] += 1
                    if status == 500:
                        result.failed.append(repr(stream[:300]))

        with ThreadPoolExecutor(CLIENTS) as pool:
            for tenth in range(10):
                list(pool.map(client, range(CLIENTS), [tenth] * CLIENTS))
                result.memory.append(sum(psutil.Process(pid).memory_info().rss for pid in workers))
        result.workers_died = service.workers() != workers
        result.ready = httpx.get(f"{url}/readyz", timeout=_SECONDS).status_code == 200
    finally:
        service.kill()
    return result


def _examples(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(method, path, example body) of every operation that reads a body and begins no job."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in content and not path.startswith(_JOBS):
                yield method.upper(), path, content["example"]


def _filled(path: str, rng: random.Random) -> str:
    name = rng.choice(["20725", "home", "no-such", "\u00e9", "a" * 300, "%", " ", "\x01"])
    begin, brace, rest = path.partition("{")
    return begin + quote(name, safe="") + rest.partition("}")[2] if brace else path


def _mutated_body(example: Any, rng: random.Random) -> bytes:
    body = copy.deepcopy(example)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        body = _mutated(body, rng)
    content = json.dumps(body).encode()
    return _mutated_bytes(content, rng) if rng.random() < 0.2 else content


def _mutated(value: Any, rng: random.Random) -> Any:
    """One place of the value changed: replaced, removed, repeated, or something unknown added."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return rng.choice(_HOSTILE)(rng)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    action = rng.random()
    if action < 0.6:
        value[key] = _mutated(value[key], rng)
    elif action < 0.75:
        del value[key]
    elif isinstance(value, list):
        value = value * rng.choice([2, 50])
    else:
        value[rng.choice(["unknown", "", "k", "history", "filter", "min_seq"])] = rng.choice(_HOSTILE)(rng)
    return value


def _mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """A part cut out, bytes changed, or something put in."""
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    junk = rng.choice([b"", rng.randbytes(8), b"\xff\xfe", b"\r\n\r\n", b"}" * 3, b"[" * 5000, b"\x00"])
    return content[:begin] + junk + content[rng.choice([begin, end]) :]


def _mutated_stream(address: str, example: tuple[str, str, Any], rng: random.Random) -> bytes:
    method, path, body = example
    content = json.dumps(body).encode()
    length = rng.choice([str(len(content)), str(len(content)), "-1", "5", "99999999999999999999", "0x10", "5, 5", ""])
    head = [
        f"{method} {_filled(path, rng)} HTTP/1.1",
        f"Host: {address}",
        "Content-Type: application/json",
        rng.choice([f"Content-Length: {length}", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, gzip"]),
        *rng.choice(
            [[], [f"Content-Length: {len(content)}"], ["X: " + "y" * 100_000], ["Expect: 100-continue"], [":"]]
        ),
    ]
    if "chunked" in head[3]:
        size = rng.choice([f"{len(content):x}", "zz", "-5", "f" * 20, "0"])
        content = f"{size}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    stream = "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + content
    if rng.random() < 0.5:
        stream = _mutated_bytes(stream, rng)
    return stream * rng.choice([1, 1, 1, 20])


def _send(connection: HTTPConnection, method: str, path: str, content: bytes) -> int:
    try:
        connection.request(method, path, content, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        return reply.status
    except (OSError, HTTPException):
        connection.close()  # the next request opens it again
        return 0


def _send_raw(address: str, stream: bytes) -> int:
    """-> the last status of all that the service sends until it closes the connection."""
    host, _, port = address.partition(":")
    status = 0
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
        connection.sendall(stream)
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while part := connection.recv(65536):
            said += part
        for line in said.split(b"HTTP/1.1 ")[1:]:
            status = int(line[:3])
            if status == 500:
                break
    return status


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


if __name__ == "__main__":
    main()
