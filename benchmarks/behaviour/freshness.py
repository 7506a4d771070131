"""Measures how soon an item that is posted to one of two services on one Redis is found by the other.

    seqrec bench freshness                  # 100 items; half a minute

The service promises 250 ms, and no delay for requests with `min_seq`. Exit code 1 if either promise is broken.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.tools.redis_server import RedisServer
from benchmarks.tools.service_process import Service, make_checkpoint, seqrec
from seqrec.runtime.arguments import Parser

PROMISED = 0.25
"""Seconds."""


@dataclass
class Result:
    """Seconds from the answer to the post until the other service found the item."""

    by_itself: list[float] = field(default_factory=list)
    with_min_seq: list[float] = field(default_factory=list)  # duration of the single request
    missed: int = 0  # requests with `min_seq` that did not find it


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="seqrec bench freshness", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.items)
    print(f"{'ms':22}{'p50':>8}{'p99':>8}{'max':>8}")
    for name, seconds in (("without min_seq", result.by_itself), ("with min_seq", result.with_min_seq)):
        row = [1000 * float(np.percentile(seconds, percent)) for percent in (50, 99, 100)]
        print(f"{name:22}" + "".join(f"{value:>8.1f}" for value in row))
    print(f"not found with min_seq: {result.missed} of {len(result.with_min_seq)}")
    sys.exit(1 if result.missed or max(result.by_itself) > PROMISED else 0)


def measure(folder: Path, items: int) -> Result:
    """Post items to both services in turn, and query the other one: alternately with and without `min_seq`."""
    result = Result()
    chance = random.Random(0)
    with ExitStack() as stack:
        server = RedisServer(folder / "redis").start()
        stack.callback(server.kill)
        home, checkpoint = folder / "home", make_checkpoint(folder / "checkpoint", dim=32)
        (folder / "items.jsonl").write_text('{"item_id": "desk", "attributes": {"title": "Oak desk"}}\n')
        data = ("--items", str(folder / "items.jsonl"))
        seqrec(home, "index", "build", "--checkpoint", str(checkpoint), *data, "--publish", redis_url=server.url)
        clients = []
        for number in range(2):
            service = Service(home, folder / f"service-{number}.log", redis_url=server.url)
            stack.callback(service.kill)
            clients.append(stack.enter_context(httpx.Client(base_url=service.start().url, timeout=60)))
        for number in range(items):
            time.sleep(chance.uniform(0, 0.2))  # at any moment between two reads of the log
            taking, asked = clients if number % 2 else reversed(clients)
            attributes = {"title": f"kettle number{number}"}
            posted = taking.post("/items", json={"items": [{"item_id": f"new-{number}", "attributes": attributes}]})
            posted.raise_for_status()
            begin = time.perf_counter()
            body = {"history": [{"attributes": attributes}], "k": 1}
            if number % 4 < 2:
                while not _found(asked, body, f"new-{number}"):
                    pass
                result.by_itself.append(time.perf_counter() - begin)
            else:
                result.missed += not _found(asked, body | {"min_seq": posted.json()["seq"]}, f"new-{number}")
                result.with_min_seq.append(time.perf_counter() - begin)
    return result


def _found(client: httpx.Client, body: dict[str, object], item_id: str) -> bool:
    reply = client.post("/recommend", json=body)
    reply.raise_for_status()
    return [item["item_id"] for item in reply.json()["items"]] == [item_id]


if __name__ == "__main__":
    main()
