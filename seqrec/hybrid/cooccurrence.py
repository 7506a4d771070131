"""Co-occurrence: which items follow which in users' sequences, counted so that one event changes a few numbers.

Of every two events of one user that lie d <= window steps apart, the earlier of item i and the later of item j != i,

    C_ij += d^-p          C_ji += beta d^-p          n_i: events of item i

and an item j scores for a history h, newest first h_1, h_2, ...

    score(h, j) = n_j^-b  sum_{k <= L} u_k n_{h_k}^-a C_{h_k j},        u_k = k^-q / sum of them

This is item-based collaborative filtering (Sarwar et al., WWW 2001) with directed, distance-decayed counts; with b = 0
popular targets are not punished. All sums are additive: a new event adds at most 2 x window numbers, a user who leaves
takes their numbers out again. Normalisation happens when a score is computed, never in the counts.

d^-p is rounded to a multiple of 2^-20, so without a half-life the sums in float64 are exact and do not depend on the
order in which events came: counting anew and following the log give the same bits.

With a half-life an event at time t weighs 2^((t - origin) / half_life); a pair weighs as its later event. The sums stay
additive, and `scale` turns them into "as of now" when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from seqrec.errors import InputError

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]

RESOLUTION = 2.0**20
PAIRS_AT_ONCE = 2**23
"""About 300 MiB while they are summed up."""
MAX_HALF_LIVES = 500.0
"""Distance of an event from the origin of time, in half-lives, within which float64 does not overflow."""


@dataclass(frozen=True, slots=True)
class CooccurrenceSettings:
    """How events are counted (the first five), and how counts are read. Chosen on validation.

    half_life: in units of the timestamps, 0: events never fade. origin: any fixed timestamp near those of the data.
    """

    window: int = 40  # w
    distance_power: float = 1.0  # p
    backward: float = 0.5  # beta: what a pair counts the other way round
    half_life: float = 0.0
    origin: float = 0.0
    last: int = 5  # L
    recency_power: float = 1.0  # q
    source_power: float = 0.5  # a
    target_power: float = 0.0  # b

    def __post_init__(self) -> None:
        if self.window < 1 or self.last < 1:
            raise InputError("window and last are at least 1", "cooccurrence")
        for name in ("distance_power", "recency_power", "source_power", "target_power", "half_life"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{getattr(self, name)} is not a number from 0 up", f"cooccurrence.{name}")
        if not 0 <= self.backward <= 1:
            raise InputError(f"{self.backward} is not within 0 and 1", "cooccurrence.backward")

    def distance_weights(self) -> Floats:
        """[window] What a pair counts at distance 1, 2, ..."""
        return np.round(np.arange(1.0, self.window + 1) ** -self.distance_power * RESOLUTION) / RESOLUTION

    def recency_weights(self, length: int) -> Floats:
        """[min(length, last)] u_k, newest first; they sum to 1."""
        weights = np.arange(1.0, min(length, self.last) + 1) ** -self.recency_power
        return weights / weights.sum() if length else weights

    def event_weights(self, timestamps: Times) -> Floats:
        """[m] 2^((t - origin) / half_life). Raises InputError for a time too far from the origin."""
        if not self.half_life:
            return np.ones(len(timestamps))
        age = (timestamps - self.origin) / self.half_life
        if len(age) and not np.abs(age).max() <= MAX_HALF_LIVES:
            raise InputError(
                f"an event lies {np.abs(age).max():.0f} half-lives from the origin of time {self.origin:.0f}, and "
                f"{MAX_HALF_LIVES:.0f} is the limit: train again, which moves the origin, or take a longer half-life",
                "timestamp",
            )
        return np.exp2(age)

    def scale(self, now: float) -> float:
        """What turns stored counts into counts as of `now`: 1 without a half-life."""
        return 1.0 / float(self.event_weights(np.array([now]))[0])


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Numbers to add to counts: `values` [c] to pairs (sources, targets) [c], `event_values` [e] to items `events` [e].

    The same pair or item may be there several times.
    """

    sources: Rows
    targets: Rows
    values: Floats
    events: Rows
    event_values: Floats

    def __neg__(self) -> Changes:
        return Changes(self.sources, self.targets, -self.values, self.events, -self.event_values)

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            np.concatenate([self.sources, other.sources]),
            np.concatenate([self.targets, other.targets]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.events, other.events]),
            np.concatenate([self.event_values, other.event_values]),
        )

    def summed(self) -> Changes:
        """Each pair and each item once, rising; what cancels out is left out."""
        order = np.lexsort((self.targets, self.sources))
        sources, targets = self.sources[order], self.targets[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (sources[1:] != sources[:-1]) | (targets[1:] != targets[:-1])
        begins = np.flatnonzero(new)
        values = np.add.reduceat(self.values[order], begins) if len(begins) else self.values[:0]
        items, item_of = np.unique(self.events, return_inverse=True)
        event_values = np.bincount(item_of, self.event_values, len(items)).astype(np.float64)
        kept, kept_items = values != 0, event_values != 0
        return Changes(
            sources[begins][kept], targets[begins][kept], values[kept], items[kept_items], event_values[kept_items]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """pairs: C, float64 [n, n], row = the item followed. events: n_i, float64 [n]."""

    pairs: csr_array
    events: Floats

    def __add__(self, changes: Changes) -> Counts:
        """New counts. Pairs that come to 0 are taken out, so the result equals a recount."""
        shape = self.pairs.shape
        pairs = self.pairs + coo_array((changes.values, (changes.sources, changes.targets)), shape=shape).tocsr()
        pairs.eliminate_zeros()
        return Counts(pairs, self.events + np.bincount(changes.events, changes.event_values, len(self.events)))


def count(
    settings: CooccurrenceSettings, rows: Rows, offsets: Rows, items: int, timestamps: Times | None = None
) -> Counts:
    """Count from scratch: user u has rows[offsets[u]:offsets[u + 1]], oldest first, each below `items`.

    timestamps: [m], read only with a half-life.
    """
    weights = _event_weights(settings, rows, timestamps)
    pairs = csr_array((items, items))
    for sources, targets, values in _pairs(settings, rows, offsets, weights):
        pairs = pairs + coo_array((values, (sources, targets)), shape=(items, items)).tocsr()
    backward = settings.backward * pairs.T.tocsr()
    return Counts((pairs + backward).sorted_indices(), np.bincount(rows, weights, items).astype(np.float64))


def sequence_changes(settings: CooccurrenceSettings, rows: Rows, timestamps: Times | None = None) -> Changes:
    """What one user's whole sequence, oldest first, adds: rows [m], timestamps [m] (read only with a half-life)."""
    return update_changes(settings, rows[:0], rows, None if timestamps is None else timestamps[:0], timestamps)


def update_changes(
    settings: CooccurrenceSettings,
    before: Rows,
    after: Rows,
    before_timestamps: Times | None = None,
    after_timestamps: Times | None = None,
) -> Changes:
    """What turns the counts of a user's sequence `before` into those of `after`: events put in anywhere, or taken out.

    Costs O(window) for a new newest event, O(window^2) for one elsewhere. With a half-life the timestamps of both are
    needed.
    """
    same = min(len(before), len(after))
    equal = before[:same] == after[:same]
    from_end = before[len(before) - same :] == after[len(after) - same :]
    if settings.half_life and before_timestamps is not None and after_timestamps is not None:
        equal &= before_timestamps[:same] == after_timestamps[:same]
        from_end &= before_timestamps[len(before) - same :] == after_timestamps[len(after) - same :]
    head = same if equal.all() else int(equal.argmin())
    tail = same if from_end.all() else int(from_end[::-1].argmin())
    tail = min(tail, same - head)
    added = _changed_part(settings, after, after_timestamps, head, tail)
    removed = _changed_part(settings, before, before_timestamps, head, tail)
    return (added + -removed).summed()


def _changed_part(
    settings: CooccurrenceSettings, rows: Rows, timestamps: Times | None, head: int, tail: int
) -> Changes:
    """Pairs and events of a sequence but for pairs that lie in its first `head` events or far within its last `tail`.

    Pairs within the tail are there where they are close to the changed part: they are the same in both sequences.
    """
    begin, middle = max(0, head - settings.window), len(rows) - tail
    end = min(len(rows), middle + settings.window) if middle > head or tail else len(rows)
    piece = rows[begin:end]
    weights = _event_weights(settings, piece, None if timestamps is None else timestamps[begin:end])
    later = np.arange(head - begin, len(piece))
    distance = later[None, :] - np.arange(len(piece))[:, None]  # [earlier, later]
    # A pair of the tail alone is unchanged.
    crossing = (np.arange(len(piece)) < middle - begin)[:, None] | (later < middle - begin)[None, :]
    near = (distance >= 1) & (distance <= settings.window) & crossing & (piece[:, None] != piece[later][None, :])
    one, other = np.nonzero(near)
    values = settings.distance_weights()[distance[one, other] - 1] * weights[later[other]]
    sources, targets = piece[one], piece[later[other]]
    changed = slice(head - begin, middle - begin)
    return Changes(
        np.concatenate([sources, targets]),
        np.concatenate([targets, sources]),
        np.concatenate([values, settings.backward * values]),
        piece[changed],
        weights[changed],
    )


def _pairs(
    settings: CooccurrenceSettings, rows: Rows, offsets: Rows, weights: Floats
) -> Iterator[tuple[Rows, Rows, Floats]]:
    """Earlier items, later items and what each pair counts, in pieces of PAIRS_AT_ONCE or a little more."""
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    longest = int(np.diff(offsets).max(initial=0))
    parts: list[tuple[Rows, Rows, Floats]] = []
    for distance, weight in enumerate(settings.distance_weights()[: max(longest - 1, 0)], start=1):
        earlier, later = rows[:-distance], rows[distance:]
        kept = (users[:-distance] == users[distance:]) & (earlier != later)
        parts.append((earlier[kept], later[kept], weight * weights[distance:][kept]))
        if sum(len(part[0]) for part in parts) >= PAIRS_AT_ONCE:
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def _joined(parts: Sequence[tuple[Rows, Rows, Floats]]) -> tuple[Rows, Rows, Floats]:
    earlier, later, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return earlier, later, values


def _event_weights(settings: CooccurrenceSettings, rows: Rows, timestamps: Times | None) -> Floats:
    if settings.half_life and timestamps is None:
        raise InputError("counts that fade need the timestamps of events, and there are none", "half_life")
    return np.ones(len(rows)) if timestamps is None else settings.event_weights(timestamps)


def history_matrix(settings: CooccurrenceSettings, histories: Sequence[Rows], events: Floats) -> csr_array:
    """[b, n] What each history multiplies C with: u_k n^-a at the item it had k-th last. events: n_i, as of now."""
    lengths = np.array([min(len(history), settings.last) for history in histories], dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.concatenate([np.zeros(0, np.int64), *(history[::-1][: settings.last] for history in histories)])
    weights = np.concatenate([np.zeros(0), *(settings.recency_weights(length) for length in lengths)])
    weights *= np.maximum(events[rows], 1.0) ** -settings.source_power
    matrix = csr_array((weights, rows, indptr), shape=(len(histories), len(events)))
    matrix.sum_duplicates()
    return matrix
