"""How fast exact search is, beside a bare matrix product with top-k, and beside FAISS as it comes.

The bare product is `(queries @ vectors.T).topk(k)` in torch: nobody can do without its multiplications, and it writes
all scores to memory. FAISS is the search under `IndexFlatIP`, at its default threshold for BLAS. All take turns in one
process, on the same vectors, and only ratios of turns that stand side by side are quoted. Answers are compared.

python -m benchmarks.search --help
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.turns import BUSY, Others
from index.exact import as_tensor
from index.flat import FlatIndex
from seqrec.metric import Metric

FAISS_DEFAULT = 128_000
"""Queries times dim from which FAISS uses BLAS, as it comes."""
SHARES = (0.5, 0.01)
"""Of the rows, those that a filter lets through in the masked rows of the table."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """One line of the table: medians over the rounds; a ratio is another's time over ours, round by round."""

    vectors: int
    batch: int
    allowed: float  # share of rows; 1.0 without a mask
    ours_ms: float
    ratios: dict[str, list[float]]  # of each other: median, least, most


def unit_vectors(n: int, dim: int, seed: int) -> Vectors:
    """Random directions, made block by block."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((n, dim), np.float32)
    for begin in range(0, n, 65_536):
        part = drawn[begin : begin + 65_536]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return drawn


def faiss_search(vectors: Vectors, queries: Vectors, k: int) -> Vectors:
    """The best scores [b, k], by what `IndexFlatIP.search` calls."""
    ours, faiss.cvar.distance_compute_blas_threshold = faiss.cvar.distance_compute_blas_threshold, FAISS_DEFAULT
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    (n, dim), pointer = vectors.shape, faiss.swig_ptr
    faiss.knn_inner_product(
        pointer(queries), pointer(vectors), dim, len(queries), n, k, pointer(scores), pointer(rows), None
    )
    faiss.cvar.distance_compute_blas_threshold = ours
    return scores


def measure(vectors: Vectors, batch: int, share: float, k: int, rounds: int) -> Result:
    queries = unit_vectors(batch, vectors.shape[1], seed=1)
    index, matrix, asked = FlatIndex(vectors, Metric.COSINE), as_tensor(vectors), torch.from_numpy(queries)
    # One mask for each query, as different filters are.
    drawn = np.random.default_rng(2)
    masks = None if share == 1 else [drawn.random(len(vectors)) < share for _ in range(batch)]
    refused = None if masks is None else torch.from_numpy(~np.stack(masks))

    def ours() -> Vectors:
        return index.search(queries, k, masks)[1]

    def bare() -> Vectors:
        scores = asked @ matrix.T
        if refused is not None:
            scores.masked_fill_(refused, -torch.inf)
        best: Vectors = scores.topk(k).values.numpy()
        return best

    sides: dict[str, Callable[[], Vectors]] = {"ours": ours, "bare": bare}
    if masks is None:
        sides["faiss"] = lambda: faiss_search(vectors, queries, k)
    answers = {name: side() for name, side in sides.items()}  # also the first round, which is not timed
    for name, scores in answers.items():
        if not np.allclose(scores, answers["bare"], atol=1e-5):
            sys.exit(f"{name} found other scores than the bare product, {len(vectors)} vectors, batch {batch}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            begin = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - begin)
    ratios = {}
    for name in sides.keys() - {"ours"}:
        each = [theirs / own for theirs, own in zip(times[name], times["ours"], strict=True)]
        ratios[name] = [statistics.median(each), min(each), max(each)]
    return Result(len(vectors), batch, share, 1000 * statistics.median(times["ours"]), ratios)


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    others = Others()
    results = []
    print(f"{args.dim} dimensions, k {args.k}, {args.threads} threads; other's time over ours: median (min - max)")
    print(f"{'vectors':>9} {'batch':>5} {'allowed':>7} {'ours ms':>9}   {'bare product':<22} {'FAISS as it comes':<22}")
    for n in args.sizes:
        vectors = unit_vectors(n, args.dim, seed=0)
        for batch in args.batches:
            for share in (1.0, *SHARES):
                result = measure(vectors, batch, share, args.k, args.rounds)
                results.append(result)
                print(f"{n:>9,} {batch:>5} {share:>7.0%} {result.ours_ms:>9.2f}   ", end="")
                for name in ("bare", "faiss"):
                    if name in result.ratios:
                        median, least, most = result.ratios[name]
                        print(f"{median:>5.2f} ({least:.2f} - {most:.2f})     ", end="")
                print(flush=True)
    cores = others.cores()
    if cores > BUSY:
        print(
            f"\nWARNING: other processes took {cores:.2f} cores during the run: do not trust these numbers.",
            file=sys.stderr,
        )
    if args.json:
        record: dict[str, Any] = {
            "benchmark": "search",
            "dim": args.dim,
            "k": args.k,
            "rounds": args.rounds,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "device": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "cores_taken_by_others": cores,
            "results": [asdict(result) for result in results],
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description="Exact search beside a bare product with top-k, and FAISS."
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000, 1_000_000], help="vectors")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64], help="queries at once")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
