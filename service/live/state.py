"""The live state of one snapshot: its items and all changes since, searchable immediately and exactly.

Changes after the snapshot go into a *delta*: an append-only log of rows, searched by brute force. A row that a later
one replaces is not touched; it is noted at which length of the log it ended. So a `View` is the log up to one length:
it never changes, costs nothing to make, and a request that holds one sees one state from beginning to end.

A *position* names an item in a view: rows of the snapshot first, then rows of the delta.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from index.catalogue.base import CatalogueItem, Change, Placement
from index.snapshot.snapshot import Snapshot
from seqrec.data.items import Item
from seqrec.encoder import Encoder, Vectors
from seqrec.hybrid.event_counts import EventChanges, EventCounts
from seqrec.hybrid.scoring import gate
from seqrec.text.item_text import TokenizedHistory, TokenizedItem, has_model_input, same_tokens
from service.live.columns import Check
from service.live.delta import NEVER, Delta
from service.live.engines.base import SearchEngine
from service.live.filter_language import Filter
from service.live.filters import FilterMask, SnapshotFilters, filter_mask, unseen
from service.live.sparse_rows import NOWHERE, CountedPlaces, DeltaTerms

Vector = npt.NDArray[np.float32]
_FIRST_CAPACITY = 256
ENCODE_AT_ONCE = 64
"""Records of another item tower that are encoded before the changes so far become visible."""
COMPACT_ABOVE = 4096
"""Rows of the delta that were replaced or deleted before it is packed, if they are also more than half of it."""
COMPACT_BYTES_ABOVE = 64 * 1024 * 1024
"""The same in bytes: a few large items that change often."""


class Towers:
    """The encoder of one checkpoint, for several threads: on a GPU one computes at a time."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.checkpoint = encoder.checkpoint
        self.metric = encoder.metric
        self._lock = nullcontext() if encoder.device.type == "cpu" else threading.Lock()

    def encode_items(self, items: Sequence[TokenizedItem]) -> Vectors:
        """-> float32 [n, dim]"""
        with self._lock:
            return self.encoder.encode_item_tokens(items)

    def encode_histories(self, histories: Sequence[TokenizedHistory]) -> Vectors:
        """-> float32 [b, dim]"""
        with self._lock:
            return self.encoder.encode_history_tokens(histories)


@dataclass(frozen=True, eq=False)
class _ByPosition:
    """Of what lies at each position: its events [size], for counts of items `counted` [n], and its gates [size]."""

    counted: npt.NDArray[np.float64]
    events: npt.NDArray[np.float64]
    gates: npt.NDArray[np.float32]


