"""What rules cost: requests with a filter, two boosts, diversity and pins, and bare ones, in turns in one process.

    seqrec bench rules                            # 200,000 items; 3 minutes, 1 GB of disk

From a request to its hits, by the clock and in processor time. The model is the hybrid of `seqrec bench hybrid`;
filters are looked up once before, as in a service that has run for a while.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tools.hybrid_home import make_home, make_world, save_models
from benchmarks.tools.report import Line, Report, Spread, add_output
from index.snapshot.snapshot import SnapshotStore
from seqrec.encoder import load_model
from seqrec.runtime.arguments import Parser
from service.deadline import Deadline
from service.engine.execution import execute
from service.engine.plan import plan_recommendations
from service.engine.requests import RecommendRequest
from service.engine.vector_cache import VectorCache
from service.live.state import LiveState, Towers, View
from service.rules.body import StoredRulesBody

WARM = 10
RULES = {
    "filter": {"brand": {"not": ["brand0", "brand1"]}},
    "boost": [
        {"filter": {"brand": [f"brand{number}" for number in range(2, 40)]}, "multiply": 1.3},
        {"filter": {"brand": [f"brand{number}" for number in range(100, 200)]}, "add": -0.1},
    ],
    "diversity": 0.3,
    "pin": [{"position": 3, "item_ids": ["item-00000007"]}, {"every": 5, "filter": {"brand": ["brand5"]}}],
}


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    report = Report("rules", "requests with rules, compared with bare ones", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-rules-") as temporary:
        for count in args.sizes:
            folder = (args.folder or Path(temporary)) / str(count)
            world = make_world(count)
            if not folder.exists():
                make_home(folder / "home-hybrid", save_models(folder, world)[1], world, log=False)
            store = SnapshotStore(folder / "home-hybrid")
            view = LiveState(store.open(store.list()[0]), Towers(load_model(folder / "hybrid", "cpu"))).view
            users = np.random.default_rng(1).permutation(len(world.offsets) - 1)[: args.requests + WARM].tolist()
            clock, cpu = in_turns(view, [world.history(user) for user in users])
            for part, times in ((f"{count:,} items", clock), (f"{count:,} items, processor time", cpu)):
                _add(report, part, times)
    report.notes.append("wanted: with rules at most 2 times a bare request")
    report.finish(args.json, args.picture)


def in_turns(view: View, histories: Sequence[Sequence[str]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds by the clock and of processor time, of each history but the first."""
    rules = StoredRulesBody.model_validate(RULES).values("", 10_000)
    clock: dict[str, list[float]] = {"bare": [], "with rules": []}
    cpu: dict[str, list[float]] = {"bare": [], "with rules": []}
    for number, history in enumerate(histories):
        for name in ("bare", "with rules") if number % 2 else ("with rules", "bare"):
            request = RecommendRequest(history=history, **(rules if name == "with rules" else {}))
            began, used = time.perf_counter(), time.process_time()
            execute(plan_recommendations(view, [request], {}, 50, VectorCache(0), Deadline(60)))
            if number >= WARM:
                clock[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - used)
    return clock, cpu


def _add(report: Report, part: str, times: dict[str, list[float]]) -> None:
    for name, seconds in times.items():
        ratio = None
        if name != "bare":
            ratio = Spread.of(sorted(own / bare for own, bare in zip(seconds, times["bare"], strict=True)))
        report.add(Line(part, name, 1000 * float(np.median(seconds)), "ms", ratio, "bare" if ratio else ""))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench rules", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where homes are made and stay; those that are there are used")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
