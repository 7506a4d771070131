"""`seqrec bench`: one table of benchmarks, each loaded when it is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pkgutil import resolve_name

from seqrec.errors import InputError

BENCHMARKS: dict[str, tuple[str, str]] = {
    "encode": ("benchmarks.encode:main", "items and histories/s beside the authors' code and padded BERTs"),
    "search": ("benchmarks.search:main", "exact search beside a bare matrix product with top-k, and FAISS"),
    "serve": ("benchmarks.serve:main", "the service over HTTP beside a bare loop and others; latency against load"),
    "train": ("benchmarks.train:main", "training tokens/s beside the authors' formulation, real lengths"),
    "reindex": ("benchmarks.reindex:main", "items/s of the batch job beside bare encoding, 1,000 to 1,000,000 items"),
    "startup": ("benchmarks.startup:main", "seconds from the start of the process to /healthz and /readyz"),
    "memory": ("benchmarks.memory:main", "memory from 1,000 to 1,000,000 items, and of a second worker"),
    "threads": ("benchmarks.threads:main", "what a second busy process costs, with waiting threads asleep or spinning"),
    "cold-items": (
        "benchmarks.cold_items:main",
        "items posted with their text alone: does the next request find them?",
    ),
    "swap": ("benchmarks.swap:main", "requests while snapshots are swapped under them"),
    "freshness": ("benchmarks.freshness:main", "how soon one service finds what was posted to another"),
    "delta-memory": ("benchmarks.delta_memory:main", "memory of a worker after many adds, deletes and a reindex"),
    "retraining": ("benchmarks.retraining:main", "ten days of a shop: a frozen model, retrained nightly, and by hand"),
    "soak": ("benchmarks.soak:main", "random kills under load: nothing acknowledged may be lost"),
    "recbole-parity": ("benchmarks.recbole_parity:main", "our models beside RecBole's, with the same weights"),
    "recbole-trained": (
        "benchmarks.recbole_trained:main",
        "RecBole's models trained, to stand beside ours",
    ),
}
_OURS = ("seqrec", "training", "index", "service", "retraining", "benchmarks")


def bench(argv: Sequence[str]) -> None:
    """Raises InputError where a library is missing that only this benchmark needs."""
    parser = argparse.ArgumentParser(
        "seqrec bench",
        usage="seqrec bench NAME [OPTIONS]",
        description="Measure; `seqrec bench NAME --help` tells the options. Close what else works on the machine.",
        epilog="\n".join(f"  {name:<15} {text}" for name, (_, text) in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME", help="one of those below")
    name = parser.parse_args(argv[:1]).name
    try:
        main = resolve_name(BENCHMARKS[name][0])
        main(list(argv[1:]))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        raise InputError(
            f"it needs {error.name}, which is not installed; benchmarks/README.md says what each one needs", name
        ) from error
