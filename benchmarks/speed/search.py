"""Speed of exact search, compared with a plain matrix product with top-k, and with FAISS at its defaults.

The product is `(queries @ vectors.T).topk(k)` in torch: exact search cannot avoid its multiplications, and it writes
all scores to memory. FAISS is the search that `IndexFlatIP` uses, with its default threshold for BLAS. All take turns
in one process, on the same vectors; ratios are of neighbouring turns. The answers are compared. With --int8, so is the
index of one byte a number, which is exact too.

seqrec bench search --help
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.tools.report import Line, Report, Spread, add_output
from benchmarks.tools.turns import take_turns
from index.vectors.exact import as_tensor
from index.vectors.flat import FlatIndex
from index.vectors.quantized import QuantizedIndex, build_quantized, open_quantized
from index.vectors.recall import RecallSample
from seqrec.metric import Metric
from seqrec.runtime.arguments import Parser

FAISS_DEFAULT = 128_000
"""Queries times dim from which FAISS uses BLAS by default."""
SHARES = (0.5, 0.01)
"""Share of the rows that the filters let through."""

NAMES = {"bare": "bare product", "faiss": "FAISS at its defaults"}

Vectors = npt.NDArray[np.float32]


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
    """The best scores [b, k], by the function that `IndexFlatIP.search` calls."""
    ours, faiss.cvar.distance_compute_blas_threshold = faiss.cvar.distance_compute_blas_threshold, FAISS_DEFAULT
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    (n, dim), pointer = vectors.shape, faiss.swig_ptr
    faiss.knn_inner_product(
        pointer(queries), pointer(vectors), dim, len(queries), n, k, pointer(scores), pointer(rows), None
    )
    faiss.cvar.distance_compute_blas_threshold = ours
    return scores


def measure(
    vectors: Vectors, batch: int, share: float, k: int, rounds: int, int8: QuantizedIndex | None = None
) -> list[Line]:
    """The time of each in ms, and how many times as fast as the others ours is, and int8 as ours."""
    queries = unit_vectors(batch, vectors.shape[1], seed=1)
    index, matrix, asked = FlatIndex(vectors, Metric.COSINE), as_tensor(vectors), torch.from_numpy(queries)
    # A mask per query, as with different filters.
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
    if masks is None and int8 is not None:
        sides["int8"] = lambda: int8.search(queries, k)[1]
    answers = {name: side() for name, side in sides.items()}  # this is also the first round, which is not timed
    for name, scores in answers.items():
        if not np.allclose(scores, answers["bare"], atol=1e-5):
            sys.exit(
                f"{name} found scores that differ from those of the bare product, {len(vectors)} vectors, batch {batch}"
            )
    part = f"{len(vectors):,} x {vectors.shape[1]}, batch {batch}, {share:.0%} allowed"
    turns = take_turns(part, sides, rounds)
    lines = []
    if "int8" in sides:
        ratio = Spread.of(turns.ratios("int8", "ours"))
        lines.append(Line(part, "int8", 1000 * turns.median("int8"), "ms", ratio, "ours"))
    for name in [other for other in sides if other in NAMES]:
        ratio = Spread.of(turns.ratios("ours", name))
        lines.append(Line(part, NAMES[name], 1000 * turns.median(name), "ms"))
        lines.append(Line(part, "ours", 1000 * turns.median("ours"), "ms", ratio, NAMES[name]))
    return lines


def quantized(vectors: Vectors) -> QuantizedIndex:
    with tempfile.TemporaryDirectory(prefix="seqrec-search-") as folder:
        path = Path(folder) / "int8"
        params, _ = build_quantized(path, vectors, Metric.COSINE, RecallSample(vectors, Metric.COSINE))
        return open_quantized(path, vectors, Metric.COSINE, params)


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    title = f"{args.dim} dimensions, k {args.k}, {args.threads} threads; a ratio is how many times as fast"
    report = Report("search", title, vars(args) | {"faiss": faiss.__version__})
    for n in args.sizes:
        vectors = unit_vectors(n, args.dim, seed=0)
        int8 = quantized(vectors) if args.int8 else None
        for batch in args.batches:
            for share in (1.0, *SHARES):
                report.lines += measure(vectors, batch, share, args.k, args.rounds, int8)
    report.finish(args.json, args.picture)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench search", description="Compare exact search with a matrix product and FAISS.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000, 1_000_000], help="vectors")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64], help="queries per search")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--int8", action="store_true", help="measure the index int8 too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
