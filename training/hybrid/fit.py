"""Chooses the settings of the hybrid score on validation: co-occurrence, weights, cold items, repeats.

Everything is chosen by NDCG@10 of held-out items among the unseen ones, ties broken by chance. A part (words, the
dense model) is kept only if it wins out of fold: its weights are searched on one half of the users, and on the other
half it must bring something; both ways.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, Counts, Floats, count, history_matrix, with_half_life
from seqrec.hybrid.scoring import HybridScorer, Scores, gate
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Dataset, Rows
from training.hybrid.ndcg import expected_ndcg, first_column_ndcg

log = logging.getLogger(__name__)

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
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
COARSE = (0.0, 0.5, 1.0, 2.0)
DENSE_ITEMS = (1, 3, 0)
COLD_BOOSTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
NEVER = -100.0
OWN_WEIGHTS = (NEVER, -2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
REPEATS = 0.003
"""Share of training events that repeat an item of the same user, from which on seen items may be answers."""
COLD_COST = 0.02
"""Share of the NDCG@10 of items with events that items without may cost."""
WITHHELD = 0.1
"""Share of items that are cold while the weight of cold items is chosen."""
USERS = 20_000
"""Validation users that choose, at most."""
COLD_USERS = 5000
"""That choose the weight of cold items: each is scored in full."""
DENSE_USERS = 1500
"""That choose how many items the dense model reads: each is encoded."""
TOP = 20
CANDIDATES = 100
"""Best items of each part that are ranked while weights are chosen; others are assumed not to reach the top 10."""
SCORES_AT_ONCE = 2**24
"""Numbers of one piece of a score matrix: 64 MiB."""

DenseQueries = Callable[[Sequence[Rows], int], npt.NDArray[np.float32]]
"""Histories and how many of their newest items to read (0: all) -> query vectors [b, dim], weight 1."""


@dataclass(frozen=True)
class Dense:
    """A trained dense model: vectors [n, dim] of all items, and of histories on demand."""

    items: npt.NDArray[np.float32]
    queries: DenseQueries


@dataclass(frozen=True)
class HybridFit:
    """What was chosen, and the validation NDCG@10 (unseen items) with one part after the other."""

    settings: HybridSettings
    repeats: float  # share of training events that repeat an item
    users: int  # that chose
    ndcg: Mapping[str, float] = field(default_factory=dict)
    kept: Sequence[str] = ()
    dropped: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_json(),
            "repeats": self.repeats,
            "users": self.users,
            "validation_ndcg@10_unseen": dict(self.ndcg),
            "kept": list(self.kept),
            "dropped": list(self.dropped),
        }


def fit_hybrid(
    dataset: Dataset, terms: csr_array, dense: Dense | None, seed: int = 0, half_life: float = 0.0
) -> HybridFit:
    """terms: float32 [n, v], the items' term vectors. Takes seconds to minutes on one core; deterministic.

    half_life: seconds after which an event counts half as much, 0: all count alike. Raises InputError where nobody
    validates, or where events without timestamps are to fade.
    """
    cases = dataset.cases("valid")
    unseen = [target not in history for target, history in zip(cases.targets, cases.histories, strict=True)]
    cases = cases.of(np.flatnonzero(unseen)).sample(USERS, seed)
    rows, offsets = dataset.known_events("valid")
    pairs = CooccurrenceSettings()
    times = None
    if half_life:
        times = dataset.known_times("valid")
        if times is None:
            raise InputError("events can fade only if their times are known; set it to 0", "hybrid.half_life_days")
        pairs = with_half_life(pairs, half_life, times)
    weights_of_events = dataset.known_weights("valid")
    search = _Search(rows, offsets, list(cases.histories), cases.targets, terms, times, weights_of_events)
    began = time.perf_counter()
    settings = search.with_words(HybridSettings(cooccurrence=pairs))
    settings = search.cooccurrence(settings)
    log.info("co-occurrence: chosen in %.0f s", time.perf_counter() - began)
    if dense is not None:
        found = {items: search.dense_alone(dense, items) for items in DENSE_ITEMS}
        settings = replace(settings, dense_items=max(DENSE_ITEMS, key=lambda items: found[items]))
    counts = search.counts(settings.cooccurrence)
    table = search.table(settings, counts, dense)
    parts = {"words": ("last_text", "recent_text")} | ({} if dense is None else {"dense": ("dense",)})
    ndcg = {"co-occurrence": table.ndcg({}).mean()}
    kept: list[str] = []
    weights: dict[str, float] = {}
    while remaining := [name for name in parts if name not in kept]:
        names = [column for part in kept for column in parts[part]]
        gains = {part: _out_of_fold(table, names, parts[part]) for part in remaining}
        part = max(gains, key=lambda name: gains[name])
        if gains[part] <= 0:
            break
        kept.append(part)
        weights = table.search([*names, *parts[part]])
        ndcg[" + ".join(["co-occurrence", *kept])] = table.ndcg(weights).mean()
    # Something must answer where nothing was counted.
    settings = replace(settings, **(weights or {"last_text": 0.05}))  # type: ignore[arg-type]
    settings = replace(settings, cold_boost=search.cold_boost(settings, dense, seed))
    repeats = dataset.repeated_share
    if repeats >= REPEATS:
        everyone = dataset.cases("valid").sample(USERS, seed)
        search = _Search(rows, offsets, list(everyone.histories), everyone.targets, terms, times, weights_of_events)
        settings = search.own_items(settings, dense)
    return HybridFit(
        settings,
        repeats,
        len(cases),
        {name: float(value) for name, value in ndcg.items()},
        ["co-occurrence", *kept],
        [part for part in parts if part not in kept],
    )


def _out_of_fold(table: _Table, names: Sequence[str], more: Sequence[str]) -> float:
    """What `more` columns bring in addition to `names`: NDCG@10 on each half of the users by weights of the other half,
    less its standard error. An untrained model was kept for +0.0002."""
    gains = []
    for fold in (0, 1):
        chosen, judge = table.fold(1 - fold), table.fold(fold)
        without, joined = chosen.search(names), chosen.search([*names, *more])
        gains.append(judge.ndcg(joined) - judge.ndcg(without))
    gain = np.concatenate(gains)
    return float(gain.mean() - gain.std() / len(gain) ** 0.5)


@dataclass(frozen=True, eq=False)
class _Table:
    """Scores of each user's candidates by each part [m, c] (-inf pads); the target is the first candidate."""

    base: Scores
    columns: Mapping[str, Scores]
    candidates: Rows  # [m, c], -1 pads

    def fold(self, number: int) -> _Table:
        columns = {name: values[number::2] for name, values in self.columns.items()}
        return _Table(self.base[number::2], columns, self.candidates[number::2])

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


