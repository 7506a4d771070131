"""Items that neither training nor the index saw, posted with their text alone: does the very next request find them?

    seqrec bench cold-items                 # about 4 minutes, most of it training with the demo's preset

Takes items that have a near duplicate out of the items, the interactions and the index, trains on what is left, serves
it, posts each item with its text alone, and recommends after its twin.
"""

from __future__ import annotations

import argparse
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

DATA = Path(__file__).parents[1] / "data" / "online-retail"
Pair = tuple[Item, Item]


def main(argv: Sequence[str] | None = None) -> None:
    """Print how many were found and at which place; exit code 1 unless all were."""
    parser = argparse.ArgumentParser(prog="seqrec bench cold-items", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz")
    parser.add_argument("--preset", default="demo", help="of `seqrec train`")
    parser.add_argument("--withheld", type=int, default=50, help="items taken out")
    parser.add_argument("--k", type=int, default=10, help="an item is found if it is among so many")
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
    print(f"\n{found} of {len(pairs)} withheld items are among the {options.k} best of the next request")
    for place, times in sorted(Counter(place for place in places if place is not None).items()):
        print(f"  place {place}: {times}")
    sys.exit(0 if found == len(pairs) else 1)


def near_duplicates(items: Sequence[Item], count: int) -> list[Pair]:
    """(item, twin): the pairs whose titles share the most runs of three characters; no item is in two of them.

    Titles that are equal are no pair: that would be too easy.
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
    likeness[likeness > 1 - 1e-4] = -np.inf  # itself, and equal titles
    return [(items[row], items[twin]) for row, twin in most_alike(likeness, count)]


def most_alike(likeness: npt.NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """(row, the row most like it), best first, no row in two pairs. likeness [n, n], -inf where no pair is."""
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
    """Copies of the data without the cold items; the options that name them."""
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
    """The place of each posted item in the answer to a history of its twin, from 1; None if it is not there."""
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
