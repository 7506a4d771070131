"""Items and events from a stream, each stored at least once, and counted once.

A record is the JSON of one event of POST /events, or of one item of POST /items. It is acknowledged after it is stored.
An event without an event_id gets one made of the record's place in the stream, so a record that comes again is not
stored again. What cannot be read is moved to another stream with the reason, and read no more.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

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
WAIT_SECONDS = 1.0
"""That a consumer waits for the next records, at most."""

ANSWER_SECONDS = 20.0
"""That a server has for one answer."""

S = TypeVar("S")
Rejected = tuple["Record[S]", str]
"""A record, and why it cannot be read."""


@dataclass(frozen=True)
class Record(Generic[S]):
    """text: JSON; None: there is none. kind None: it may be either. place: names it in the stream, and never another
    one. sent: Unix seconds. source: what the consumer needs of it."""

    kind: Literal["event", "item"] | None
    text: bytes | None
    place: str
    sent: float
    source: S


@dataclass(frozen=True)
class Consumed:
    """How many of each were new. lag: records of the stream that no consumer has read yet; None: not known."""

    events: int = 0
    items: int = 0
    rejected: int = 0
    lag: int | None = None

    def __add__(self, other: Consumed) -> Consumed:
        return Consumed(self.events + other.events, self.items + other.items, self.rejected + other.rejected, other.lag)


class StreamConsumer(ABC, Generic[S]):
    """One consumer of a group. Methods raise CatalogueError where the stream cannot be read or written, within
    ANSWER_SECONDS where nobody answers."""

    rejected_name: str
    """Of the stream that takes what cannot be read."""

    @abstractmethod
    def read(self, wait: bool) -> list[Record[S]]:
        """The next records, those that were left unacknowledged first; [] if there are none within WAIT_SECONDS."""

    @property
    @abstractmethod
    def at_end(self) -> bool:
        """Whether all records were read, as of the last `read`."""

    @abstractmethod
    def lag(self) -> int | None:
        """As in `Consumed`."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group."""

    @abstractmethod
    def _acknowledge(self, records: Sequence[Record[S]], rejected: Sequence[Rejected[S]]) -> None:
        """Move what was rejected, then acknowledge all."""

    def apply(
        self,
        records: Sequence[Record[S]],
        catalogue: Catalogue,
        histories: HistoryStore,
        encoder: Callable[[], Encoder],
    ) -> Consumed:
        """Store what the records have, durably, then acknowledge them. Raises CatalogueError; then nothing is lost."""
        batch = parsed(records)
        if batch.items:
            _reject_textless(batch, encoder())
        items = [item for _, item in batch.items.values()]
        changed = 0
        if items:
            imported = import_items(catalogue, encoder(), items)
            changed = imported.created + imported.updated
        events = histories.add(batch.events)
        self._acknowledge(records, batch.rejected)
        for record, reason in batch.rejected[:5]:
            log.warning("%s was moved to %s: %s", record.place, self.rejected_name, reason)
        return Consumed(events, changed, len(batch.rejected), self.lag())


@dataclass
class _Batch(Generic[S]):
    events: list[Event] = field(default_factory=list)
    items: dict[str, tuple[Record[S], Item]] = field(default_factory=dict)  # by id: the last one of each
    rejected: list[Rejected[S]] = field(default_factory=list)


def parsed(records: Sequence[Record[S]]) -> _Batch[S]:
    batch: _Batch[S] = _Batch()
    for record in records:
        try:
            if record.text is None:
                raise InputError("there is neither an event nor an item")
            fields = json_object(record.text.decode())
            if (record.kind or ("event" if "user_id" in fields else "item")) == "event":
                batch.events.append(_event(fields, record))
            else:
                item = _item(fields)
                batch.items.pop(item.item_id, None)
                batch.items[item.item_id] = (record, item)
        except (InputError, UnicodeDecodeError) as error:
            batch.rejected.append((record, str(error)))
    return batch


def _event(fields: dict[str, Any], record: Record[S]) -> Event:
    _check_fields(fields, {"user_id", "item_id", "timestamp", "event_id", "type", "value"})
    event_id = fields.get("event_id")
    event = make_event(
        fields.get("user_id"),
        fields.get("item_id"),
        record.sent if fields.get("timestamp") is None else fields["timestamp"],
        event_id,
        "",
        fields.get("type"),
        fields.get("value"),
    )
    return event if event_id is not None else replace(event, event_id=record.place)


def _item(fields: dict[str, Any]) -> Item:
    _check_fields(fields, {"item_id", "attributes", "available"})
    return make_item(fields.get("item_id"), fields.get("attributes"), fields.get("available", True))


def _check_fields(fields: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(fields.keys() - known):
        raise InputError("unknown field", unknown[0])


def _reject_textless(batch: _Batch[S], encoder: Encoder) -> None:
    if not encoder.cold_items:
        return
    tokens = encoder.tokenize_items([item for _, item in batch.items.values()])
    for item_id, its in zip(list(batch.items), tokens, strict=True):
        if not has_model_input(its):
            record, _ = batch.items.pop(item_id)
            batch.rejected.append((record, "the model finds no text in it"))
