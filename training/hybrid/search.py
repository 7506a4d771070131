"""The search for settings of the hybrid score among users whose next item is known.

Everything is chosen by NDCG@10 of held-out items among the unseen ones, ties broken by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from seqrec.hybrid.cooccurrence import CooccurrenceSettings, Counts, Floats, count, history_matrix, with_half_life
from seqrec.hybrid.scoring import HybridScorer, Scores, gate
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Rows
from training.hybrid.ndcg import expected_ndcg, first_column_ndcg

GRID: Mapping[str, Sequence[float]] = {
    "last": (1, 3, 5, 10, 20),
    "recency_power": (0.0, 0.5, 1.0, 2.0),
    "source_power": (0.25, 0.5, 0.75),
    "target_power": (0.0, 0.25, 0.5),
    "distance_power": (0.0, 0.5, 1.0, 2.0),
    "window": (5, 10, 20, 40),
    "backward": (0.0, 0.5, 1.0),
}
"""Good everywhere: the defaults of CooccurrenceSettings. Walked one coordinate at a time."""
HALF_LIVES = (1.0, 0.5)
"""In spans of the training events; a shop's log of a year is best when events of its beginning count half as much."""
LEAST_SPAN = 30 * 86_400.0
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
COARSE = (0.0, 0.5, 1.0, 2.0)
COLD_BOOSTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
NEVER = -100.0
OWN_WEIGHTS = (NEVER, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
COLD_COST = 0.02
"""Share of the NDCG@10 of items with events that items without may cost."""
WITHHELD = 0.1
"""Share of items that are cold while the weight of cold items is chosen."""
COLD_DRAWS = 3
"""Draws of withheld items: the result depends more on which items are drawn than on the number of users."""
COLD_USERS = 10_000
"""That choose the weight of cold items in each draw, at most; each is scored in full. By 2,000 users the cost of a
boost is off by as much as itself."""
DENSE_USERS = 1500
"""That choose how many items the dense model reads: each is encoded."""
TOP = 20
CANDIDATES = 100
"""Best items of each part that are ranked while weights are chosen; others are assumed not to reach the top 10."""
CHECKED_USERS = 3000
CHECKED_SCORES = 2**25
"""Users, and numbers of their scores, at most, by which a setting must win among all items too. The candidates are the
best of the first setting, so a setting whose own best are others looks better among them than it is."""
SCORES_AT_ONCE = 2**24
"""Numbers of one piece of a score matrix: 64 MiB."""

DenseQueries = Callable[[Sequence[Rows], int], npt.NDArray[np.float32]]
"""Histories and how many of their newest items to read (0: all) -> query vectors [b, dim], weight 1."""


@dataclass(frozen=True)
class Dense:
    """A trained dense model: vectors [n, dim] of all items, and of histories on demand."""

    items: npt.NDArray[np.float32]
    queries: DenseQueries


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of each user's candidates by each part [m, c] (-inf pads); the target is the first candidate."""

    base: Scores
    columns: Mapping[str, Scores]
    candidates: Rows  # [m, c], -1 pads

    def fold(self, number: int) -> Table:
        columns = {name: values[number::2] for name, values in self.columns.items()}
        return Table(self.base[number::2], columns, self.candidates[number::2])

    def ndcg(self, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
        """[m]"""
        total = self.base.copy()
        for name, weight in weights.items():
            if weight:
                total += np.float32(weight) * self.columns[name]
        return first_column_ndcg(total)

    def search(self, names: Sequence[str]) -> dict[str, float]:
        """Coordinate search over WEIGHTS for the mean NDCG@10, from the best point of a coarse grid."""
        coarse = [dict(zip(names, values, strict=True)) for values in product(COARSE, repeat=len(names))]
        chosen = max(coarse, key=lambda weights: self.ndcg(weights).mean())
        total = self.base.copy()
        for name, weight in chosen.items():
            total += np.float32(weight) * self.columns[name]
        best = float(first_column_ndcg(total).mean())
        for _ in range(4):
            before = best
            for name in names:
                column = self.columns[name]
                without = total - np.float32(chosen[name]) * column
                for value in WEIGHTS:
                    found = float(first_column_ndcg(without + np.float32(value) * column).mean())
                    if found > best + 1e-9:
                        best, chosen[name] = found, value
                total = without + np.float32(chosen[name]) * column
            if best <= before:
                break
        return chosen


class Search:
    """Users with histories and targets [m], and the known events of all users: rows, offsets and times (or None)."""

    def __init__(
        self,
        rows: Rows,
        offsets: Rows,
        histories: Sequence[Rows],
        targets: Rows,
        terms: csr_array,
        times: npt.NDArray[np.float64] | None = None,
        event_weights: Floats | None = None,
    ) -> None:
        self.times = times
        self.event_weights = event_weights
        self.rows, self.offsets, self.histories, self.targets, self.terms = rows, offsets, histories, targets, terms
        self.items = terms.shape[0]
        own = [np.unique(history) for history in histories]
        indptr = np.concatenate([[0], np.cumsum([len(items) for items in own])])
        indices = np.concatenate([np.zeros(0, np.int64), *own])
        self.own = csr_array((np.ones(len(indices)), indices, indptr), shape=(len(own), self.items))
        self._counted: tuple[tuple[float, ...], Counts] | None = None

    def counts(self, settings: CooccurrenceSettings) -> Counts:
        key = (settings.window, settings.distance_power, settings.backward, settings.half_life)
        if self._counted is None or self._counted[0] != key:
            counts = count(settings, self.rows, self.offsets, self.items, self.times, event_weights=self.event_weights)
            self._counted = (key, counts.as_read(settings))
        return self._counted[1]

    @cached_property
    def _postings(self) -> csr_array:
        return csr_array(self.terms.T.tocsr())

    def _scorer(self, settings: HybridSettings) -> HybridScorer:
        return HybridScorer(settings, self.counts(settings.cooccurrence), self.terms, self._postings)

    def with_words(self, settings: HybridSettings) -> HybridSettings:
        """The settings with weights of pairs and words, the best pair on a coarse grid."""
        settings = replace(settings, pairs=self.pairs_weight(settings))
        table = self.table(settings, None)
        grid = [{"last_text": last, "recent_text": recent} for last in COARSE for recent in COARSE]
        best = max(grid, key=lambda weights: table.ndcg(weights).mean())
        return replace(settings, **best)  # type: ignore[arg-type]

    def cooccurrence(
        self, settings: HybridSettings, fade: bool = False, known: CooccurrenceSettings | None = None
    ) -> HybridSettings:
        """Co-occurrence settings chosen together with the words of `settings`: one coordinate of GRID at a time, then,
        if events may `fade`, the half-life.

        `known`: settings that were good before, tried first. Without them a walk of single steps may end far from where
        that of the day before did. Chosen alone, co-occurrence did the work of words as well: it read longer histories,
        and the sum was worse.
        """
        table = self.table(settings, None)
        words = np.float32(settings.last_text) * table.columns["last_text"]
        words += np.float32(settings.recent_text) * table.columns["recent_text"]
        best, found = settings, first_column_ndcg(table.base + words)
        among_all = self._among_all(settings)

        def better(tried: CooccurrenceSettings) -> None:
            nonlocal best, found, among_all
            joined = replace(settings, cooccurrence=tried)
            joined = replace(joined, pairs=self.pairs_weight(joined))
            this = first_column_ndcg(self.pairs_of(joined, table.candidates) + words)
            gain = this - found
            # By more than its standard error, and the nearest first: the best of thirty settings is partly luck.
            if gain.mean() > gain.std() / len(gain) ** 0.5 and (checked := self._among_all(joined)) > among_all:
                best, found, among_all = joined, this, checked

        if known is not None:
            better(known)
        began = best.cooccurrence
        for name in ("distance_power", "backward", "last", "recency_power", "source_power", "target_power", "window"):
            for value in nearest_first(GRID[name], getattr(began, name)):
                better(replace(best.cooccurrence, **{name: value}))  # type: ignore[arg-type]
        if fade and self.times is not None:
            for share in HALF_LIVES:
                better(with_half_life(best.cooccurrence, share * float(np.ptp(self.times)), self.times))
        return best

    def _among_all(self, settings: HybridSettings) -> float:
        """Mean NDCG@10 among all unseen items, of some users."""
        scorer = self._scorer(settings)
        users = min(CHECKED_USERS, max(1, CHECKED_SCORES // self.items))
        return self._mean_ndcg(users, lambda histories: scorer.scores(histories, _ZERO))

    def _mean_ndcg(self, users: int, scores: Callable[[Sequence[Rows]], Scores]) -> float:
        """Mean NDCG@10 among all unseen items of the first `users`; scores: histories -> [b, items]."""
        found = np.empty(min(users, len(self.histories)))
        for some in self._pieces(np.arange(len(found))):
            found[some] = self._ndcg(scores([self.histories[case] for case in some]), some)
        return float(found.mean())

    def pairs_of(self, settings: HybridSettings, candidates: Rows) -> Scores:
        """[m, c] Co-occurrence scores of the candidates; -inf where there is none."""
        chosen, counts = settings.cooccurrence, self.counts(settings.cooccurrence)
        pairs, read = counts.pairs, history_matrix(chosen, self.histories, counts.events)
        scale = settings.pairs * np.maximum(counts.events, 1.0) ** -chosen.target_power
        out = np.full(candidates.shape, -np.inf, np.float32)
        scores = np.zeros(self.items)
        # Row by row: a product of sparse matrices has far more entries than there are candidates.
        for case, own in enumerate(candidates):
            entries = slice(read.indptr[case], read.indptr[case + 1])
            for item, weight in zip(read.indices[entries], read.data[entries], strict=True):
                followers = slice(pairs.indptr[item], pairs.indptr[item + 1])
                scores[pairs.indices[followers]] += weight * pairs.data[followers]
            own = own[own >= 0]
            out[case, : len(own)] = scores[own] * scale[own]
            scores[:] = 0
        return out

    def pairs_weight(self, settings: HybridSettings) -> float:
        """One over the mean, over users, of the mean of the TOP largest co-occurrence scores.

        A constant, so that the weights of other parts lie in one range whatever the data. Dividing each user's scores
        by their own mean was worse: how sure co-occurrence is says something.
        """
        scorer = self._scorer(replace(settings, pairs=1.0))
        means = []
        for some in self._pieces(np.arange(min(len(self.histories), 500))):
            scores = scorer.cooccurrence([self.histories[case] for case in some])
            top = min(TOP, self.items)
            means.append(np.partition(scores, self.items - top, axis=1)[:, -top:].mean(axis=1))
        mean = float(np.concatenate(means).mean())
        return 1 / mean if mean > 0 else 1.0

    def dense_alone(self, dense: Dense, items: int) -> float:
        """Mean NDCG@10 of DENSE_USERS by the dense model that reads so many items."""
        return self._mean_ndcg(DENSE_USERS, lambda histories: dense.queries(histories, items) @ dense.items.T)

    def _ndcg(self, scores: Scores, some: Rows) -> npt.NDArray[np.float64]:
        """[len(some)] among unseen items; `scores` [len(some), n] is changed."""
        mine = scores[np.arange(len(some)), self.targets[some]]
        own = self.own[some]
        scores[np.repeat(np.arange(len(some)), np.diff(own.indptr)), own.indices] = -np.inf
        return expected_ndcg((scores > mine[:, None]).sum(axis=1), (scores == mine[:, None]).sum(axis=1) - 1)

    def table(self, settings: HybridSettings, dense: Dense | None) -> Table:
        """The scores of the candidates that any part ranks high."""
        base: list[Scores] = []
        chosen: list[Rows] = []
        columns: dict[str, list[Scores]] = {name: [] for name in ("last_text", "recent_text", "dense")}
        # Each column is one part alone, whatever weights the settings have by now.
        bare = replace(settings, last_text=0.0, recent_text=0.0)
        alone = {
            name: self._scorer(replace(bare, **{name: 1.0}))  # type: ignore[arg-type]
            for name in ("last_text", "recent_text")
        }
        width = 1 + CANDIDATES * (3 if dense is None else 4)
        for some in self._pieces():
            histories = [self.histories[case] for case in some]
            scores = {"": alone["last_text"].cooccurrence(histories)}
            scores |= {name: scorer.text(histories, _ZERO) for name, scorer in alone.items()}
            if dense is not None:
                scores["dense"] = dense.queries(histories, settings.dense_items) @ dense.items.T
            for place, case in enumerate(some):
                candidates = self._candidates(case, [values[place] for values in scores.values()])
                row = np.full((len(scores), width), -np.inf, np.float32)
                row[1:] = 0
                for number, values in enumerate(scores.values()):
                    row[number, : len(candidates)] = values[place, candidates]
                base.append(row[0])
                chosen.append(np.pad(candidates, (0, width - len(candidates)), constant_values=-1))
                for number, name in enumerate(list(scores)[1:], start=1):
                    columns[name].append(row[number])
        stacked = {name: np.stack(values) for name, values in columns.items() if values}
        return Table(np.stack(base), stacked, np.stack(chosen))

    def _candidates(self, case: int, scores: Sequence[Scores]) -> Rows:
        """The target, then every other unseen item that is among the best of a part."""
        target = self.targets[case]
        top = min(CANDIDATES + len(self.histories[case]), self.items)
        best = np.unique(np.concatenate([np.argpartition(values, self.items - top)[-top:] for values in scores]))
        best = best[~np.isin(best, self.histories[case]) & (best != target)]
        order = np.argsort(-np.max([values[best] for values in scores], axis=0), kind="stable")
        return np.concatenate([[target], best[order[: CANDIDATES * len(scores)]]])

    def cold_boost(self, settings: HybridSettings, dense: Dense | None, seed: int) -> float:
        """The largest boost that costs items with events COLD_COST at most, between two of COLD_BOOSTS.

        Measured while WITHHELD of the items have no events: what they cost depends on how many there are.
        """
        draws = [self._cold_draw(settings, dense, np.random.default_rng((seed, draw))) for draw in range(COLD_DRAWS)]
        warm = np.mean(draws, axis=0)
        spare = warm - (1 - COLD_COST) * warm[0]
        last = int(np.flatnonzero(spare >= 0)[-1])
        if last == len(COLD_BOOSTS) - 1:
            return COLD_BOOSTS[last]
        low, high = COLD_BOOSTS[last : last + 2]
        return round(low + (high - low) * float(spare[last] / (spare[last] - spare[last + 1])), 2)

    def _cold_draw(self, settings: HybridSettings, dense: Dense | None, rng: np.random.Generator) -> Floats:
        """[len(COLD_BOOSTS)] NDCG@10 of items with events, while others have lost theirs."""
        cold = np.bincount(self.rows, minlength=self.items) == 0
        known = np.flatnonzero(~cold)
        cold[rng.permutation(known)[: max(0, round(WITHHELD * self.items) - cold.sum())]] = True
        kept = ~cold[self.rows]
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        histories = [history[~cold[history]] for history in self.histories]
        warm = ~cold[self.targets]
        usable = [case for case, history in enumerate(histories) if len(history) and warm[case]]
        cases = np.sort(rng.permutation(np.array(usable, np.int64))[:COLD_USERS])
        if not len(cases):
            return np.zeros(len(COLD_BOOSTS))
        times = None if self.times is None else self.times[kept]
        weights = None if self.event_weights is None else self.event_weights[kept]
        own, targets = [histories[case] for case in cases], self.targets[cases]
        search = Search(self.rows[kept], offsets, own, targets, self.terms, times, weights)
        counts = search.counts(settings.cooccurrence)
        scorer = search._scorer(settings)
        found = np.empty((len(COLD_BOOSTS), len(cases)))
        for some in search._pieces():
            own = [search.histories[case] for case in some]
            pairs, text = scorer.cooccurrence(own), scorer.text(own, _dense_scores(settings, dense, own))
            for number, boost in enumerate(COLD_BOOSTS):
                gates = gate(replace(settings, cold_boost=boost), counts.events).astype(np.float32)
                found[number, some] = search._ndcg(pairs + text * gates, some)
        return np.asarray(found.mean(axis=1))

    def own_items(self, settings: HybridSettings, dense: Dense | None) -> HybridSettings:
        """Whether seen items may be answers, and what they get; chosen by NDCG@10 over all items."""
        allowed = replace(settings, exclude_seen=False, seen=0.0, last_item=0.0)
        scorer = self._scorer(allowed)
        pairs = [(seen, last) for seen in OWN_WEIGHTS for last in OWN_WEIGHTS]
        bonuses = np.array(pairs, np.float32)
        found = np.empty((len(pairs), len(self.histories)))
        for some in self._pieces():
            histories = [self.histories[case] for case in some]
            scores = scorer.scores(histories, _dense_scores(settings, dense, histories))
            for place, case in enumerate(some):
                row, history, target = scores[place], self.histories[case], self.targets[case]
                own, mine = np.unique(history), row[target]
                values = row[own] + bonuses[:, :1] + bonuses[:, 1:] * (own == history[-1])  # [pairs, own]
                target_scores = values[:, own == target] if target in own else np.full((len(pairs), 1), mine)
                others = np.sort(np.delete(row, own))
                first, last = (np.searchsorted(others, target_scores[:, 0], side) for side in ("left", "right"))
                above = (values > target_scores).sum(axis=1) + len(others) - last
                equal = (values == target_scores).sum(axis=1) + last - first - 1
                found[:, case] = expected_ndcg(above, equal)
        seen, last_item = pairs[int(found.mean(axis=1).argmax())]
        if seen == NEVER and last_item <= 0:
            return settings
        return replace(allowed, seen=seen, last_item=last_item)

    def _pieces(self, users: Rows | None = None) -> Iterator[Rows]:
        users = np.arange(len(self.histories)) if users is None else users
        size = max(1, SCORES_AT_ONCE // self.items)
        for begin in range(0, len(users), size):
            yield users[begin : begin + size]


def nearest_first(values: Sequence[float], start: float) -> list[float]:
    """The other values, those nearest to `start` by their places in the sequence first."""
    here = min(range(len(values)), key=lambda place: abs(values[place] - start))
    order = sorted(range(len(values)), key=lambda place: abs(place - here))
    return [values[place] for place in order if values[place] != start]


def _dense_scores(settings: HybridSettings, dense: Dense | None, histories: Sequence[Rows]) -> Scores:
    if dense is None or not settings.dense:
        return _ZERO
    queries = np.float32(settings.dense) * dense.queries(histories, settings.dense_items)
    return np.asarray(queries @ dense.items.T, dtype=np.float32)


_ZERO: Scores = np.zeros((1, 1), np.float32)  # broadcast: no dense score