_NO_GATES = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class View:
    """The live catalogue as of `seq`. Safe to read from any thread, also while changes are applied."""

    snapshot: Snapshot
    towers: Towers
    seq: int
    length: int  # rows of the delta
    snapshot_hidden: int  # rows of the snapshot that are not shown: unavailable, replaced or deleted
    delta: Delta
    _hidden_at: npt.NDArray[np.int64]  # [n], the delta row that replaced or deleted this row of the snapshot
    _filters: SnapshotFilters
    counts: EventCounts
    """What people do, as far as the events' log was followed: newer than the view where events came since."""
    _places: CountedPlaces
    _delta_terms: DeltaTerms | None
    placements: Mapping[str, Placement]
    engine: SearchEngine | None = None
    """What searches the snapshot's rows; None: its own index, in this process."""

    def passed(self, wanted: Filter, check: Check = lambda: None) -> FilterMask:
        """What the filter lets through, including items that are not shown. `check` may raise to end the work."""
        return filter_mask(wanted, self._filters, self.delta, self.length, self.engine, check)

    def unseen_attributes(self, names: Sequence[str]) -> list[str]:
        """Those that were not found yet in the attributes that were read, nor by the engine."""
        return unseen(names, self._filters, self.delta.columns, self.engine)

    def unknown_attributes(self, names: Sequence[str], check: Check = lambda: None) -> list[str]:
        """Those that no item has, shown or not. Reads all attributes once, which `check` may end by raising."""
        if self.unseen_attributes(names):
            if self.engine is None:
                self._filters.read_names(check)
            self.delta.columns.read_names(self.length, self.delta.attributes, check)
        return self.unseen_attributes(names)

    def position_of(self, item_id: str) -> int | None:
        """Where an item is; None if there is no such item (any more). It may be unavailable."""
        n = len(self.snapshot.item_ids)
        row = self.delta.row_of(item_id, self.length)
        if row is not None:
            return None if self.delta.deleted[row] else n + row
        snapshot_row = self.snapshot.row_of(item_id)
        if snapshot_row is None or self._hidden_at[snapshot_row] < self.length:
            return None
        return snapshot_row

    def is_shown(self, position: int) -> bool:
        """Whether answers may contain the item: it is the last of its id, and available."""
        n = len(self.snapshot.item_ids)
        if position < n:
            return bool(self.snapshot.available[position]) and bool(self._hidden_at[position] >= self.length)
        return bool(self.delta_shown[position - n])

    def item_id(self, position: int) -> str:
        n = len(self.snapshot.item_ids)
        return self.snapshot.item_ids[position] if position < n else self.delta.item_ids[position - n]

    def item(self, position: int) -> Item:
        n = len(self.snapshot.item_ids)
        return self.snapshot.item(position) if position < n else self.delta.item(position - n)

    def tokens(self, position: int) -> TokenizedItem:
        n = len(self.snapshot.item_ids)
        return self.snapshot.tokens[position] if position < n else self.delta.tokens(position - n)

    def vectors(self, positions: Sequence[int]) -> Vectors:
        """-> float32 [len(positions), dim]"""
        n = len(self.snapshot.item_ids)
        wanted = np.asarray(positions, dtype=np.int64)
        out = np.empty((len(wanted), self.delta.vectors.shape[1]), np.float32)
        in_delta = wanted >= n
        out[in_delta] = self.delta.vectors[wanted[in_delta] - n]
        out[~in_delta] = self.snapshot.vectors[wanted[~in_delta]]
        return out

    @property
    def popularity(self) -> npt.NDArray[np.float64]:
        """[size] Events of what lies at each position, all that were counted; not to be changed."""
        return self.events_at(self.counts.events)

    def popularity_since(self, time: float) -> npt.NDArray[np.float64]:
        """[size] Events from `time` on (Unix seconds) of what lies at each position."""
        at = np.zeros(self.size)
        self._add_counts(at, self.counts.since(time))
        return at

    def events_at(self, events: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[size] Events of what lies at each position, for these counts; not to be changed."""
        return self._by_position(events).events

    def gates(self, events: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """[size] What the text score of each position is multiplied by, for these counts of events."""
        return self._by_position(events).gates

    def _by_position(self, counted: npt.NDArray[np.float64]) -> _ByPosition:
        """Of the last call where the counts are the same, and made from it where a few are others."""
        last: _ByPosition | None = self.__dict__.get("_last_by_position")
        if last is not None and last.counted is counted:
            return last
        if last is None or len(last.counted) > len(counted):
            last = None
            changed = np.arange(len(counted))
        else:
            before = len(last.counted)
            changed = np.flatnonzero(counted[:before] != last.counted)
            changed = np.concatenate([changed, np.arange(before, len(counted))])
        places = self.places(changed)
        there = places >= 0
        made = self._with_events(last, counted, places[there], counted[changed[there]])
        if len(self._places) >= len(counted):  # else some that are new have no place yet
            self.__dict__["_last_by_position"] = made  # a frozen dataclass; what several threads make is the same
        return made

    def _with_events(
        self,
        last: _ByPosition | None,
        counted: npt.NDArray[np.float64],
        places: npt.NDArray[np.int64],
        events: npt.NDArray[np.float64],
    ) -> _ByPosition:
        former = self._former
        settings = self.towers.encoder.hybrid
        at = former.copy() if last is None else last.events.copy()
        at[places] = former[places] + events
        if settings is None or not settings.cold_boost:
            return _ByPosition(counted, at, _NO_GATES)
        if last is None:
            return _ByPosition(counted, at, gate(settings, at).astype(np.float32))
        gates = last.gates.copy()
        gates[places] = gate(settings, at[places])
        return _ByPosition(counted, at, gates)

    @cached_property
    def _former(self) -> npt.NDArray[np.float64]:
        """[size] What a version before the log of events counted of a file; 0 in homes that are younger."""
        return np.concatenate([self.snapshot.popularity, self.delta.popularity[: self.length]])

    def _add_counts(self, at: npt.NDArray[np.float64], events: npt.NDArray[np.float64]) -> None:
        places = self.places(np.arange(len(events)))
        at[places[places >= 0]] += events[places >= 0]

    @property
    def delta_vectors(self) -> npt.NDArray[np.float32]:
        """[length, dim]; rows that are not shown are among them."""
        return self.delta.vectors[: self.length]

    @cached_property
    def delta_shown(self) -> npt.NDArray[np.bool_]:
        """[length]"""
        return self.delta.available[: self.length] & (self.delta.ended[: self.length] >= self.length)

    @cached_property
    def snapshot_shown(self) -> npt.NDArray[np.bool_]:
        """[n]"""
        return np.asarray(self.snapshot.available) & (self._hidden_at >= self.length)

    @property
    def size(self) -> int:
        """Number of positions: rows of the snapshot and of the delta."""
        return len(self.snapshot.item_ids) + self.length

    @cached_property
    def hidden(self) -> npt.NDArray[np.int64]:
        """Positions that no answer may hold."""
        return np.flatnonzero(~self.shown)

    @cached_property
    def shown(self) -> npt.NDArray[np.bool_]:
        """[size] Whether answers may hold what lies at a position."""
        return np.concatenate([self.snapshot_shown, self.delta_shown])

    def places(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Positions of items by their number in the counts; -1 for those that this view does not have."""
        places = self._places.of(numbers)
        for row in np.flatnonzero(places >= self.size):  # put after this view was made
            position = self.position_of(self.counts.item_id(int(numbers[row])))
            places[row] = NOWHERE if position is None else position
        return places

    def term_row(
        self, tokens: TokenizedItem, position: int | None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Terms and weights of an item with these tokens; `position` None for plain attributes."""
        terms = self.snapshot.terms
        if terms is not None and position is not None and position < len(self.snapshot.item_ids):
            return terms.items.row(position)
        made = self.towers.encoder.term_vectors([tokens])
        return made.indices.astype(np.int32), made.data

    def delta_words(self, terms: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[length] Inner products of the delta's term vectors with a query of these terms."""
        if self._delta_terms is None:
            return np.zeros(self.length, np.float32)
        return self._delta_terms.scores(self.length, self.delta.tokens, terms, weights)


class LiveState:
    """A snapshot and its delta. One writer at a time calls `apply`; `view` is what has been applied."""

    view: View
    _delta: Delta
    _hidden_at: npt.NDArray[np.int64]
    _ended: int  # rows that show nothing in any view to come
    _ended_bytes: int
    _bytes: int  # of all rows

    def __init__(
        self,
        snapshot: Snapshot,
        towers: Towers,
        counts: EventCounts | None = None,
        placements: Mapping[str, Placement] | None = None,
        engine: SearchEngine | None = None,
    ) -> None:
        """`counts` of events to go on with; None: those of the snapshot. `placements`: those there are now."""
        self.engine = engine
        self._placements = dict(placements or {})
        self.snapshot = snapshot
        self.towers = towers
        self.filters = SnapshotFilters(snapshot)
        settings = towers.encoder.hybrid
        pairs = None if settings is None else settings.cooccurrence
        self.counts = EventCounts(pairs, snapshot.counts) if counts is None else counts
        self._places = CountedPlaces(self.counts, snapshot)
        self.tombstones = 0
        """Rows of the snapshot that were replaced or deleted."""
        self.changes = 0
        """Puts and deletes since the snapshot, also those that later ones replaced."""
        self.changed_bytes = 0
        """Of these changes."""
        available = np.asarray(snapshot.available)
        self._not_shown = int(available.size - np.count_nonzero(available))
        self._start(np.full(len(snapshot.item_ids), NEVER), Delta.empty(_FIRST_CAPACITY, towers.encoder.dim))
        self._publish(snapshot.manifest.seq)

    def portions(self, changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
        """The changes, cut so that none holds much to encode: `apply` them one by one, and the first are seen soon."""
        begin = foreign = 0
        for end, change in enumerate(changes):
            foreign += change.entry is not None and self._is_foreign(change.entry)
            if foreign > ENCODE_AT_ONCE:
                yield changes[begin:end]
                begin, foreign = end, 1
        if begin < len(changes):
            yield changes[begin:]

    def apply(self, changes: Sequence[Change], seq: int) -> None:
        """Apply changes, which come in the log's order, and call the result the state at `seq`.

        What another item tower encoded, or none, is encoded here. An item that the model cannot read is left out, as it
        is of a snapshot. All of it is seen at once.
        """
        fresh = self._encoded([change.entry for change in changes if change.entry is not None])
        before = self._bytes
        for change in changes:
            if change.op == "put":
                item, tokens, vector = next(fresh)
                if has_model_input(tokens):
                    self._append(item.item_id, item, tokens, vector)
                else:
                    self._append(item.item_id)
            elif change.op == "delete":
                assert change.item_id is not None
                self._append(change.item_id)
            elif change.op == "place":
                assert change.placement is not None
                self._place(change.placement, change)
        self.changes += sum(change.op in ("put", "delete") for change in changes)
        self.changed_bytes += self._bytes - before
        self._publish(seq)
        rows, size = self._ended, self._ended_bytes
        if (rows > COMPACT_ABOVE and 2 * rows > self.view.length) or (
            size > COMPACT_BYTES_ABOVE and 2 * size > self._bytes
        ):
            self._pack()

    def _is_foreign(self, entry: CatalogueItem) -> bool:
        return entry.vector is None or entry.tokens is None or entry.item_tower != self.towers.encoder.item_tower

    def _encoded(self, entries: Sequence[CatalogueItem]) -> Iterator[tuple[Item, TokenizedItem, Vector]]:
        """The entries with tokens and vector of this state's item tower."""
        foreign = [entry for entry in entries if self._is_foreign(entry)]
        tokens = self.towers.encoder.tokenize_items([entry.item for entry in foreign]) if foreign else []
        vectors = [self._known_vector(e.item.item_id, its) for e, its in zip(foreign, tokens, strict=True)]
        bare = [row for row, vector in enumerate(vectors) if vector is None]
        if bare:
            for row, vector in zip(bare, self.towers.encode_items([tokens[row] for row in bare]), strict=True):
                vectors[row] = vector
        made = {id(entry): (its, vector) for entry, its, vector in zip(foreign, tokens, vectors, strict=True)}
        for entry in entries:
            its, vector = made.get(id(entry), (entry.tokens, entry.vector))
            assert its is not None
            assert vector is not None
            yield entry.item, its, vector

    def _known_vector(self, item_id: str, tokens: TokenizedItem) -> Vector | None:
        """The vector of an item that reads as it did: another model's records change the texts of few."""
        position = self.view.position_of(item_id)
        if position is None:
            return None
        return self.view.vectors([position])[0] if same_tokens(self.view.tokens(position), tokens) else None

    def _append(
        self,
        item_id: str,
        item: Item | None = None,
        tokens: TokenizedItem | None = None,
        vector: Vector | None = None,
    ) -> None:
        if self._delta.full:
            self._delta = self._delta.grown()
        delta, row = self._delta, len(self._delta.item_ids)
        snapshot_row = self.snapshot.row_of(item_id)
        popularity = 0 if snapshot_row is None else self.snapshot.popularity[snapshot_row]
        before = delta.append(item_id, item, tokens, vector, popularity)
        self._bytes += delta.size_of(row)
        if before is not None:
            self._ended += not delta.deleted[before]
            self._ended_bytes += delta.size_of(before)
        elif snapshot_row is not None and self._hidden_at[snapshot_row] == NEVER:
            self._hidden_at[snapshot_row] = row
            self.tombstones += 1
            self._not_shown += bool(self.snapshot.available[snapshot_row])
        self._ended += item is None
        self._places.put(item_id, NOWHERE if item is None else len(self.snapshot.item_ids) + row)

    def _place(self, name: str, change: Change) -> None:
        known = self._placements.get(name)
        if known is not None and known.seq > change.seq:  # read from the store when this change was in the log already
            return
        others = {other: placement for other, placement in self._placements.items() if other != name}
        self._placements = others if change.rules is None else others | {name: Placement(change.seq, change.rules)}

    def follow_events(self, changes: EventChanges) -> None:
        """Count events that were added to the log, and subtract those that were removed."""
        new = self.counts.apply(changes)
        self._places.extend(new, self.view.position_of)

    def _start(self, hidden_at: npt.NDArray[np.int64], delta: Delta) -> None:
        self._hidden_at, self._delta = hidden_at, delta
        self._ended = self._ended_bytes = self._bytes = 0
        encoder = self.towers.encoder
        self._delta_terms = None if encoder.hybrid is None else DeltaTerms(encoder.term_vectors)

    def _publish(self, seq: int) -> None:
        self.view = View(
            self.snapshot,
            self.towers,
            seq,
            len(self._delta.item_ids),
            self._not_shown,
            self._delta,
            self._hidden_at,
            self.filters,
            self.counts,
            self._places,
            self._delta_terms,
            self._placements,
            self.engine,
        )

    def _pack(self) -> None:
        """Begin a new log with the current rows only, so that items which change often do not fill the memory."""
        old, living = self._delta, self._delta.living()
        # What the snapshot held of them, and of what was deleted, stays hidden in every view of the new log.
        hidden = np.where(self._hidden_at == NEVER, NEVER, -1)
        self._start(hidden, Delta.empty(max(_FIRST_CAPACITY, 2 * len(living)), old.vectors.shape[1]))
        for row in living:
            self._append(old.item_ids[row], old.item(row), old.tokens(row), old.vectors[row])
        self._publish(self.view.seq)
