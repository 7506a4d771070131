"""Items a second of the batch job that makes a snapshot of the catalogue, and what it costs from 1,000 to 1,000,000.

    seqrec bench reindex                                 # 1,000, 10,000 and 100,000 items; 3 minutes
    seqrec bench reindex --million                       # and 1,000,000: 6 minutes more, 6 GB of disk

With a Recformer of random weights the job is compared with encoding the same items in a loop, nothing else: how much
of the time is the encoder's. With the model without weights each size is made twice: nothing is known of the items, as
when the model changes, and all vectors are known from the snapshot before. A cost that grows with the number of items
alone is a ratio of 1 to the smallest size. Read, encoded, written, hashed, searched for its recall: all of it counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import torch

from benchmarks.report import Line, Report, Spread, add_output
from benchmarks.serve import DATA, World, make_model
from benchmarks.service_process import make_checkpoint
from benchmarks.synthetic import item
from benchmarks.turns import take_turns
from index.build.reindex import Request, make_snapshot
from index.catalogue.base import CatalogueItem
from index.catalogue.batches import batches
from index.catalogue.open import open_catalogue
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item, read_items
from seqrec.encoder import load_model

ONCE_ABOVE = 100_000
"""Items from which a job is run once, not `--rounds` times."""


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    title = f"reindex: Recformer {args.layers} x {args.hidden}, and the model without weights x {args.dim}; "
    report = Report("reindex", title + f"{args.threads} threads", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-reindex-") as folder:
        beside_encoding(report, Path(folder) / "encoded", args)
        by_size(report, Path(folder), args)
    report.finish(args.json, args.picture)


def beside_encoding(report: Report, home: Path, args: argparse.Namespace) -> None:
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
        _say(f"filling a catalogue with {count:,} items")
        fill(home, (item(number) for number in range(count)))
        rounds = args.rounds if count <= ONCE_ABOVE else 1
        unknown = Request(checkpoint, device="cpu", publish=False)
        seconds = {"all to encode": [job(home, unknown) for _ in range(rounds)]}
        make_snapshot(home, Request(checkpoint, device="cpu"))
        seconds["all known"] = [job(home, unknown) for _ in range(rounds)]
        for name, took in seconds.items():
            _say(f"{count:,} items, {name}: {median(took):.1f} s")
            speeds = [count / one for one in took]
            base = first.setdefault(name, median(speeds))
            ratio = None if median(speeds) == base else Spread.of([speed / base for speed in speeds])
            against = f"{args.sizes[0]:,} items" if ratio else ""
            report.add(Line(f"{count:,} items, without weights", name, median(speeds), "items/s", ratio, against))


def fill(home: Path, items: Iterable[Item]) -> None:
    """A catalogue of the items, with neither token ids nor vectors."""
    home.mkdir(parents=True, exist_ok=True)
    with closing(open_catalogue(home, create=True)) as catalogue:
        for batch in batches(items):
            catalogue.put([CatalogueItem(one) for one in batch])


def job(home: Path, request: Request) -> float:
    """Seconds. The snapshot is removed again."""
    begin = time.perf_counter()
    made = make_snapshot(home, request)
    took = time.perf_counter() - begin
    SnapshotStore(home).remove(made.manifest.snapshot_id)
    return took


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="seqrec bench reindex", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="items")
    parser.add_argument("--million", action="store_true", help="1,000,000 items too")
    parser.add_argument("--dim", type=int, default=384, help="of the model without weights")
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="JSON Lines, for the Recformer")
    parser.add_argument("--encoded", type=int, default=2000, help="how many of them")
    parser.add_argument("--attributes", default="title,brand,category", help="which are text, in this order")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384, help="heads are of 32")
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
