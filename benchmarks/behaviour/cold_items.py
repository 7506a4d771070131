"""Checks whether new items, posted with their text alone, are found by the very next request.

    seqrec bench cold-items                 # about 4 minutes, most of it training with the demo's preset

Withholds items that have a near duplicate from training and from the index, trains on the rest and serves it. Then it
posts each withheld item with its text alone, and requests recommendations for a history of its duplicate.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.items import Item, attribute_text, read_items
from seqrec.runtime.arguments import Parser

DATA = Path(__file__).parents[2] / "data" / "online-retail"
Pair = tuple[Item, Item]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints how many items were found, and their ranks. Exit code 1 unless all were found."""
    parser = Parser(prog="seqrec bench cold-items", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz")
    parser.add_argument("--preset", default="demo", help="preset of `seqrec train`")
    parser.add_argument("--withheld", type=int, default=50, help="number of items to withhold")
    parser.add_argument("--k", type=int, default=10, help="an item counts as found if it is among the first K")
    options = parser.parse_args(argv)
    items = read_items(options.items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = near_duplicates(items, options.withheld)
        data = withhold(options.items, options.interactions, {cold.item_id for cold, _ in pairs}, folder)
        run = folder / "run"
        seqrec(folder, "train", *data, "--preset", options.preset, "--out", str(run))
        seqrec(folder, "index", "build", "--checkpoint", str(run / "checkpoint"), *data, "--publish")
        places = serve_and_ask(folder, pairs, options.k)
    found = sum(place is not None for place in places)
    print(f"\n{found} of {len(pairs)} withheld items are among the first {options.k} of the next request")
    for place, times in sorted(Counter(place for place in places if place is not None).items()):
        print(f"  rank {place}: {times}")
    sys.exit(0 if found == len(pairs) else 1)


def near_duplicates(items: Sequence[Item], count: int) -> list[Pair]:
    """(item, twin): the pairs whose titles have the most character trigrams in common. No item is in two pairs.

    Equal titles do not form a pair, since that would be too easy.
    """
    counts = [Counter(zip(text, text[1:], text[2:], strict=False)) for text in map(_padded_title, items)]
    column: dict[tuple[str, ...], int] = {}
    for found in counts:
        for run in found:
            column.setdefault(run, len(column))
    vectors = np.zeros((len(items), len(column)), np.float32)
    for row, found in enumerate(counts):
        vectors[row, [column[run] for run in found]] = list(found.values())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness: npt.NDArray[np.float32] = vectors @ vectors.T
    likeness[likeness > 1 - 1e-4] = -np.inf  # the item itself, and items with an equal title
    return [(items[row], items[twin]) for row, twin in most_alike(likeness, count)]


def most_alike(likeness: npt.NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """Pairs of rows, most similar first; no row is in two pairs. likeness [n, n], -inf for excluded pairs."""
    nearest = likeness.argmax(1)
    used: set[int] = set()
    pairs = []
    for row in np.argsort(-likeness.max(1), kind="stable").tolist():
        twin = int(nearest[row])
        if row not in used and twin not in used:
            used |= {row, twin}
            pairs.append((row, twin))
    return pairs[:count]


def _padded_title(item: Item) -> str:
    title = attribute_text(item.attributes.get("title", ""))
    return f"  {' '.join(title.lower().split())} "


def withhold(items: Path, interactions: Path, cold: set[str], folder: Path) -> list[str]:
    """Writes copies of the data without the cold items. -> the options that name these files."""
    with gzip.open(folder / "items.jsonl.gz", "wt", encoding="utf-8") as file:
        for item in read_items(items):
            if item.item_id not in cold:
                file.write(json.dumps({"item_id": item.item_id, "attributes": dict(item.attributes)}) + "\n")
    with (
        gzip.open(interactions, "rt", encoding="utf-8", newline="") as source,
        gzip.open(folder / "interactions.csv.gz", "wt", encoding="utf-8", newline="") as target,
    ):
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames or ())
        writer.writeheader()
        writer.writerows(row for row in rows if row["item_id"] not in cold)
    return ["--items", str(folder / "items.jsonl.gz"), "--interactions", str(folder / "interactions.csv.gz")]


def seqrec(folder: Path, *argv: str) -> None:
    environment = os.environ | {"SEQREC_HOME": str(folder / "home")}
    subprocess.run([sys.executable, "-m", "seqrec", *argv], env=environment, check=True)


def serve_and_ask(folder: Path, pairs: Sequence[Pair], k: int) -> list[int | None]:
    """The rank, from 1, of each posted item in the answer to a history of its twin; None if it is absent."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {"SEQREC_HOME": str(folder / "home"), "SEQREC_PORT": str(port)}
    environment |= {"SEQREC_LOG_LEVEL": "warning"}
    service = subprocess.Popen([sys.executable, "-m", "seqrec", "serve"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            if service.poll() is not None:
                sys.exit("the service ended before it was ready")
            time.sleep(0.1)
        places: list[int | None] = []
        for cold, twin in pairs:
            call(f"{url}/items", {"items": [{"item_id": cold.item_id, "attributes": dict(cold.attributes)}]})
            answer = call(f"{url}/recommend", {"history": [twin.item_id], "k": k})
            ids = [item["item_id"] for item in answer["items"]]
            places.append(ids.index(cold.item_id) + 1 if cold.item_id in ids else None)
            if places[-1] is None:
                print(f"not found: {cold.attributes.get('title')!r} after {twin.attributes.get('title')!r}")
        return places
    finally:
        service.terminate()
        service.wait()


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def call(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


if __name__ == "__main__":
    main()
