"""A catalogue as one file: to keep, and to move it from SQLite to Redis or back. Nothing of it is encoded again.

JSON Lines (`.gz` too): a header; each item as in an items file, with its token ids (int32), their types (uint8) and
its vector (float32), little endian in base64, and the item tower that made them; perhaps the users' events; and an
end that counts them and has the SHA-256 of all lines before it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.histories import Event, HistoryStore, make_event
from seqrec.data.items import make_item
from seqrec.errors import FileFormatError, InputError
from seqrec.text.item_text import TokenizedItem

FORMAT = "seqrec-catalogue"
VERSION = 1

Progress = Callable[[str, int, int], object]
"""Called with the stage, how much is done, and of how much."""


@dataclass(frozen=True)
class Contents:
    """What a dump says about itself. `seq`: the catalogue's head when it was made."""

    catalogue_id: str
    seq: int
    items: int = 0
    events: int = 0


def write_dump(
    catalogue: Catalogue,
    histories: HistoryStore | None,
    file: IO[bytes],
    progress: Progress = lambda stage, done, total: None,
) -> Contents:
    """The items as they are at one moment, also while others write; the events as they come."""
    digest = hashlib.sha256()
    seq, total = catalogue.head(), catalogue.count()
    items = events = 0

    def line(record: dict[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        digest.update(text)
        file.write(text)

    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line({"format": FORMAT, "version": VERSION, "catalogue_id": catalogue.catalogue_id, "seq": seq, "created": created})
    for items, (_, entry) in enumerate(catalogue.scan(), 1):
        line(_item_record(entry))
        progress("items", items, max(items, total))
    for events, event in enumerate(histories.scan() if histories else (), 1):
        line(_event_record(event))
        progress("events", events, events)
    line({"end": True, "items": items, "events": events, "sha256": digest.hexdigest()})
    return Contents(catalogue.catalogue_id, seq, items, events)


def check_dump(file: IO[bytes], name: Path) -> Contents:
    """Read a dump to its end. Raises FileFormatError with the number of the line that is wrong, or cut off."""
    contents: Contents | None = None
    for part in _parts(file, name):
        if isinstance(part, Contents):
            contents = part
    assert contents is not None
    return contents


def read_dump(file: IO[bytes], name: Path) -> Iterator[CatalogueItem | Event]:
    """The items, then the events of a dump that was checked."""
    return (part for part in _parts(file, name) if not isinstance(part, Contents))


def _parts(file: IO[bytes], name: Path) -> Iterator[CatalogueItem | Event | Contents]:
    digest = hashlib.sha256()
    header: dict[str, Any] | None = None
    items = events = number = 0
    ids: set[str] = set()
    for number, text in _lines(file, name):
        try:
            record = _json_object(text)
            if header is None:
                header = _header(record)
            elif record.get("end") is True:
                _check_end(record, items, events, digest.hexdigest())
                if next(_lines(file, name, number), None) is not None:
                    raise InputError("more lines after the end; is this two dumps in one file?")
                yield Contents(header["catalogue_id"], header["seq"], items, events)
                return
            elif "user_id" in record:
                events += 1
                yield _event(record)
            else:
                entry = _item(record)
                if events:
                    raise InputError("an item after the first event")
                if entry.item.item_id in ids:
                    raise InputError(f"item {entry.item.item_id!r} is there already")
                ids.add(entry.item.item_id)
                items += 1
                yield entry
        except InputError as error:
            raise FileFormatError(name, number, str(error)) from None
        digest.update(text)
    raise FileFormatError(name, number + 1, "the file is cut off: it has no end; dump again, or take another copy")


def _lines(file: IO[bytes], name: Path, number: int = 0) -> Iterator[tuple[int, bytes]]:
    try:
        for line in file:
            number += 1
            yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(name, number + 1, f"the compressed file is cut off or damaged: {error}") from None


def _json_object(text: bytes) -> dict[str, Any]:
    if not text.endswith(b"\n"):
        raise InputError("the file is cut off in this line; dump again, or take another copy")
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(f"no JSON: {error}") from None
    if not isinstance(record, dict):
        raise InputError("no JSON object")
    return record


def _header(record: dict[str, Any]) -> dict[str, Any]:
    if record.get("format") != FORMAT:
        raise InputError(f"no dump of a catalogue: its first line does not say {FORMAT!r}")
    if record.get("version") != VERSION:
        raise InputError(f"a dump of version {record.get('version')!r}; this program reads {VERSION}")
    if not isinstance(record.get("catalogue_id"), str) or not isinstance(record.get("seq"), int):
        raise InputError("the first line has no catalogue_id or no seq")
    return record


def _check_end(record: dict[str, Any], items: int, events: int, digest: str) -> None:
    if (record.get("items"), record.get("events")) != (items, events):
        raise InputError(
            f"lines are missing: there are {items} items and {events} events, and the end counts "
            f"{record.get('items')} and {record.get('events')}"
        )
    if record.get("sha256") != digest:
        raise InputError("the lines before were altered: their SHA-256 is not the one that the end has")


def _item_record(entry: CatalogueItem) -> dict[str, Any]:
    item = entry.item
    record: dict[str, Any] = {"item_id": item.item_id, "attributes": dict(item.attributes), "available": item.available}
    if entry.tokens is not None:
        record["token_ids"] = _base64(np.asarray(entry.tokens.ids, "<i4"))
        record["token_types"] = _base64(np.asarray(entry.tokens.types, np.uint8))
    if entry.vector is not None:
        record["vector"] = _base64(np.asarray(entry.vector, "<f4"))
    if entry.item_tower is not None:
        record["item_tower"] = entry.item_tower
    return record


def _item(record: dict[str, Any]) -> CatalogueItem:
    if "item_id" not in record or "attributes" not in record:
        raise InputError("neither an item nor an event nor the end")
    item = make_item(record["item_id"], record["attributes"], record.get("available", True))
    ids, types = _array(record, "token_ids", "<i4"), _array(record, "token_types", "u1")
    if (ids is None) != (types is None) or (ids is not None and types is not None and len(ids) != len(types)):
        raise InputError("as many token_types as token_ids", "token_types")
    tower = record.get("item_tower")
    if tower is not None and not isinstance(tower, str):
        raise InputError("the digest of an item tower is a string", "item_tower")
    tokens = None if ids is None or types is None else TokenizedItem(ids, types)
    return CatalogueItem(item, tokens, _array(record, "vector", "<f4"), tower)


def _event_record(event: Event) -> dict[str, Any]:
    record: dict[str, Any] = {"user_id": event.user_id, "item_id": event.item_id, "timestamp": event.timestamp}
    return record if event.event_id is None else record | {"event_id": event.event_id}


def _event(record: dict[str, Any]) -> Event:
    return make_event(record["user_id"], record.get("item_id"), record.get("timestamp"), record.get("event_id"))


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _array(record: dict[str, Any], name: str, dtype: str) -> npt.NDArray[Any] | None:
    if name not in record:
        return None
    try:
        return np.frombuffer(base64.b64decode(record[name], validate=True), dtype)
    except (ValueError, TypeError) as error:
        raise InputError(f"no base64 of {np.dtype(dtype).name} numbers: {error}", name) from None


def equal_entries(one: CatalogueItem, other: CatalogueItem) -> bool:
    """Whether two are the same to the last bit, the order of attributes too."""
    return _item_record(one) == _item_record(other) and list(one.item.attributes) == list(other.item.attributes)
