"""A hybrid compared with its dense model alone: the same items, vectors and events, request by request in turns.

    seqrec bench hybrid                                   # 20,000 and 200,000 items exact; 5 minutes
    seqrec bench hybrid --sizes --approximate 1000000     # and a million, approximate; 10 minutes, 3 GB of disk

Exact: `POST /recommend` over HTTP by two services, one client, each history once. All: from a history to its hits in
one process, both from one snapshot, by the clock and in processor time, which a busy machine does not change as much;
which share of the exact best 10 the hybrid finds, and of their NDCG@10 for the newest item of each history, which is
left out of it. A compact Recformer of random weights (2 x 128) encodes the histories.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tools.http_load import closed_loop
from benchmarks.tools.hybrid_home import World, make_home, make_world, save_models
from benchmarks.tools.report import Line, Report, Spread, add_output
from benchmarks.tools.service_process import Service
from index.snapshot.snapshot import SnapshotStore
from index.vectors.factory import FLAT
from seqrec.encoder import load_model
from seqrec.models.hybrid import without_terms
from seqrec.runtime.arguments import Parser
from seqrec.text.item_text import TokenizedHistory, TokenizedItem
from service.live.hybrid import HybridSearch, sparse_query
from service.live.search import SearchSpec, best_hits, leave_out, search
from service.live.state import LiveState, Towers, View

K = 10
AT_ONCE = 10
"""Requests of a turn: a service is asked so many times, then the other one."""
WANTED, WANTED_P99 = 1.25, 2.0

Times = dict[str, list[float]]


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    report = Report("hybrid", f"a hybrid compared with its dense model, {args.threads} threads", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-hybrid-") as temporary:
        folder = args.folder or Path(temporary)
        for count in args.sizes:
            exact(report, folder / str(count), make_world(count), args)
        for count in args.approximate:
            approximate(report, folder / f"{count}-approximate", make_world(count), args)
    report.notes.append(f"wanted: median of the exact ones at most {WANTED}, p99 of the approximate one {WANTED_P99}")
    report.finish(args.json, args.picture)


def exact(report: Report, folder: Path, world: World, args: argparse.Namespace) -> None:
    homes = {name: folder / f"home-{name}" for name in ("dense", "hybrid")}
    if not folder.exists():
        for home, checkpoint in zip(homes.values(), save_models(folder, world), strict=True):
            make_home(home, checkpoint, world)
    if args.http:
        _add(report, f"{world.count:,} items, exact, POST /recommend", served(homes, folder, world, args))
    without_http(report, folder, world, args.requests)


def served(homes: dict[str, Path], folder: Path, world: World, args: argparse.Namespace) -> Times:
    services = {name: Service(home, folder / f"{name}.log", cache_bytes="0") for name, home in homes.items()}
    try:
        for service in services.values():
            service.start(threads=str(args.threads))
        return over_http({name: service.url for name, service in services.items()}, world, args.requests)
    finally:
        for service in services.values():
            service.kill()


def over_http(urls: dict[str, str], world: World, requests: int) -> Times:
    rng = np.random.default_rng(1)
    users = rng.permutation(len(world.offsets) - 1)[: requests + AT_ONCE].tolist()
    bodies = [json.dumps({"history": world.history(user), "k": K}).encode() for user in users]
    times: Times = {name: [] for name in urls}
    for begin in range(0, len(bodies), AT_ONCE):
        turn = list(urls) if begin // AT_ONCE % 2 else list(reversed(urls))
        for name in turn:
            answers = closed_loop(urls[name], "/recommend", bodies[begin : begin + AT_ONCE], 1)
            if set(answers.statuses) != {200}:
                raise RuntimeError(f"POST /recommend was answered with {dict(answers.statuses)}")
            if begin:  # the first ones warm
                times[name] += answers.seconds
    return times


def approximate(report: Report, folder: Path, world: World, args: argparse.Namespace) -> None:
    if not folder.exists():
        make_home(folder / "home-hybrid", save_models(folder, world)[1], world, args.index, log=False)
    without_http(report, folder, world, args.requests)


def without_http(report: Report, folder: Path, world: World, requests: int) -> None:
    """From a history to its hits, both from the hybrid's snapshot."""
    store = SnapshotStore(folder / "home-hybrid")
    view = LiveState(store.open(store.list()[0]), Towers(load_model(folder / "hybrid", "cpu"))).view
    times, cpu, found = in_process(view, Towers(load_model(folder / "dense", "cpu")), world, requests)
    manifest = view.snapshot.manifest
    index = "exact" if manifest.index == FLAT else f"{manifest.index} {manifest.search_params}"
    part = f"{world.count:,} items, {index}, in process"
    _add(report, part, times)
    _add(report, f"{part}, processor time", cpu)
    overlap, ndcg, exact = np.array(found).mean(axis=0).tolist()
    report.add(Line(part, "of the exact best 10 found", 100 * overlap, "%"))
    report.add(Line(part, "NDCG@10 of the exact best", exact, ""))
    if exact:
        report.add(Line(part, "of it kept", 100 * ndcg / exact, "%"))


