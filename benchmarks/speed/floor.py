"""The floor of latency: `/recommend` over HTTP by one client and by many, and the processor time of each request.

    seqrec bench floor --home var                # 1 minute

A home of the demo has a model without a dense part and few items, so what is measured is everything but arithmetic. No
history comes twice. The load generator runs on the same cores; its processor time is a line of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.tools.http_load import Answers, closed_loop
from benchmarks.tools.report import Line, Report, add_output
from benchmarks.tools.service_process import Service
from index.snapshot.snapshot import SnapshotStore
from seqrec.runtime.arguments import Parser


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    report = Report("floor", f"/recommend, histories of {args.history} items", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-floor-") as name:
        for workers, clients in ((1, 1), (args.workers, args.clients)):
            settings = {"workers": str(workers), "threads": "1"} if workers > 1 else {}
            service = Service(args.home, Path(name) / "log", **settings).start()
            try:
                measure(report, service, f"{workers} workers, {clients} clients", clients, args)
            finally:
                service.kill()
    report.finish(args.json, args.picture)


def measure(report: Report, service: Service, part: str, clients: int, args: argparse.Namespace) -> None:
    """Adds the median of the rounds."""
    snapshot = service.request("GET", "/readyz").json()["snapshot"]
    item_ids = list(SnapshotStore(args.home).open(snapshot).item_ids)
    rng = np.random.default_rng(args.seed)
    answers: list[Answers] = []
    own, theirs = [], []
    for number in range(args.rounds + 1):
        bodies = [_body(rng, item_ids, args.history) for _ in range(args.requests)]
        mine, before = time.process_time(), processor_seconds(service)
        found = closed_loop(service.url, "/recommend", bodies, clients)
        if number:  # the first round warms up
            answers.append(found)
            own.append(1000 * (time.process_time() - mine) / len(bodies))
            theirs.append(1000 * (processor_seconds(service) - before) / len(found.seconds))
    for name, percent in (("p50", 50), ("p99", 99)):
        report.add(Line(part, name, 1000 * median(found.percentile(percent) for found in answers), "ms"))
    report.add(Line(part, "answered", median(found.per_s for found in answers), "/s"))
    report.add(Line(part, "processor time of an answer", median(theirs), "ms"))
    report.add(Line(part, "processor time of the load generator", median(own), "ms"))
    refused = sum(len(found.refused) for found in answers)
    report.notes.append(f"{part}: {refused} of {args.rounds * args.requests} requests were refused with 429")


def processor_seconds(service: Service) -> float:
    """User and system time of all workers."""
    times = [psutil.Process(pid).cpu_times() for pid in service.workers()]
    return float(sum(one.user + one.system for one in times))


def _body(rng: np.random.Generator, item_ids: Sequence[str], length: int) -> bytes:
    rows = rng.choice(len(item_ids), min(length, len(item_ids)), replace=False)
    return json.dumps({"history": [item_ids[row] for row in rows]}).encode()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench floor", description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, required=True, help="a home with a published snapshot; it is only read")
    parser.add_argument("--history", type=int, default=30, help="items of a history")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="that answer the clients, with one thread each")
    parser.add_argument("--requests", type=int, default=1000, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
