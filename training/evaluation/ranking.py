"""Ranks the whole catalogue for held-out items, for any source of scores, in two candidate modes.

'all items': every item is a candidate, as in the papers. 'unseen only': items of the history are excluded. Held-out
items that are in the history (repeats) are then not relevant, and users without other relevant items are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from seqrec.metric import TIE
from training.data.dataset import Cases, Rows
from training.evaluation.metrics import Metrics, Ranks, Values, ndcg, ranks, ranks_of_several, recall, reciprocal_rank

CandidateMode = Literal["all items", "unseen only"]
CANDIDATE_MODES: tuple[CandidateMode, ...] = ("all items", "unseen only")

PESSIMISTIC = ", behind ties"

K = 10
SCORES_AT_ONCE = 2**23
"""32 MiB of float32; ranking allocates a few arrays of this size."""

Scorer = Callable[[Rows], npt.NDArray[np.float32]]
"""Case numbers [b] -> scores of all items [b, n], higher is better. The caller may change the array."""


@dataclass(frozen=True, eq=False)
class CaseRanks:
    """Both ranks of every relevant item [t], its case [t, ascending], and which cases are counted [m].

    recommended: [m, depth] the best item rows of each case, in no particular order, -1 if there are fewer candidates.
    """

    favourable: Ranks
    pessimistic: Ranks
    case: Rows
    counted: npt.NDArray[np.bool_]
    recommended: Rows

    def metrics(self, members: npt.NDArray[np.bool_] | None = None, k: int = K) -> Metrics:
        """Metrics of the cases in `members` [m], or of all."""
        chosen = (self.counted if members is None else self.counted & members)[self.case]
        _, user = np.unique(self.case[chosen], return_inverse=True)
        return Metrics.of(self.favourable[chosen], self.pessimistic[chosen], k, user)

    def figures(self, ks: Sequence[int]) -> dict[str, Values]:
        """NDCG@k, Recall@k, MRR@k and MRR of every counted case, in order. Ties are favourable, and pessimistic in the
        figures whose names end in PESSIMISTIC."""
        _, user = np.unique(self.case, return_inverse=True)
        figures = {}
        for rank, ending in ((self.favourable, ""), (self.pessimistic, PESSIMISTIC)):
            for k in ks:
                figures[f"NDCG@{k}{ending}"] = ndcg(rank, k, user)
                figures[f"Recall@{k}{ending}"] = recall(rank, k, user)
                figures[f"MRR@{k}{ending}"] = reciprocal_rank(rank, k, user)
            figures[f"MRR{ending}"] = reciprocal_rank(rank, None, user)
        return figures


def case_ranks(
    scorer: Scorer, cases: Cases, items: int, protocols: Sequence[CandidateMode] = CANDIDATE_MODES, depth: int = 0
) -> dict[CandidateMode, CaseRanks]:
    """Ranks the relevant items of every case among all `items`, and keeps the best `depth` of each ranking.

    Memory: a few arrays of SCORES_AT_ONCE numbers and the result. Of items that tie for the last of the `depth` places
    those with the lowest rows are kept.
    """
    depth = min(depth, items)
    wanted = {protocol: _relevant(cases, protocol) for protocol in protocols}
    found: dict[CandidateMode, list[tuple[Ranks, Ranks, Rows]]] = {protocol: [] for protocol in protocols}
    for numbers in _chunks(len(cases), max(1, SCORES_AT_ONCE // items)):
        scores = scorer(numbers)
        for protocol in protocols:  # 'unseen only' comes last, since it changes the scores
            if protocol == "unseen only":
                for row, number in enumerate(numbers):
                    scores[row, cases.histories[number]] = -np.inf
            relevant = [wanted[protocol][number] for number in numbers]
            found[protocol].append((*_ranks(scores, relevant), _best_rows(scores, depth)))
    result: dict[CandidateMode, CaseRanks] = {}
    for protocol in protocols:
        counts = np.array([len(rows) for rows in wanted[protocol]])
        favourable, pessimistic, best = (np.concatenate(parts) for parts in zip(*found[protocol], strict=True))
        result[protocol] = CaseRanks(
            favourable, pessimistic, np.repeat(np.arange(len(cases)), counts), counts > 0, best
        )
    return result


def _relevant(cases: Cases, protocol: CandidateMode) -> Sequence[Rows]:
    if protocol == "all items":
        return cases.relevant
    return [rows[~np.isin(rows, history)] for rows, history in zip(cases.relevant, cases.histories, strict=True)]


def _ranks(scores: npt.NDArray[np.float32], relevant: Sequence[Rows]) -> tuple[Ranks, Ranks]:
    """Ranks of the relevant items, rows concatenated. For one item per row, counting is faster than sorting."""
    counts = np.array([len(rows) for rows in relevant])
    begins = np.cumsum(counts) - counts
    one, several = np.flatnonzero(counts == 1).tolist(), np.flatnonzero(counts > 1).tolist()
    both = np.zeros(counts.sum(), np.int64), np.zeros(counts.sum(), np.int64)
    if len(one):
        rows = scores if len(one) == len(scores) else scores[one]
        for into, values in zip(both, ranks(rows, np.array([relevant[row][0] for row in one])), strict=True):
            into[begins[one]] = values
    if len(several):
        places = np.concatenate([np.arange(begins[row], begins[row] + counts[row]) for row in several])
        measured = ranks_of_several(scores[several], [relevant[row] for row in several])
        for into, values in zip(both, measured, strict=True):
            into[places] = values
    return both


def _best_rows(scores: npt.NDArray[np.float32], depth: int) -> Rows:
    """[b, depth], best first."""
    n = scores.shape[1]
    best = np.full((len(scores), depth), -1, dtype=np.int64)
    if not depth:
        return best
    last = np.partition(scores, n - depth, axis=1)[:, n - depth]  # [b]
    for into, row, limit in zip(best, scores, last, strict=True):
        candidates = np.flatnonzero((row >= limit - TIE) & np.isfinite(row))
        # Scores that tie with the last place count as equal to it, so that lower rows are preferred.
        values = np.where(row[candidates] > limit + TIE, row[candidates], -np.inf)
        kept = candidates[np.lexsort((candidates, -values))[:depth]]
        into[: len(kept)] = kept
    return best


def _chunks(count: int, size: int) -> Iterator[Rows]:
    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count))
