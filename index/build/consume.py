"""Items and events from a Redis stream, read by a consumer group: each at least once, and stored once.

An entry of the stream has a field `event` or `item`: the JSON of one event of POST /events, or of one item of POST
/items. It is acknowledged after it is stored. An event without an event_id gets one made of its entry's id, so an entry
that comes again is not stored again. What cannot be read is moved to another stream with the reason, and read no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from index.build.import_items import import_items
from index.catalogue.base import Catalogue
from index.catalogue.histories import Event, HistoryStore, make_event
from seqrec.data.items import Item, make_item
from seqrec.data.jsonl import json_object
from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.text.item_text import has_model_input

log = logging.getLogger(__name__)

AT_ONCE = 1000
CLAIM_SECONDS = 60.0
"""So long after it was delivered, an entry that was not acknowledged goes to another consumer of the group."""
_BLOCK_SECONDS = 1.0

Entry = tuple[str, dict[bytes, bytes]]


@dataclass(frozen=True)
class Consumed:
    """How many of each were new. lag: entries of the stream that no consumer has read yet; None: not known."""

    events: int = 0
    items: int = 0
    rejected: int = 0
    lag: int | None = None

    def __add__(self, other: Consumed) -> Consumed:
        return Consumed(self.events + other.events, self.items + other.items, self.rejected + other.rejected, other.lag)


@dataclass
class _Batch:
    events: list[Event] = field(default_factory=list)
    items: dict[str, tuple[Entry, Item]] = field(default_factory=dict)  # by id: the last one of each
    rejected: list[tuple[Entry, str]] = field(default_factory=list)


class StreamConsumer:
    """One consumer of a group. Raises redis.RedisError where the stream cannot be read."""

    def __init__(self, client: redis.Redis, stream: str, group: str, name: str) -> None:
        self._redis, self._stream, self._group, self._name = client, stream, group, name
        self.rejected_stream = f"{stream}:rejected"
        self._own = True  # first what was delivered to this consumer before, and not acknowledged
        self._claimed = 0.0
        try:
            client.xgroup_create(stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read(self, wait: bool) -> list[Entry]:
        """The next entries, those that were left unacknowledged first; [] if there are none within a second."""
        if self._own:
            entries = self._read("0", None)
            if entries:
                return entries
            self._own = False
        if time.monotonic() - self._claimed >= CLAIM_SECONDS:
            self._claimed = time.monotonic()
            left = self._redis.xautoclaim(
                self._stream, self._group, self._name, int(CLAIM_SECONDS * 1000), count=AT_ONCE
            )[1]
            if left:
                self._claimed = 0.0  # perhaps there are more
                return [(_text(entry_id), fields) for entry_id, fields in left]
        return self._read(">", int(_BLOCK_SECONDS * 1000) if wait else None)

    def apply(
        self, entries: Sequence[Entry], catalogue: Catalogue, histories: HistoryStore, encoder: Callable[[], Encoder]
    ) -> Consumed:
        """Store what the entries have, durably, then acknowledge them. Raises CatalogueError; then nothing is lost."""
        batch = _parsed(entries)
        if batch.items:
            _reject_textless(batch, encoder())
        items = [item for _, item in batch.items.values()]
        changed = 0
        if items:
            imported = import_items(catalogue, encoder(), items)
            changed = imported.created + imported.updated
        events = histories.add(batch.events)
        with self._redis.pipeline(transaction=True) as pipeline:
            for (entry_id, fields), reason in batch.rejected:
                pipeline.xadd(self.rejected_stream, {**fields, b"entry": entry_id, b"reason": reason})
            if entries:
                pipeline.xack(self._stream, self._group, *(entry_id for entry_id, _ in entries))
            pipeline.execute()
        for (entry_id, _), reason in batch.rejected[:5]:
            log.warning("entry %s was moved to %s: %s", entry_id, self.rejected_stream, reason)
        return Consumed(events, changed, len(batch.rejected), self.lag())

    def lag(self) -> int | None:
        for group in self._redis.xinfo_groups(self._stream):
            if _text(group["name"]) == self._group:
                return None if group.get("lag") is None else int(group["lag"])
        return None

    def _read(self, after: str, block: int | None) -> list[Entry]:
        found: Any = self._redis.xreadgroup(self._group, self._name, {self._stream: after}, AT_ONCE, block)
        entries = found[0][1] if found else []
        return [(_text(entry_id), fields or {}) for entry_id, fields in entries]


def _parsed(entries: Sequence[Entry]) -> _Batch:
    batch = _Batch()
    for entry in entries:
        entry_id, fields = entry
        try:
            if b"event" in fields:
                batch.events.append(_event(fields[b"event"], entry_id))
            elif b"item" in fields:
                item = _item(fields[b"item"])
                batch.items.pop(item.item_id, None)
                batch.items[item.item_id] = (entry, item)
            else:
                raise InputError("an entry has a field event or item, with JSON")
        except (InputError, UnicodeDecodeError) as error:
            batch.rejected.append((entry, str(error)))
    return batch


def _event(text: bytes, entry_id: str) -> Event:
    record = json_object(text.decode())
    _check_fields(record, {"user_id", "item_id", "timestamp", "event_id", "type", "value"})
    sent = int(entry_id.partition("-")[0]) / 1000  # when the entry was added
    event_id = record.get("event_id")
    event = make_event(
        record.get("user_id"),
        record.get("item_id"),
        sent if record.get("timestamp") is None else record["timestamp"],
        event_id,
        "",
        record.get("type"),
        record.get("value"),
    )
    return event if event_id is not None else replace(event, event_id=f"stream {entry_id}")


def _item(text: bytes) -> Item:
    record = json_object(text.decode())
    _check_fields(record, {"item_id", "attributes", "available"})
    return make_item(record.get("item_id"), record.get("attributes"), record.get("available", True))


def _check_fields(record: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(record.keys() - known):
        raise InputError("unknown field", unknown[0])


def _reject_textless(batch: _Batch, encoder: Encoder) -> None:
    if not encoder.cold_items:
        return
    tokens = encoder.tokenize_items([item for _, item in batch.items.values()])
    for item_id, its in zip(list(batch.items), tokens, strict=True):
        if not has_model_input(its):
            entry, _ = batch.items.pop(item_id)
            batch.rejected.append((entry, "the model finds no text in it"))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
