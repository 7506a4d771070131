"""Events that pour into a running service while it answers: what that costs `/recommend`.

    seqrec bench events                       # 100,000 events a minute into a hybrid of 20,000 items; 4 minutes

One service of one worker. Phases without and with events take turns; recommendations come at random times, at the same
rate in both (open loop). Events come in calls of 100, each of a user chosen at random. At the end, the counts of the
service are compared with those that were acknowledged.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks.tools.http_load import open_loop
from benchmarks.tools.hybrid_home import World, item_id, make_home, make_world, save_models
from benchmarks.tools.report import Line, Report, Spread, add_output
from benchmarks.tools.service_process import Service
from seqrec.runtime.arguments import Parser

A_CALL = 100
HOT = 900
"""Items that events are of: one answer of /popular has all of them."""
WANTED = 2.0


@dataclass
class Poster:
    """Posts events at a rate, on a thread, until it is stopped."""

    url: str
    per_minute: int
    items: int
    acknowledged: int = 0
    late: float = 0.0  # seconds behind at the end
    errors: list[str] = field(default_factory=list)

    def run(self, seconds: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        begin = time.perf_counter()
        calls = round(self.per_minute * seconds / 60 / A_CALL)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for call in range(calls):
                due = begin + call * seconds / calls
                time.sleep(max(0.0, due - time.perf_counter()))
                users, rows = rng.integers(10_000, size=A_CALL), rng.integers(self.items, size=A_CALL)
                events = [
                    {"user_id": f"visitor-{user}", "item_id": item_id(row)}
                    for user, row in zip(users.tolist(), rows.tolist(), strict=True)
                ]
                reply = client.post("/events", json={"events": events})
                if reply.status_code != 200:
                    self.errors.append(f"{reply.status_code} {reply.text[:200]}")
                    return
                self.acknowledged += reply.json()["stored"]
                self.late = max(0.0, time.perf_counter() - due - seconds / calls)


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    report = Report("events", f"{args.per_minute:,} events a minute, {args.items:,} items", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-events-") as temporary:
        folder = (args.folder or Path(temporary)) / str(args.items)
        world = make_world(args.items)
        home = folder / "home-hybrid"
        if not folder.exists():
            make_home(home, save_models(folder, world)[1], world)
        service = Service(home, folder / "events.log", cache_bytes="0")
        try:
            service.start(threads=str(args.threads))
            measure(report, service, world, args)
        finally:
            service.kill()
    report.notes.append(f"wanted: p99 with events at most {WANTED} times that without")
    report.finish(args.json, args.picture)


def measure(report: Report, service: Service, world: World, args: argparse.Namespace) -> None:
    before = _counted(service.url)
    poster = Poster(service.url, args.per_minute, min(HOT, world.count))
    process = psutil.Process(service.workers()[0])
    latencies: dict[bool, list[list[float]]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    for phase in range(2 * args.rounds):
        loaded = phase % 2 == 1
        users = np.random.default_rng(phase).integers(len(world.offsets) - 1, size=1000).tolist()
        bodies = [json.dumps({"history": world.history(user), "k": 10}).encode() for user in users]
        thread = threading.Thread(target=poster.run, args=(args.seconds, phase))
        began = sum(process.cpu_times()[:2])
        if loaded:
            thread.start()
        answers = open_loop(service.url, "/recommend", bodies, args.per_s, args.seconds, seed=phase)
        if loaded:
            thread.join()
        cpu[loaded].append(sum(process.cpu_times()[:2]) - began)
        if set(answers.statuses) != {200} or poster.errors:
            raise RuntimeError(f"answered with {dict(answers.statuses)}; {poster.errors[:1]}")
        latencies[loaded].append(answers.seconds)
    for percent in (50, 99):
        quiet, busy = ([1000 * float(np.percentile(s, percent)) for s in latencies[one]] for one in (False, True))
        report.add(Line("/recommend", f"without events, p{percent}", float(np.median(quiet)), "ms"))
        ratios = Spread.of([one / other for one, other in zip(busy, quiet, strict=True)])
        report.add(Line("/recommend", f"with events, p{percent}", float(np.median(busy)), "ms", ratios, "without"))
    spent = (sum(cpu[True]) - sum(cpu[False])) / max(1, poster.acknowledged)
    report.add(Line("events", "acknowledged", poster.acknowledged, ""))
    report.add(Line("events", "the poster was behind at the end by", poster.late, "s"))
    report.add(Line("events", "processor time of the service, 1,000 events", 1e6 * spent, "ms"))
    counted = _counted(service.url) - before
    report.add(Line("events", "counted of those acknowledged", 100 * counted / max(1, poster.acknowledged), "%"))


def _counted(url: str) -> float:
    """Events of the last day: nothing else was posted."""
    answer = httpx.post(f"{url}/popular", json={"window": "1d", "k": 1000}, timeout=60)
    return float(sum(item["score"] for item in answer.raise_for_status().json()["items"]))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("seqrec bench events", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--per-minute", type=int, default=100_000, help="events")
    parser.add_argument("--per-s", type=float, default=20.0, help="recommendations")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3, help="phases of each kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the home is made and stays; one that is there is used")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
