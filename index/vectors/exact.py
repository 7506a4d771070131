"""Exact search by matrix products in torch, block by block: the fallback of every index.

The scores of a block stay in the processor's cache, where they are merged with the best k so far. So memory grows
neither with the number of vectors nor with k, and the vectors are read once, in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from index.vectors.base import Allowed, Rows, Vectors, nothing
from seqrec.metric import Metric

BLOCK_SCORES = {"cpu": 1 << 17, "cuda": 1 << 25}
"""Scores per block. On a CPU they should fit in the second-level cache: with 2 ** 20 a batch of 64 took 1.2 times as
long."""
_TOPK_ROWS = 64
"""Times k: in a block of fewer rows torch.topk sorts, which takes several times as long."""
_GATHER_SHARE = 0.25
"""Share of allowed rows up to which they are gathered, instead of computing all products."""

_GATHER_ROWS = 8192

Mask = npt.NDArray[np.bool_]


def as_tensor(vectors: Vectors) -> Tensor:
    """A tensor on the same memory, which may be read-only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors and warns; nothing writes to it
        return torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))


class ExactSearch:
    """Compares with every allowed vector, on the device of the vectors. On a CPU safe for several threads."""

    def __init__(self, vectors: Tensor, metric: Metric) -> None:
        self._vectors = vectors  # [n, dim]
        self._metric = metric
        self._block_scores = BLOCK_SCORES[vectors.device.type]
        self._squares = None  # [n], for L2
        if metric is Metric.L2:
            self._squares = torch.linalg.vector_norm(vectors, dim=1).square_()

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        """As `VectorIndex.search`, for checked arguments."""
        rows, scores = nothing(len(queries), k)
        n = len(self._vectors)
        best = min(k, n)
        wanted = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).to(self._vectors.device)
        with torch.inference_mode():
            for members, mask in _groups(len(queries), n, allowed):
                if isinstance(mask, list):
                    found = self._scan(wanted[members], best, self._all(best, len(members)), mask)
                elif mask is not None:
                    found = self._scan(wanted[members], best, self._only(mask))
                else:
                    found = self._scan(wanted[members], best, self._all(best, len(members)))
                rows[members, :best], scores[members, :best] = found[0].cpu().numpy(), found[1].cpu().numpy()
        return rows, scores

    def _all(self, k: int, queries: int) -> Iterator[tuple[Tensor | slice, Tensor]]:
        step = max(_TOPK_ROWS * k, self._block_scores // queries)
        for begin in range(0, len(self._vectors), step):
            rows = slice(begin, begin + step)
            yield rows, self._vectors[rows]

    def _only(self, mask: Mask) -> Iterator[tuple[Tensor | slice, Tensor]]:
        allowed = torch.from_numpy(np.flatnonzero(mask)).to(self._vectors.device)
        for begin in range(0, len(allowed), _GATHER_ROWS):
            rows = allowed[begin : begin + _GATHER_ROWS]
            yield rows, self._vectors[rows]

    def _scan(
        self,
        queries: Tensor,
        k: int,
        blocks: Iterator[tuple[Tensor | slice, Tensor]],
        masks: Sequence[Mask] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best k of all blocks: rows [b, k], scores [b, k]. `masks`: one a query, over all rows."""
        rows = torch.full((len(queries), k), -1, device=queries.device)
        best = torch.full((len(queries), k), -torch.inf, device=queries.device)
        buffer = best  # [b, k + rows of a block]: the best so far, then the block's scores
        for where, block in blocks:
            if buffer.shape[1] < k + len(block):
                buffer = torch.empty(len(queries), k + len(block), device=queries.device)
            merged = buffer[:, : k + len(block)]
            merged[:, :k] = best
            self._scores(queries, block, where, merged[:, k:])
            if masks is not None:
                refused = np.stack([~mask[where] for mask in masks])
                merged[:, k:].masked_fill_(torch.from_numpy(refused).to(queries.device), -torch.inf)
            best, places = merged.topk(k, dim=1)  # [b, k]
            fresh = places - k
            fresh = fresh + where.start if isinstance(where, slice) else where[fresh.clamp(min=0)]
            rows = torch.where(places < k, rows.gather(1, places.clamp(max=k - 1)), fresh)
        return rows.masked_fill_(best == -torch.inf, -1), best

    def _scores(self, queries: Tensor, block: Tensor, where: Tensor | slice, out: Tensor) -> None:
        torch.mm(queries, block.T, out=out)
        if self._squares is not None:
            out.mul_(2).sub_(queries.square().sum(1)[:, None]).sub_(self._squares[where])


def _groups(queries: int, n: int, allowed: Allowed | None) -> Iterator[tuple[list[int], list[Mask] | Mask | None]]:
    """Groups of queries that are searched together, with no mask, one selective mask, or a mask each."""
    if not n or not queries:
        return
    masks = [None] * queries if allowed is None else list(allowed)
    plain = [query for query, mask in enumerate(masks) if mask is None]
    if plain:
        yield plain, None
    sparse: dict[int, list[int]] = {}  # by identity: queries with the same filter share a mask
    dense = []
    for query, mask in enumerate(masks):
        if mask is not None:
            count = np.count_nonzero(mask)
            if 0 < count <= _GATHER_SHARE * n:
                sparse.setdefault(id(mask), []).append(query)
            elif count:
                dense.append(query)
    for members in sparse.values():
        yield members, masks[members[0]]
    if dense:
        yield dense, [mask for query in dense if (mask := masks[query]) is not None]
