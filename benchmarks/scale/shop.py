"""Time and memory from a shop's exports to counts: `seqrec init`, the import of `seqrec up`, reading, counting pairs.

    seqrec bench shop                                      # 10 million events, 1 million items; 2 GB of disk
    seqrec bench shop --events 300000 --items 30000

The export is made of copies of the bundled shop's customers and items, so lengths of histories and popularity of items
are real: each copy of a customer buys from one copy of the items. Views, carts and purchases are drawn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from benchmarks.tools.report import Line, Report, add_output
from seqrec.data.items import read_interactions, read_items
from seqrec.runtime.arguments import Parser

DATA = Path(__file__).parents[2] / "data" / "online-retail"
COUNTING = """
import logging
from pathlib import Path
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, count
from training.data.dataset import read_dataset
dataset = read_dataset("var/data/items.jsonl", "var/data/interactions.parquet", on_error="skip")
rows, offsets = dataset.known_events("test")
count(CooccurrenceSettings(), rows, offsets, len(dataset.items))
"""
STEPS = {
    "init": ["-m", "seqrec", "init", "--items", "products.csv", "--events", "log.csv"],
    "import": ["-m", "seqrec", "up", "--until", "import"],
    "read and count pairs": ["-c", COUNTING],
}


@dataclass(frozen=True)
class Used:
    wall: float  # s
    cpu: float  # s
    peak: float  # MB


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    report = Report("shop", f"exports of {args.items:,} items and {args.events:,} events", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-shop-", dir=args.folder) as name:
        folder = Path(name)
        print("writing products.csv and log.csv", file=sys.stderr, flush=True)
        write_export(folder, args.items, args.events)
        for step, command in STEPS.items():
            used = run(command, folder)
            report.add(Line(step, "wall", used.wall, "s"))
            report.add(Line(step, "CPU", used.cpu, "s"))
            report.add(Line(step, "peak memory", used.peak, "MB"))
    report.finish(args.json, args.picture)


def write_export(folder: Path, items: int, events: int, seed: int = 1) -> None:
    """products.csv and log.csv with about as many rows."""
    known = read_items(DATA / "items.jsonl.gz")
    log = read_interactions(DATA / "interactions.csv.gz")
    draw = np.random.default_rng(seed)
    item_copies, user_copies = max(1, round(items / len(known))), max(1, round(events / len(log)))
    titles = pa.array([str(item.attributes["title"]) for item in known])
    ids = pa.array([item.item_id for item in known])
    with (folder / "products.csv").open("wb") as file:
        for copy in range(item_copies):
            columns = {
                "product_id": pc.binary_join_element_wise(ids, str(copy), "-"),
                "title": pc.binary_join_element_wise(titles, str(copy), " "),
                "price": pa.array(np.round(draw.random(len(known)) * 50, 2)),
                "in_stock": pa.array(draw.integers(0, 10, len(known))),
            }
            pcsv.write_csv(pa.table(columns), file, pcsv.WriteOptions(include_header=copy == 0))
    users, bought = pa.array(log.user_ids), pa.array(log.item_ids)
    kinds = pa.array(["purchase", "cart", "cart", *["view"] * 7])
    with (folder / "log.csv").open("wb") as file:
        for copy in range(user_copies):
            times = log.timestamps.astype(np.int64) + copy * 3600
            columns = {
                "event_time": pc.strftime(pa.array(times).cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%SZ"),
                "event_type": kinds.take(pa.array(draw.integers(0, 10, len(log)))),
                "product_id": pc.binary_join_element_wise(bought, str(copy % item_copies), "-"),
                "user_id": pc.binary_join_element_wise(users, str(copy), "-"),
            }
            pcsv.write_csv(pa.table(columns), file, pcsv.WriteOptions(include_header=copy == 0))


def run(command: Sequence[str], folder: Path) -> Used:
    """Raises RuntimeError with the output if the program fails."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEQREC_")}
    with (folder / "output").open("wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**environment, "PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError((folder / "output").read_text(errors="replace")[-2000:])
    return Used(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("seqrec bench shop", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=10_000_000, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for the files; default: the temporary folder")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
