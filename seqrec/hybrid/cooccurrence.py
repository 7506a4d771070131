"""Co-occurrence: which items follow which in users' sequences, counted so that one event changes a few numbers.

Of every two events of one user that lie d <= window steps apart, the earlier of item i and the later of item j != i,

    C_ij += d^-p          C_ji += beta d^-p          n_i: events of item i

and an item j scores for a history h, newest first h_1, h_2, ...

    score(h, j) = n_j^-b  sum_{k <= L} u_k n_{h_k}^-a C_{h_k j},        u_k = k^-q / sum of them

This is item-based collaborative filtering (Sarwar et al., WWW 2001) with directed, distance-decayed counts; with b = 0
popular targets are not penalised. All sums are additive: a new event changes at most 2 x window numbers, and deleting a
user subtracts theirs. Counts are normalised when a score is computed, never when they are stored.

d^-p is rounded to a multiple of 2^-20, so the sums in float64 are exact and do not depend on the order in which events
arrived: counting from scratch and following the log give the same bits.

With a half-life, an event at time t weighs 2^((t - origin) / half_life) instead of 1, and a pair weighs as much as its
later event. Stored counts stay additive: the passing of time changes all weights by the same factor, which is applied
when counts are read. Counts are scaled so that all events together weigh `mass`, their weight at the end of training.
So no clock is read, answers change with events alone, and K keeps its size relative to the other parts of a score.
These weights are rounded to multiples of 2^-20 too: events more than 20 half-lives older than the origin weigh 0, and
sums are exact below 2^32, which 4 million events reach at 10 half-lives after the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from seqrec.errors import InputError

Rows = npt.NDArray[np.int64]
Columns = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]

RESOLUTION = 2.0**20
PAIRS_AT_ONCE = 2**23
"""Pairs at most that are summed together in `count`: about 500 MiB."""
CHANGES_AT_ONCE = 2**20
"""The same in `slice_changes`: fewer, because a serving process calls it."""
MAX_HALF_LIVES = 30.0
"""After the origin; later events weigh no more, so that one with a wrong year does not outweigh all others."""

_LOW = 2**32 - 1
_NO_ROWS: Rows = np.zeros(0, np.int64)
_NO_VALUES: Floats = np.zeros(0)


@dataclass(frozen=True, slots=True)
class CooccurrenceSettings:
    """How events are counted (the first five), and how counts are read. Chosen on validation.

    half_life: in units of the timestamps, 0: events never fade. origin: the newest timestamp of training. mass: the
    weight of all training events, as of the origin; 0: counts are not scaled.
    """

    window: int = 40  # w
    distance_power: float = 1.0  # p
    backward: float = 0.5  # beta: what a pair counts the other way round
    half_life: float = 0.0
    origin: float = 0.0
    mass: float = 0.0
    last: int = 5  # L
    recency_power: float = 1.0  # q
    source_power: float = 0.5  # a
    target_power: float = 0.0  # b

    def __post_init__(self) -> None:
        if self.window < 1 or self.last < 1:
            raise InputError("window and last are at least 1", "cooccurrence")
        for name in ("distance_power", "recency_power", "source_power", "target_power", "half_life", "mass"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{getattr(self, name)} is not a number from 0 up", f"cooccurrence.{name}")
        if not 0 <= self.backward <= 1:
            raise InputError(f"{self.backward} is not within 0 and 1", "cooccurrence.backward")

    def distance_weights(self) -> Floats:
        """[window] What a pair counts at distance 1, 2, ..."""
        return _rounded(np.arange(1.0, self.window + 1) ** -self.distance_power)

    @property
    def backward_weight(self) -> float:
        """beta, rounded to a multiple of 2^-10, so that sums stay exact."""
        return round(self.backward * 1024) / 1024

    def recency_weights(self, length: int) -> Floats:
        """[min(length, last)] u_k, newest first; they sum to 1."""
        weights = np.arange(1.0, min(length, self.last) + 1) ** -self.recency_power
        return weights / weights.sum() if length else weights

    def event_weights(self, timestamps: Times) -> Floats:
        """[m] 2^((t - origin) / half_life), rounded."""
        if not self.half_life:
            return np.ones(len(timestamps))
        return _rounded(np.exp2(np.minimum((timestamps - self.origin) / self.half_life, MAX_HALF_LIVES)))

    def pair_weights(self, by_distance: Floats | float, events: Floats) -> Floats:
        """[c] The weights of pairs, from those of their distance and of their later event."""
        weights = by_distance * events
        return _rounded(weights) if self.half_life else weights

    def scale(self, total: float) -> float:
        """The factor of stored counts when they are read; total: the weight of all events."""
        return self.mass / total if self.half_life and self.mass and total else 1.0


def with_half_life(settings: CooccurrenceSettings, half_life: float, timestamps: Times) -> CooccurrenceSettings:
    """The settings with a half-life, for training events of these times. half_life: in the same unit."""
    fading = replace(settings, half_life=half_life, origin=float(timestamps.max(initial=0)))
    return replace(fading, mass=float(fading.event_weights(timestamps).sum()))


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Numbers to add to counts: `values` [c] to pairs (sources, targets) [c], `event_values` [e] to items `events` [e].

    A pair or item may occur several times.
    """

    sources: Rows
    targets: Rows
    values: Floats
    events: Rows
    event_values: Floats

    def __neg__(self) -> Changes:
        return Changes(self.sources, self.targets, -self.values, self.events, -self.event_values)

    @classmethod
    def joined(cls, parts: Sequence[Changes]) -> Changes:
        return cls(
            np.concatenate([_NO_ROWS, *(part.sources for part in parts)]),
            np.concatenate([_NO_ROWS, *(part.targets for part in parts)]),
            np.concatenate([_NO_VALUES, *(part.values for part in parts)]),
            np.concatenate([_NO_ROWS, *(part.events for part in parts)]),
            np.concatenate([_NO_VALUES, *(part.event_values for part in parts)]),
        )

    def summed(self) -> Changes:
        """Each pair and each item once, in ascending order, without those that sum to 0."""
        keys, values = sum_by_key(pair_keys(self.sources, self.targets), self.values)
        events, event_values = sum_by_key(self.events, self.event_values)
        return Changes(keys >> 32, keys & _LOW, values, events, event_values)


