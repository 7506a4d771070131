"""Checks whether a worker returns its memory after very many upserts and deletes, followed by a reindex.

    seqrec bench delta-memory            200,000 upserts and as many deletes; about 3 minutes
    seqrec bench delta-memory --items 20000

Runs `seqrec serve` with a new catalogue and the bag-of-words model. Items are written directly to the catalogue,
because the HTTP API deletes one item at a time; the worker follows the log, as it does for writes of other workers.
Reports resident memory at the start, after the upserts, after the deletes and after the reindex, with and without
memory-mapped files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx
import psutil

from index.build.reindex import Request, make_snapshot
from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.open import open_catalogue
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item
from seqrec.encoder import Encoder, load_model
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.runtime.arguments import Parser

AT_ONCE = 1000
DIM = 256
T = TypeVar("T")
WAIT_SECONDS = 300.0


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        "seqrec bench delta-memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=200_000, help="number of items to add and delete")
    parser.add_argument("--catalogue", type=int, default=20_000, help="number of items in the snapshot")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="seqrec-memory-") as home:
        result = measure(Path(home), arguments.items, arguments.catalogue)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>32}: {value:,.3f}" if name.endswith("ratio") else f"{name:>32}: {value:,.0f}")


def measure(home: Path, items: int, size: int) -> dict[str, float]:
    """Resident memory in MB at the start, with all added, with all deleted, and after the reindex; and end / start."""
    checkpoint = home / "checkpoint"
    save_checkpoint(checkpoint, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=DIM)))
    stock = [_item(f"stock-{n}", n) for n in range(size)]
    make_snapshot(home, Request(checkpoint=checkpoint, items=stock))
    encoder = load_model(checkpoint, device="cpu")
    # No automatic reindex, which would start at a different moment in each run.
    settings = {"SEQREC_HOME": str(home), "SEQREC_PORT": "0", "SEQREC_REINDEX_AT": "0", "SEQREC_DEADLINE": "30"}
    log = home / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "seqrec", "serve"], env=os.environ | settings, stdout=output, stderr=output
        )
    try:
        (url,) = until(lambda: re.findall(r"listening on (http://\S+)", log.read_text(encoding="utf-8")))
        with httpx.Client(base_url=url, timeout=60) as client:
            return _run(client, process.pid, open_catalogue(home), encoder, items)
    finally:
        process.terminate()
        process.wait(60)


def _run(client: httpx.Client, process_id: int, catalogue: Catalogue, encoder: Encoder, items: int) -> dict[str, float]:
    until(lambda: client.get("/readyz").status_code == 200)
    _use(client)
    before = _memory(process_id)
    ids = [f"new-{n}" for n in range(items)]
    for begin in range(0, items, AT_ONCE):
        catalogue.put(_encoded(encoder, [_item(item_id, n) for n, item_id in enumerate(ids[begin : begin + AT_ONCE])]))
    _follow(client, catalogue.head())
    added = _memory(process_id)
    for begin in range(0, items, AT_ONCE):
        catalogue.delete(ids[begin : begin + AT_ONCE])
    _follow(client, catalogue.head())
    deleted = _memory(process_id)
    served = client.get("/readyz").json()["snapshot"]
    job = client.post("/reindex").json()["id"]
    until(lambda: client.get("/readyz").json()["snapshot"] != served)
    until(lambda: client.get(f"/reindex/{job}").json()["state"] == "done")
    _use(client)
    after = _memory(process_id)
    catalogue.close()
    steps = {"before": before, "all added": added, "all deleted": deleted, "after the reindex": after}
    return {
        "items added and deleted": items,
        **{f"{step}, MB": memory.resident for step, memory in steps.items()},
        **{f"{step}, not shared, MB": memory.own for step, memory in steps.items()},
        "after to before, ratio": after.resident / before.resident,
        "not shared, ratio": after.own / before.own,
    }


def _item(item_id: str, number: int) -> Item:
    return Item(item_id, {"title": f"article {number % 977} of kind {number % 89}", "price": number % 100})


def _encoded(encoder: Encoder, items: Sequence[Item]) -> list[CatalogueItem]:
    tokens = encoder.tokenize_items(items)
    vectors = encoder.encode_item_tokens(tokens)
    tower = encoder.item_tower
    return [CatalogueItem(item, its, v, tower) for item, its, v in zip(items, tokens, vectors, strict=True)]


def _use(client: httpx.Client) -> None:
    """Send requests as real use would, then allow time for memory to be released."""
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(lambda n: client.post("/recommend", json={"history": [f"stock-{n}"]}), range(300)):
            answer.raise_for_status()
    time.sleep(2)


def _follow(client: httpx.Client, seq: int) -> None:
    until(lambda: client.get("/readyz").json()["seq"] >= seq)
    _use(client)


class Memory(NamedTuple):
    """In MB. `own` excludes memory-mapped files, which processes share and the kernel may drop."""

    resident: float
    own: float


def _memory(process_id: int) -> Memory:
    memory = psutil.Process(process_id).memory_info()
    return Memory(memory.rss / 1e6, (memory.rss - memory.shared) / 1e6)


def until(condition: Callable[[], T]) -> T:
    """The first true value of the condition. Fails after `WAIT_SECONDS`."""
    end = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.1)
    return value


if __name__ == "__main__":
    main()
