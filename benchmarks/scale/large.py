"""Ten million items on one machine: build, restart, memory, and single searches with and without a filter.

    seqrec bench large                                  # 10,000,000 x 128: 40 minutes, 18 GB of disk, 10 GB of memory
    seqrec bench large --items 1000000 --home DIR       # DIR is kept, and used again

Vectors scatter around 20,000 kinds of items, some of which have a thousand times as many items as others. A query is an
item moved by as much as items of a kind differ. A snapshot is made and opened as a worker opens it, without HTTP and
without encoding. Recall@10 is against exact search over what the filter lets through.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.speed.memory import MB, Memory
from benchmarks.tools.report import Line, Report, add_output, log
from benchmarks.tools.service_process import environment, make_checkpoint
from benchmarks.tools.synthetic import kinds, make_home
from index.catalogue.open import open_catalogue
from index.snapshot.publication import published
from index.vectors.exact import ExactSearch, as_tensor
from index.vectors.factory import INDEX_FILE
from seqrec.metric import TIE, Metric
from seqrec.runtime.arguments import Parser
from seqrec.runtime.malloc import freeze_gc, limit_arenas, trim_heap
from service.live.filter_language import parse_filter
from service.live.filters import FilterMask, filter_mask
from service.live.loader import Loader
from service.live.search import SearchSpec, search
from service.live.state import LiveState, View
from service.settings import Settings

K = 10
KINDS = 20_000
SHELVES = 1_000
SHARES = (0.5, 0.1, 0.01, 0.001)
"""Of the items, that the filters let through."""


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    if args.opened is not None:
        measure(args.opened, args.queries)
        return
    report = Report("large", f"{args.items:,} items x {args.dim}, {args.index}, k {K}, single searches", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-large-") as name:
        home = args.home or Path(name)
        if not (home / "snapshots").is_dir():
            report.lines += build(home, args)
        command = [
            sys.executable,
            "-m",
            "benchmarks.scale.large",
            "--opened",
            str(home),
            "--queries",
            str(args.queries),
        ]
        done = subprocess.run(command, env=environment(home), stdout=subprocess.PIPE, text=True, check=True)
        for line in done.stdout.splitlines():
            part, who, value, unit = line.split("|")
            report.add(Line(part, who, float(value), unit))
    report.finish(args.json, args.picture)


def build(home: Path, args: argparse.Namespace) -> list[Line]:
    checkpoint = make_checkpoint(home / "model", dim=args.dim)
    begin = time.monotonic()
    make_home(home, checkpoint, args.items, args.index, kinds(args.dim, KINDS), lambda n: {"shelf": n * 7919 % SHELVES})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    return [
        Line("build", "items to a published snapshot", (time.monotonic() - begin) / 60, "minutes"),
        Line("build", "most memory, with mapped files", peak, "MB"),
    ]


def measure(home: Path, count: int) -> None:
    """Print lines of a process that has opened `home`: part|name|value|unit."""
    limit_arenas()
    freeze_gc()
    with closing(open_catalogue(home)) as catalogue:
        snapshot_id = published(catalogue)
        assert snapshot_id is not None
        begin = time.monotonic()
        state = Loader(Settings(home=home), catalogue)(snapshot_id, None)
        loaded = time.monotonic() - begin
        trim_heap()
        view, manifest = state.view, state.snapshot.manifest
        say(f"open {manifest.index} {manifest.search_params}", "seconds", loaded, "s")
        queries = near_items(view.snapshot.vectors, count)
        _measure_search(view, queries, None, "all items")
        used = Memory.of(os.getpid())
        codes = (view.snapshot.path / INDEX_FILE).stat().st_size / MB
        say("memory after it", "one process", used.pss, "MB")
        say("memory after it", "of which anonymous", used.anonymous, "MB")
        say("memory after it", "relative to the index", used.pss / codes, "times")
        begin = time.monotonic()
        passed(state, 1.0)
        say("first filter", "reads the attribute", time.monotonic() - begin, "s")
        for share in SHARES:
            _measure_search(view, queries, passed(state, share), f"{share:.1%} pass")
        say("memory after all", "one process", Memory.of(os.getpid()).pss, "MB")


def passed(state: LiveState, share: float) -> FilterMask:
    wanted = parse_filter({"shelf": {"lt": round(share * SHELVES)}}, "filter", 10)
    return filter_mask(wanted, state.filters, state.view.delta, state.view.length, None, lambda: None)


def near_items(vectors: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """[count, dim], of length 1."""
    rng = np.random.default_rng(1)
    chosen = vectors[np.sort(rng.choice(len(vectors), count, replace=False))]
    moved = chosen + rng.standard_normal(chosen.shape, dtype=np.float32) * 0.5 / np.sqrt(chosen.shape[1])
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def _measure_search(view: View, queries: npt.NDArray[np.float32], only: FilterMask | None, part: str) -> None:
    spec = SearchSpec(K, passed=only)
    search(view, queries[:1], [spec])
    times, found = [], []
    for query in queries:
        begin = time.perf_counter()
        (hits,) = search(view, query[None], [spec])
        times.append(1000 * (time.perf_counter() - begin))
        found.append([hit.score for hit in hits])
    metric = Metric(view.snapshot.manifest.metric)
    exact = ExactSearch(as_tensor(view.snapshot.vectors), metric)
    _, best = exact.search(queries, K, None if only is None else [only.snapshot] * len(queries))
    recall = np.mean([np.mean(np.array(own) >= scores[-1] - TIE) for own, scores in zip(found, best, strict=True)])
    say(part, "p50", float(np.percentile(times, 50)), "ms")
    say(part, "p99", float(np.percentile(times, 99)), "ms")
    say(part, "recall@10", float(recall), "")


def say(part: str, name: str, value: float, unit: str) -> None:
    log(f"{part}: {name} {value:,.4g} {unit}")
    print(f"{part}|{name}|{value}|{unit}", flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench large", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--index", default="auto", help="kind of index (default: auto)")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--home", type=Path, metavar="DIR", help="kept; used again where it exists")
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