class _Search:
    """Users with histories and targets [m], and all that is known of everybody: rows, offsets and times (or None)."""

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
        key = (settings.window, settings.distance_power, settings.backward)
        if self._counted is None or self._counted[0] != key:
            counts = count(settings, self.rows, self.offsets, self.items, self.times, event_weights=self.event_weights)
            self._counted = (key, counts.as_read(settings))
        return self._counted[1]

    def with_words(self, settings: HybridSettings) -> HybridSettings:
        """The settings with weights of pairs and words, the best pair on a coarse grid."""
        settings = replace(settings, pairs=self.pairs_weight(settings))
        table = self.table(settings, self.counts(settings.cooccurrence), None)
        grid = [{"last_text": last, "recent_text": recent} for last in COARSE for recent in COARSE]
        best = max(grid, key=lambda weights: table.ndcg(weights).mean())
        return replace(settings, **best)  # type: ignore[arg-type]

    def cooccurrence(self, settings: HybridSettings) -> HybridSettings:
        """Co-occurrence settings chosen together with the words of `settings`: one coordinate of GRID at a time.

        Chosen alone, it did the work of words as well: it read longer histories, and the sum was worse.
        """
        table = self.table(settings, self.counts(settings.cooccurrence), None)
        words = np.float32(settings.last_text) * table.columns["last_text"]
        words += np.float32(settings.recent_text) * table.columns["recent_text"]
        best, found = settings, first_column_ndcg(table.base + words)
        for name in ("distance_power", "backward", "last", "recency_power", "source_power", "target_power", "window"):
            for value in _nearest_first(GRID[name], getattr(settings.cooccurrence, name)):
                tried = replace(settings, cooccurrence=replace(best.cooccurrence, **{name: value}))  # type: ignore[arg-type]
                tried = replace(tried, pairs=self.pairs_weight(tried))
                this = first_column_ndcg(self._pairs_of(tried, table.candidates) + words)
                gain = this - found
                # By more than its standard error, and the nearest first: the best of thirty settings is partly luck.
                if gain.mean() > gain.std() / len(gain) ** 0.5:
                    best, found = tried, this
        return best

    def _pairs_of(self, settings: HybridSettings, candidates: Rows) -> Scores:
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
        scorer = HybridScorer(replace(settings, pairs=1.0), self.counts(settings.cooccurrence), self.terms, self.terms)
        means = []
        for some in self._pieces(np.arange(min(len(self.histories), 500))):
            scores = scorer.cooccurrence([self.histories[case] for case in some])
            top = min(TOP, self.items)
            means.append(np.partition(scores, self.items - top, axis=1)[:, -top:].mean(axis=1))
        mean = float(np.concatenate(means).mean())
        return 1 / mean if mean > 0 else 1.0

    def dense_alone(self, dense: Dense, items: int) -> float:
        """Mean NDCG@10 of DENSE_USERS by the dense model that reads so many items."""
        found = np.empty(min(DENSE_USERS, len(self.histories)))
        for some in (piece[piece < len(found)] for piece in self._pieces()):
            histories = [self.histories[case] for case in some]
            scores = dense.queries(histories, items) @ dense.items.T
            found[some] = self._ndcg(scores, some)
        return float(found.mean())

    def _ndcg(self, scores: Scores, some: Rows) -> npt.NDArray[np.float64]:
        """[len(some)] among unseen items; `scores` [len(some), n] is changed."""
        mine = scores[np.arange(len(some)), self.targets[some]]
        own = self.own[some]
        scores[np.repeat(np.arange(len(some)), np.diff(own.indptr)), own.indices] = -np.inf
        return expected_ndcg((scores > mine[:, None]).sum(axis=1), (scores == mine[:, None]).sum(axis=1) - 1)

    def table(self, settings: HybridSettings, counts: Counts, dense: Dense | None) -> _Table:
        """The scores of the candidates that any part ranks high."""
        base: list[Scores] = []
        chosen: list[Rows] = []
        columns: dict[str, list[Scores]] = {name: [] for name in ("last_text", "recent_text", "dense")}
        alone = {
            name: HybridScorer.of(replace(settings, **{name: 1.0}), counts, self.terms)  # type: ignore[arg-type]
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
        return _Table(np.stack(base), stacked, np.stack(chosen))

    def _candidates(self, case: int, scores: Sequence[Scores]) -> Rows:
        """The target, then every other unseen item that is among the best of a part."""
        target = self.targets[case]
        top = min(CANDIDATES + len(self.histories[case]), self.items)
        best = np.unique(np.concatenate([np.argpartition(values, self.items - top)[-top:] for values in scores]))
        best = best[~np.isin(best, self.histories[case]) & (best != target)]
        order = np.argsort(-np.max([values[best] for values in scores], axis=0), kind="stable")
        return np.concatenate([[target], best[order[: CANDIDATES * len(scores)]]])

    def cold_boost(self, settings: HybridSettings, dense: Dense | None, seed: int) -> float:
        """The largest boost that costs nothing over all users, and items with events COLD_COST at most.

        Measured with WITHHELD of the items without events.
        """
        cold = np.zeros(self.items, dtype=np.bool_)
        cold[np.random.default_rng(seed).permutation(self.items)[: round(WITHHELD * self.items)]] = True
        kept = ~cold[self.rows]
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        histories = [history[~cold[history]] for history in self.histories]
        cases = [case for case, history in enumerate(histories) if len(history)][:COLD_USERS]
        times = None if self.times is None else self.times[kept]
        weights = None if self.event_weights is None else self.event_weights[kept]
        own, targets = [histories[case] for case in cases], self.targets[cases]
        search = _Search(self.rows[kept], offsets, own, targets, self.terms, times, weights)
        counts = search.counts(settings.cooccurrence)
        scorer = HybridScorer.of(settings, counts, self.terms)
        found = {boost: np.empty(len(cases)) for boost in COLD_BOOSTS}
        for some in search._pieces():
            own = [search.histories[case] for case in some]
            pairs, text = scorer.cooccurrence(own), scorer.text(own, _dense_scores(settings, dense, own))
            for boost, into in found.items():
                gates = gate(replace(settings, cold_boost=boost), counts.events).astype(np.float32)
                into[some] = search._ndcg(pairs + text * gates, some)
        warm = ~cold[search.targets]
        least, least_warm = found[0.0].mean(), (1 - COLD_COST) * found[0.0][warm].mean()
        fit = [b for b, ndcg in found.items() if ndcg.mean() >= least and ndcg[warm].mean() >= least_warm]
        return max(fit)

    def own_items(self, settings: HybridSettings, dense: Dense | None) -> HybridSettings:
        """Whether seen items may be answers, and what they get; chosen by NDCG@10 over all items."""
        allowed = replace(settings, exclude_seen=False, seen=0.0, last_item=0.0)
        scorer = HybridScorer.of(allowed, self.counts(settings.cooccurrence), self.terms)
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


def _nearest_first(values: Sequence[float], start: float) -> list[float]:
    """The other values, those nearest to `start` by their places in the sequence first."""
    here = values.index(start)
    return [values[place] for place in sorted(range(len(values)), key=lambda place: abs(place - here)) if place != here]


def _dense_scores(settings: HybridSettings, dense: Dense | None, histories: Sequence[Rows]) -> Scores:
    if dense is None or not settings.dense:
        return _ZERO
    queries = np.float32(settings.dense) * dense.queries(histories, settings.dense_items)
    return np.asarray(queries @ dense.items.T, dtype=np.float32)


_ZERO: Scores = np.zeros((1, 1), np.float32)  # broadcast: no dense score


def lines_of(fit: HybridFit) -> Iterator[str]:
    """What was chosen and why, for the log."""
    yield f"{fit.repeats:.1%} of training events repeat an item: " + (
        "seen items are left out"
        if fit.settings.exclude_seen
        else f"seen items may be answers ({fit.settings.seen:+g}, the last one {fit.settings.last_item:+g})"
    )
    for parts, ndcg in fit.ndcg.items():
        yield f"{parts}: validation NDCG@10 {ndcg:.4f} (unseen items, {fit.users} users)"
    for name in fit.dropped:
        yield f"{name}: left out, since it wins nothing out of fold"