Entries = list[tuple[TokenizedItem, int | None]]


def in_process(
    view: View, alone: Towers, world: World, requests: int
) -> tuple[Times, Times, list[tuple[float, float, float]]]:
    """Seconds by the clock, seconds of processor time, and of each request which share of the exact best was found, its
    NDCG@10, and the exact one."""
    rng = np.random.default_rng(1)
    times: Times = {"dense": [], "hybrid": []}
    cpu: Times = {"dense": [], "hybrid": []}
    quality = []
    for number, user in enumerate(rng.permutation(len(world.offsets) - 1)[: requests + AT_ONCE].tolist()):
        *positions, target = [position for i in world.history(user) if (position := view.position_of(i)) is not None]
        entries: Entries = [(view.tokens(position), position) for position in positions]
        spec = SearchSpec(K, frozenset(positions))
        for name in ("dense", "hybrid") if number % 2 else ("hybrid", "dense"):
            begin = _clocks()
            if name == "dense":
                search(view, alone.encode_histories([_plain(entries)]), [spec])
            else:
                found = by_hybrid(view, entries)
                hits = found.search(spec)
            if number >= AT_ONCE:  # the first ones warm
                for clock, (then, now) in zip((times, cpu), zip(begin, _clocks(), strict=True), strict=True):
                    clock[name].append(now - then)
        exact, mine = _exact(found, spec), [hit.position for hit in hits]
        quality.append((len(set(exact) & set(mine)) / max(1, len(exact)), _ndcg(mine, target), _ndcg(exact, target)))
    return times, cpu, quality


def _ndcg(positions: Sequence[int], target: int) -> float:
    return 1 / math.log2(2 + positions.index(target)) if target in positions else 0.0


def _clocks() -> tuple[float, float]:
    """Other processes take time from the first one only."""
    return time.perf_counter(), time.process_time()


def by_hybrid(view: View, entries: Entries) -> HybridSearch:
    settings, sparse = view.towers.encoder.hybrid, sparse_query(view, entries)
    assert settings is not None
    assert sparse is not None
    [vector] = view.towers.encode_histories([TokenizedHistory([tokens for tokens, _ in entries])])
    return HybridSearch(view, settings, vector, sparse)


def _plain(entries: Entries) -> TokenizedHistory:
    return TokenizedHistory([without_terms(tokens) for tokens, _ in entries])


def _exact(found: HybridSearch, spec: SearchSpec) -> list[int]:
    scores = found.all_scores()
    leave_out(found.view, spec, scores)
    return [hit.position for hit in best_hits(found.view, scores, spec.k)]


def _add(report: Report, part: str, times: Times) -> None:
    for name in times:
        for what, percent in (("p50", 50), ("p99", 99)):
            mine = 1000 * float(np.percentile(times[name], percent))
            ratio = None
            if name != "dense":
                ratio = Spread.of([mine / (1000 * float(np.percentile(times["dense"], percent)))])
            report.add(Line(part, f"{name}, {what}", mine, "ms", ratio, "dense" if ratio else ""))
    pairs = [hybrid / dense for hybrid, dense in zip(times["hybrid"], times["dense"], strict=True)]
    report.add(
        Line(
            part,
            "hybrid, request by request",
            1000 * float(np.median(times["hybrid"])),
            "ms",
            Spread(float(np.median(pairs)), float(np.percentile(pairs, 10)), float(np.percentile(pairs, 90))),
            "dense, p10 - p90",
        )
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("seqrec bench hybrid", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[20_000, 200_000], help="searched exactly")
    parser.add_argument("--approximate", type=int, nargs="*", default=[], help="searched approximately")
    parser.add_argument("--index", default="IVF1024,Flat", help="of the approximate ones")
    parser.add_argument("--no-http", dest="http", action="store_false", help="measure in one process only")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where homes are made and stay; those that are there are used")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
