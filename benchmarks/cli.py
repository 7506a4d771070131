"""`seqrec bench`: the table of benchmarks, each with its module here. It is imported when it is first used."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser

BENCHMARKS: dict[str, tuple[str, str]] = {
    "encode": (
        "speed.encode",
        "items and histories/s, compared with the authors' code and padded BERTs",
    ),
    "search": (
        "speed.search",
        "exact search, compared with a matrix product with top-k and with FAISS",
    ),
    "serve": (
        "speed.serve",
        "throughput and latency over HTTP, compared with a bare loop and other services",
    ),
    "train": ("speed.train", "training tokens/s, compared with the authors' formulation"),
    "reindex": (
        "speed.reindex",
        "items/s of the batch job from 1,000 to 1,000,000 items, compared with encoding alone",
    ),
    "startup": ("speed.startup", "seconds from the start of the process to /healthz and /readyz"),
    "hybrid": (
        "speed.hybrid",
        "a hybrid, compared with its dense model alone, 20,000 to 1,000,000 items",
    ),
    "rules": ("speed.rules", "what boosts, pins and diversity cost, compared with bare requests"),
    "reports": (
        "speed.reports",
        "reports over 10 million impressions and outcomes, a user's deletion, and forgetting a day",
    ),
    "events": ("behaviour.events", "latency of recommendations while 100,000 events a minute arrive"),
    "memory": (
        "speed.memory",
        "memory of a worker with 1,000 to 1,000,000 items, and of a second worker",
    ),
    "floor": ("speed.floor", "what a request costs besides arithmetic, for one client and for 64"),
    "threads": (
        "speed.threads",
        "slowdown by another busy process, with waiting threads asleep or spinning",
    ),
    "cold-items": (
        "behaviour.cold_items",
        "whether new items, posted with their text alone, are found by the next request",
    ),
    "large": ("scale.large", "ten million items: build, restart, memory, and searches with and without a filter"),
    "shop": ("scale.shop", "time and memory from 10 million exported events to counts"),
    "swap": ("behaviour.swap", "correctness and latency of requests while snapshots are swapped"),
    "freshness": ("behaviour.freshness", "time until one service finds what was posted to another"),
    "delta-memory": (
        "behaviour.delta_memory",
        "memory of a worker after many upserts, deletes and a reindex",
    ),
    "retraining": (
        "quality.retraining",
        "ten days of a shop: a frozen model, one retrained nightly, and one retrained by hand",
    ),
    "overload": (
        "behaviour.overload",
        "four times the load that a service can answer, and a greedy API key",
    ),
    "fuzz": ("behaviour.fuzz", "broken and hostile requests; checks that nothing fails, dies or grows"),
    "soak": ("behaviour.soak", "random kills under load; checks that no acknowledged write is lost"),
    "recbole-parity": (
        "quality.recbole_parity",
        "scores of our models and RecBole's with the same weights",
    ),
    "recbole-trained": (
        "quality.recbole_trained",
        "training of RecBole's models, for comparison with ours",
    ),
}
_OURS = ("seqrec", "training", "index", "service", "retraining", "benchmarks")


def main_of(name: str) -> Callable[[Sequence[str]], None]:
    """The function that runs a benchmark with its options."""
    main: Callable[[Sequence[str]], None] = resolve_name(f"benchmarks.{BENCHMARKS[name][0]}:main")
    return main


def bench(argv: Sequence[str]) -> None:
    """Raises InputError if a library that only this benchmark needs is not installed."""
    parser = Parser(
        "seqrec bench",
        usage="seqrec bench NAME [OPTIONS]",
        description="Run a benchmark. `seqrec bench NAME --help` lists its options. Stop other programs first.",
        epilog="\n".join(f"  {name:<15} {text}" for name, (_, text) in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME", help="a benchmark from the list below")
    name = parser.parse_args(argv[:1]).name
    try:
        main_of(name)(list(argv[1:]))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        raise InputError(
            f"it needs {error.name}, which is not installed; benchmarks/README.md lists the requirements", name
        ) from error
