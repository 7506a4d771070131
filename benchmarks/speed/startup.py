"""Seconds from the start of `seqrec serve` to its first answers: /healthz (alive) and /readyz (ready to recommend).

    seqrec bench startup                     # 1,000, 100,000 and 1,000,000 items x 384; 4 minutes, 3 GB of disk

A Recformer of random weights is loaded and warmed up with a snapshot of random vectors. The first start on a host
hashes the snapshot's files; later starts do not. The files are in the page cache in both cases, since they were just
written.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.speed.serve import DATA, World, make_model
from benchmarks.tools.report import Line, Report, Spread, add_output, log
from benchmarks.tools.service_process import START_SECONDS, environment
from benchmarks.tools.synthetic import make_home
from seqrec.data.items import read_items
from seqrec.runtime.arguments import Parser

PATHS = ("/healthz", "/readyz")


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    title = (
        f"start of a service, Recformer {args.layers} x {args.hidden}, {args.workers} workers, {args.threads} threads"
    )
    report = Report("startup", title, vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-startup-") as name:
        folder = Path(name)
        checkpoint = make_model(folder / "model", World(read_items(args.items), []), args)
        starts = {}
        for count in args.sizes:
            log(f"writing {count:,} items")
            home = make_home(folder / f"home-{count}", checkpoint, count)
            opened = [seconds_to_answers(home, folder / "log", args.threads, args.workers) for _ in range(args.rounds)]
            hashed = []
            for _ in range(args.rounds):
                shutil.rmtree(home / "snapshots" / ".verified")
                hashed.append(seconds_to_answers(home, folder / "log", args.threads, args.workers))
            starts[count] = {"opened before": opened, "first on this host": hashed}
            shutil.rmtree(home)
    add_lines(report, starts)
    report.finish(args.json, args.picture)


def add_lines(report: Report, starts: dict[int, dict[str, list[dict[str, float]]]]) -> None:
    """`starts` by the number of items, then by whether the host had opened the snapshot. Ratios to the smallest."""
    smallest = next(iter(starts))
    for count, of_count in starts.items():
        for known, of_known in of_count.items():
            for path in PATHS:
                took = [start[path] for start in of_known]
                base = median(start[path] for start in starts[smallest][known])
                ratio = None if count == smallest else Spread.of([seconds / base for seconds in took])
                against = f"{smallest:,} items" if ratio else ""
                report.add(Line(f"{count:,} items", f"{path}, {known}", median(took), "s", ratio, against))


def seconds_to_answers(home: Path, log: Path, threads: int, workers: int) -> dict[str, float]:
    """By path, the time of the first answer with status 200. Raises RuntimeError with the service's log on failure."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {"port": str(port), "threads": str(threads), "workers": str(workers)}
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "seqrec", "serve"], env=environment(home, **settings), stdout=output, stderr=output
        )
    try:
        found = {}
        for path in PATHS:
            while not _answers(port, path):
                if process.poll() is not None or time.perf_counter() - begin > START_SECONDS:
                    said = log.read_text(encoding="utf-8")
                    raise RuntimeError(f"the service does not answer {path}:\n{said[-4000:]}")
                time.sleep(0.01)
            found[path] = time.perf_counter() - begin
        return found
    finally:
        process.terminate()
        process.wait()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench startup", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="items")
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="items to train the tokenizer on")
    parser.add_argument(
        "--attributes", default="title,brand,category", help="attributes to read as text, in this order"
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384, help="a multiple of 32, the size of a head")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each worker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
