"""Throughput of the batch job that makes a snapshot of the catalogue, and its cost from 1,000 to 1,000,000 items.

    seqrec bench reindex                     # 1,000, 10,000 and 100,000 items; 3 minutes
    seqrec bench reindex --million           # and 1,000,000: 6 minutes more, 6 GB of disk

With a Recformer of random weights the job is compared with encoding the same items in a loop, which shows the encoder's
share of the time. With the model without weights each size is made twice: once with no vector known, as when the model
changes, and once with all vectors known from the previous snapshot. If the cost is proportional to the number of items,
the ratio to the smallest size is 1. The time includes reading, encoding, writing, hashing and measuring recall.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import torch

from benchmarks.speed.serve import DATA, World, make_model
from benchmarks.tools.report import Line, Report, Spread, add_output, log
from benchmarks.tools.service_process import make_checkpoint
from benchmarks.tools.synthetic import item
from benchmarks.tools.turns import take_turns
from index.build.reindex import Request, make_snapshot
from index.catalogue.base import CatalogueItem
from index.catalogue.batches import batches
from index.catalogue.open import open_catalogue
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item, read_items
from seqrec.encoder import load_model
from seqrec.runtime.arguments import Parser

ONCE_ABOVE = 100_000
"""With more items the job runs once instead of `--rounds` times."""


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    title = f"reindex: Recformer {args.layers} x {args.hidden}, and the model without weights x {args.dim}; "
    report = Report("reindex", title + f"{args.threads} threads", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-reindex-") as folder:
        compare_with_encoding(report, Path(folder) / "encoded", args)
        by_size(report, Path(folder), args)
    report.finish(args.json, args.picture)


def compare_with_encoding(report: Report, home: Path, args: argparse.Namespace) -> None:
    items = read_items(args.items)[: args.encoded]
    checkpoint = make_model(home / "model", World(items, []), args)
    fill(home, items)
    encoder = load_model(checkpoint, "cpu", args.precision)
    sides = {
        "encoding alone": lambda: encoder.encode_items(items),
        "reindex": lambda: job(home, Request(checkpoint, device="cpu", precision=args.precision, publish=False)),
    }
    part = f"{len(items):,} items, Recformer {args.layers} x {args.hidden} {args.precision}"
    report.add_turns(part, take_turns(part, sides, args.rounds), len(items), "items/s")


def by_size(report: Report, folder: Path, args: argparse.Namespace) -> None:
    checkpoint = make_checkpoint(folder / "without-weights", dim=args.dim)
    first: dict[str, float] = {}
    for count in [*args.sizes, *([1_000_000] if args.million else [])]:
        home = folder / f"home-{count}"
        log(f"filling a catalogue with {count:,} items")
        fill(home, (item(number) for number in range(count)))
        rounds = args.rounds if count <= ONCE_ABOVE else 1
        unknown = Request(checkpoint, device="cpu", publish=False)
        seconds = {"no vector known": [job(home, unknown) for _ in range(rounds)]}
        make_snapshot(home, Request(checkpoint, device="cpu"))
        seconds["all vectors known"] = [job(home, unknown) for _ in range(rounds)]
        for name, took in seconds.items():
            log(f"{count:,} items, {name}: {median(took):.1f} s")
            speeds = [count / one for one in took]
            base = first.setdefault(name, median(speeds))
            ratio = None if median(speeds) == base else Spread.of([speed / base for speed in speeds])
            against = f"{args.sizes[0]:,} items" if ratio else ""
            report.add(Line(f"{count:,} items, without weights", name, median(speeds), "items/s", ratio, against))


def fill(home: Path, items: Iterable[Item]) -> None:
    """Fills a catalogue with items that have neither token ids nor vectors."""
    home.mkdir(parents=True, exist_ok=True)
    with closing(open_catalogue(home, create=True)) as catalogue:
        for batch in batches(items):
            catalogue.put([CatalogueItem(one) for one in batch])


def job(home: Path, request: Request) -> float:
    """The seconds of one job, whose snapshot is removed afterwards."""
    begin = time.perf_counter()
    made = make_snapshot(home, request)
    took = time.perf_counter() - begin
    SnapshotStore(home).remove(made.manifest.snapshot_id)
    return took


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench reindex", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="items")
    parser.add_argument("--million", action="store_true", help="also run with 1,000,000 items")
    parser.add_argument("--dim", type=int, default=384, help="dimensions of the model without weights")
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="JSON Lines, for the Recformer")
    parser.add_argument("--encoded", type=int, default=2000, help="number of items to encode")
    parser.add_argument(
        "--attributes", default="title,brand,category", help="attributes to read as text, in this order"
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384, help="a multiple of 32, the size of a head")
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
