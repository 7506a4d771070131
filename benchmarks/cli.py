"""`seqrec bench`: the table of benchmarks. Each is imported when it is first used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pkgutil import resolve_name

from seqrec.errors import InputError

BENCHMARKS: dict[str, tuple[str, str]] = {
    "encode": ("benchmarks.encode:main", "items and histories/s, compared with the authors' code and padded BERTs"),
    "search": ("benchmarks.search:main", "exact search, compared with a matrix product with top-k and with FAISS"),
    "serve": (
        "benchmarks.serve:main",
        "throughput and latency over HTTP, compared with a bare loop and other services",
    ),
    "train": ("benchmarks.train:main", "training tokens/s, compared with the authors' formulation"),
    "reindex": (
        "benchmarks.reindex:main",
        "items/s of the batch job from 1,000 to 1,000,000 items, compared with encoding alone",
    ),
    "startup": ("benchmarks.startup:main", "seconds from the start of the process to /healthz and /readyz"),
    "hybrid": ("benchmarks.hybrid:main", "a hybrid, compared with its dense model alone, 20,000 to 1,000,000 items"),
    "events": ("benchmarks.events:main", "latency of recommendations while 100,000 events a minute arrive"),
    "memory": ("benchmarks.memory:main", "memory of a worker with 1,000 to 1,000,000 items, and of a second worker"),
    "threads": ("benchmarks.threads:main", "slowdown by another busy process, with waiting threads asleep or spinning"),
    "cold-items": (
        "benchmarks.cold_items:main",
        "whether new items, posted with their text alone, are found by the next request",
    ),
    "shop": ("benchmarks.shop:main", "time and memory from 10 million exported events to counts"),
    "swap": ("benchmarks.swap:main", "correctness and latency of requests while snapshots are swapped"),
    "freshness": ("benchmarks.freshness:main", "time until one service finds what was posted to another"),
    "delta-memory": ("benchmarks.delta_memory:main", "memory of a worker after many upserts, deletes and a reindex"),
    "retraining": (
        "benchmarks.retraining:main",
        "ten days of a shop: a frozen model, one retrained nightly, and one retrained by hand",
    ),
    "soak": ("benchmarks.soak:main", "random kills under load; checks that no acknowledged write is lost"),
    "recbole-parity": ("benchmarks.recbole_parity:main", "scores of our models and RecBole's with the same weights"),
    "recbole-trained": (
        "benchmarks.recbole_trained:main",
        "training of RecBole's models, for comparison with ours",
    ),
}
_OURS = ("seqrec", "training", "index", "service", "retraining", "benchmarks")


def bench(argv: Sequence[str]) -> None:
    """Raises InputError if a library that only this benchmark needs is not installed."""
    parser = argparse.ArgumentParser(
        "seqrec bench",
        usage="seqrec bench NAME [OPTIONS]",
        description="Run a benchmark. `seqrec bench NAME --help` lists its options. Stop other programs first.",
        epilog="\n".join(f"  {name:<15} {text}" for name, (_, text) in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME", help="a benchmark from the list below")
    name = parser.parse_args(argv[:1]).name
    try:
        main = resolve_name(BENCHMARKS[name][0])
        main(list(argv[1:]))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        raise InputError(
            f"it needs {error.name}, which is not installed; benchmarks/README.md lists the requirements", name
        ) from error