def pair_keys(sources: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]) -> Rows:
    """[c] One number for each pair, which sorts by source, then target."""
    return (sources.astype(np.int64) << 32) | targets


def sum_by_key(keys: Rows, values: Floats) -> tuple[Rows, Floats]:
    """Each key once, in ascending order, with the sum of its values; sums of 0 are left out."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else _NO_ROWS
    sums = np.add.reduceat(values[order], begins) if len(begins) else _NO_VALUES
    kept = sums != 0
    return keys[begins][kept], sums[kept]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """pairs: C, float64 [n, n], row = the item followed. events: n_i, float64 [n]."""

    pairs: csr_array
    events: Floats

    def as_read(self, settings: CooccurrenceSettings) -> Counts:
        """With a half-life, scaled by `settings.scale`; otherwise unchanged."""
        scale = settings.scale(float(self.events.sum()))
        return self if scale == 1.0 else Counts(self.pairs * scale, self.events * scale)

    def __add__(self, changes: Changes) -> Counts:
        """New counts. Pairs that sum to 0 are removed, so the result equals a recount."""
        shape = self.pairs.shape
        pairs = self.pairs + coo_array((changes.values, (changes.sources, changes.targets)), shape=shape).tocsr()
        pairs.eliminate_zeros()
        return Counts(pairs, self.events + np.bincount(changes.events, changes.event_values, len(self.events)))


def count(
    settings: CooccurrenceSettings,
    rows: Rows,
    offsets: Rows,
    items: int,
    timestamps: Times | None = None,
    event_weights: Floats | None = None,
    compute: Blocks | None = None,
) -> Counts:
    """Count from scratch: user u has rows[offsets[u]:offsets[u + 1]], oldest first, each below `items`.

    timestamps: [m], read only with a half-life. event_weights: [m], factors of each event and of its
    pairs with earlier ones; None: 1. compute: computes the blocks elsewhere; None: here, one after the other.
    """
    weights = _event_weights(settings, rows, timestamps, event_weights)
    pairs = Pairs(settings, rows.astype(np.int32), offsets, weights, items)
    lengths, columns, values = [np.zeros(1, np.int64)], np.zeros(0, np.int32), np.zeros(0)
    for block in pairs.blocks() if compute is None else compute(pairs):
        lengths.append(np.diff(block.indptr))
        # The C library lets a large array grow without a copy of it, so that all counts are held once.
        columns.resize(len(columns) + block.nnz, refcheck=False)
        values.resize(len(values) + block.nnz, refcheck=False)
        columns[len(columns) - block.nnz :], values[len(values) - block.nnz :] = block.indices, block.data
    begins = np.cumsum(np.concatenate(lengths))
    kind = np.int32 if begins[-1] < 2**31 else np.int64
    index = columns.astype(kind, copy=False), begins.astype(kind)
    events = np.bincount(rows, weights, items).astype(np.float64)
    return Counts(csr_array((values, *index), shape=(items, items)), events)


class Pairs:
    """The pairs of all events, summed by the item that they start from: a range of items after the other.

    A block, the rows of C of one range, depends on no other block. Its bits depend on its bounds.
    """

    def __init__(
        self, settings: CooccurrenceSettings, rows: Columns, offsets: Rows, weights: Floats, items: int
    ) -> None:
        self.settings, self.rows, self.weights, self.items = settings, rows, weights, items
        lengths, places = np.diff(offsets), np.arange(len(rows))
        self.before = (places - np.repeat(offsets[:-1], lengths)).astype(np.int32)  # events of the user
        self.after = (np.repeat(offsets[1:], lengths) - 1 - places).astype(np.int32)
        self.by_distance = settings.distance_weights()[: max(int(lengths.max(initial=0)) - 1, 0)]
        self.events_at_once = max(1, PAIRS_AT_ONCE // (2 * max(1, len(self.by_distance))))
        self.by_item = np.argsort(rows, kind="stable")
        self.begins = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=items))])  # in by_item

    def bounds(self) -> Iterator[tuple[int, int]]:
        """The first item of each block, and the one after its last: together all items, in their order."""
        begin = 0
        while begin < self.items:
            end = int(np.searchsorted(self.begins, self.begins[begin] + self.events_at_once, side="right")) - 1
            end = min(max(end, begin + 1), self.items)
            yield begin, end
            begin = end

    def block(self, begin: int, end: int) -> csr_array:
        """[end - begin, items] Rows of C, sorted by column, without zeros. The bounds are one pair of `bounds`."""
        at_once = self.events_at_once
        block = csr_array((end - begin, self.items))
        for first in range(self.begins[begin], self.begins[end], at_once):
            block = block + self._summed(self.by_item[first : min(first + at_once, self.begins[end])], begin, end)
        block.sort_indices()
        return block

    def blocks(self) -> Iterator[csr_array]:
        """All rows of C in their order."""
        for begin, end in self.bounds():
            yield self.block(begin, end)

    def _summed(self, at: Rows, begin: int, end: int) -> csr_array:
        """The pairs from the events at these positions, whose items are in the range."""
        sources: list[Columns] = []
        targets: list[Columns] = []
        values: list[Floats] = []
        for shift, left in ((1, self.after), (-1, self.before)):
            own, others = at, left[at]
            for distance, weight in enumerate(self.by_distance, start=1):
                own, others = own[others >= distance], others[others >= distance]
                source, target = self.rows[own], self.rows[own + shift * distance]
                later = own + distance if shift > 0 else own
                value = self.settings.pair_weights(weight, self.weights[later])
                kept = source != target
                sources.append(source[kept] - begin)
                targets.append(target[kept])
                values.append((value if shift > 0 else self.settings.backward_weight * value)[kept])
        if not values:
            return csr_array((end - begin, self.items))
        there, source, target = np.concatenate(values), np.concatenate(sources), np.concatenate(targets)
        return coo_array((there, (source, target)), shape=(end - begin, self.items)).tocsr()


Blocks = Callable[[Pairs], Iterable[csr_array]]
"""Computes the blocks of C elsewhere, equal to `Pairs.blocks` and in its order."""


def slice_changes(
    settings: CooccurrenceSettings,
    rows: Rows,
    offsets: Rows,
    before: npt.NDArray[np.bool_],
    now: npt.NDArray[np.bool_],
    timestamps: Times | None = None,
    event_weights: Floats | None = None,
) -> Changes:
    """The changes of counts when events are added to, or removed from, some users' sequences.

    rows[offsets[u]:offsets[u + 1]] is slice u of a sequence, oldest first; `before` and `now` [m] mark the events that
    it contained before the change and contains after it. A slice must have `window` events (if there are as many) on
    either side of each changed one. Costs O(window) for a new newest event, O(window^2) for one elsewhere. timestamps,
    event_weights: as in `count`.
    """
    changed = np.flatnonzero(before != now)
    weights = _event_weights(settings, rows, timestamps, event_weights)
    first, last = _changed_ranges(changed, offsets)
    added = _crossing_pairs(settings, rows, offsets, weights, now, first, last)
    removed = _crossing_pairs(settings, rows, offsets, weights, before, first, last)
    signs = np.where(now[changed], 1.0, -1.0)
    events = Changes(_NO_ROWS, _NO_ROWS, _NO_VALUES, rows[changed], signs * weights[changed])
    return Changes.joined([added, -removed, events]).summed()


def _changed_ranges(changed: Rows, offsets: Rows) -> tuple[Rows, Rows]:
    """[u], [u] The position of the first changed event of each slice, and the one after the last; both 0 for none."""
    users = np.searchsorted(offsets, changed, side="right") - 1
    first, last = np.zeros(len(offsets) - 1, np.int64), np.zeros(len(offsets) - 1, np.int64)
    first[users[::-1]] = changed[::-1]
    last[users] = changed + 1
    return first, last


def _crossing_pairs(
    settings: CooccurrenceSettings,
    rows: Rows,
    offsets: Rows,
    weights: Floats,
    there: npt.NDArray[np.bool_],
    first: Rows,
    last: Rows,
) -> Changes:
    """Pairs of the events marked `there`, except pairs on the same side of all changes of a slice.

    The distance of an excepted pair is the same before and after the change.
    """
    place = np.concatenate([[0], np.cumsum(there)])  # of every event, among those marked
    begins, ends = place[offsets[:-1]], place[offsets[1:]]
    heads, middles = place[first], place[last]
    ends = np.where(last > 0, np.minimum(ends, middles + settings.window), heads)
    own, weights = rows[there], weights[there]
    sizes = ends - heads
    users = np.repeat(np.arange(len(sizes)), sizes)
    later = np.arange(len(users)) + np.repeat(heads - (np.cumsum(sizes) - sizes), sizes)  # positions that may be later
    steps = np.arange(1, settings.window + 1)
    by_distance = settings.distance_weights()
    parts: list[Changes] = []
    at_once = max(1, CHANGES_AT_ONCE // settings.window)
    for at in range(0, len(later), at_once):
        j, user = later[at : at + at_once, None], users[at : at + at_once, None]
        i = j - steps  # [c, window]
        kept = (i >= begins[user]) & (i < middles[user])
        kept &= own[np.where(kept, i, j)] != own[j]
        which, step = np.nonzero(kept)
        sources, targets = own[i[which, step]], own[j[which, 0]]
        values = settings.pair_weights(by_distance[step], weights[j[which, 0]])
        parts.append(
            Changes(
                np.concatenate([sources, targets]),
                np.concatenate([targets, sources]),
                np.concatenate([values, settings.backward_weight * values]),
                _NO_ROWS,
                _NO_VALUES,
            ).summed()
        )
    return Changes.joined(parts)


def _event_weights(
    settings: CooccurrenceSettings, rows: Rows, timestamps: Times | None, event_weights: Floats | None
) -> Floats:
    if settings.half_life and timestamps is None:
        raise InputError("weights that fall with age need timestamps, and the events have none", "half_life")
    weights = np.ones(len(rows)) if timestamps is None else settings.event_weights(timestamps)
    return weights if event_weights is None else weights * event_weights


def _rounded(weights: Floats) -> Floats:
    return np.round(weights * RESOLUTION) / RESOLUTION


def history_matrix(settings: CooccurrenceSettings, histories: Sequence[Rows], events: Floats) -> csr_array:
    """[b, n] The rows that are multiplied by C: u_k n^-a at the k-th newest item of each history. events: n_i, now."""
    lengths = np.array([min(len(history), settings.last) for history in histories], dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.concatenate([np.zeros(0, np.int64), *(history[::-1][: settings.last] for history in histories)])
    weights = np.concatenate([np.zeros(0), *(settings.recency_weights(length) for length in lengths)])
    weights *= np.maximum(events[rows], 1.0) ** -settings.source_power
    matrix = csr_array((weights, rows, indptr), shape=(len(histories), len(events)))
    matrix.sum_duplicates()
    return matrix
