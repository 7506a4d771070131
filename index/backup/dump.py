"""The catalogue as one file, for backups and to move it between SQLite and Redis without encoding items again.

JSON Lines (`.gz` too): a header; the placements with their rules; each item as in an items file, with its token ids
(int32), their types (uint8) and its vector (float32), little endian in base64, the item tower that made them, and its
popularity as far as events that are not in the file made it; optionally the users' events, with the answers that they
are outcomes of; and an end with their numbers and the SHA-256 of all lines before it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.event_types import EventTypes, format_session_gap, parse_session_gap, parse_type
from index.catalogue.histories import Event, HistoryStore, event_record, make_event
from index.catalogue.outcomes import OUTCOMES, attribution_of
from seqrec.data.items import former_user_id, make_item
from seqrec.errors import FileFormatError, InputError
from seqrec.text.item_text import TokenizedItem

FORMAT = "seqrec-catalogue"
VERSION = 3
_READABLE = (1, 2, 3)  # 1 had no placements, 2 no attributions of events

Progress = Callable[[str, int, int], object]
"""Called with the stage, the number done, and the total."""


@dataclass(frozen=True)
class Contents:
    """The summary of a dump. `seq`: the head of the catalogue when it was made."""

    catalogue_id: str
    seq: int
    items: int = 0
    events: int = 0
    event_types: EventTypes | None = None
    """The settings of the histories; None: it has no histories, or is of a version before there were types."""


@dataclass(frozen=True)
class DumpedPlacement:
    name: str
    rules: str


@dataclass(frozen=True, eq=False)
class DumpedItem:
    entry: CatalogueItem
    popularity: float = 0.0


def write_dump(
    catalogue: Catalogue,
    histories: HistoryStore | None,
    file: IO[bytes],
    progress: Progress = lambda stage, done, total: None,
    popularity: Mapping[str, float] | None = None,
) -> Contents:
    """Write the items as of one moment, even while others write, and the events of `histories`.

    `popularity`: events of each item that are not among those of `histories`.
    """
    counts = {} if popularity is None else popularity
    digest = hashlib.sha256()
    seq, total = catalogue.head(), catalogue.count()
    items = events = 0

    def line(record: dict[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        digest.update(text)
        file.write(text)

    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    header = {"format": FORMAT, "version": VERSION, "catalogue_id": catalogue.catalogue_id, "seq": seq}
    types = None if histories is None else histories.types()
    line(header | {"created": created} | ({} if types is None else _types_record(types)))
    for name, placement in catalogue.placements().items():
        line({"placement": name, "rules": json.loads(placement.rules)})
    for items, (_, entry) in enumerate(catalogue.scan(), 1):
        count = counts.get(entry.item.item_id, 0)
        line(_item_record(entry) | ({"popularity": count} if count else {}))
        progress("items", items, max(items, total))
    for events, event in enumerate(histories.scan() if histories else (), 1):
        line(event_record(event))
        progress("events", events, events)
    line({"end": True, "items": items, "events": events, "sha256": digest.hexdigest()})
    return Contents(catalogue.catalogue_id, seq, items, events, types)


def check_dump(file: IO[bytes], name: Path) -> Contents:
    """Read a dump to its end. Raises FileFormatError with the number of the first line that is invalid or cut off."""
    contents: Contents | None = None
    for part in _parts(file, name):
        if isinstance(part, Contents):
            contents = part
    assert contents is not None
    return contents


def read_dump(file: IO[bytes], name: Path) -> Iterator[DumpedPlacement | DumpedItem | Event]:
    """The placements, the items, then the events of a dump that was checked."""
    return (part for part in _parts(file, name) if not isinstance(part, Contents))


def _parts(file: IO[bytes], name: Path) -> Iterator[DumpedPlacement | DumpedItem | Event | Contents]:
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
                    raise InputError("more lines after the end; are these two dumps in one file?")
                yield Contents(header["catalogue_id"], header["seq"], items, events, header["event_types"])
                return
            elif "placement" in record:
                yield _placement(record)
            elif "user_id" in record:
                events += 1
                yield _event(record)
            else:
                dumped = _item(record)
                item_id = dumped.entry.item.item_id
                if events:
                    raise InputError("an item after the first event")
                if item_id in ids:
                    raise InputError(f"item {item_id!r} occurs twice")
                ids.add(item_id)
                items += 1
                yield dumped
        except InputError as error:
            raise FileFormatError(name, number, str(error)) from None
        digest.update(text)
    raise FileFormatError(
        name, number + 1, "the file is cut off: its last line is missing; use another copy, or dump again"
    )


def _lines(file: IO[bytes], name: Path, number: int = 0) -> Iterator[tuple[int, bytes]]:
    try:
        for line in file:
            number += 1
            yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(name, number + 1, f"the compressed file is cut off or damaged: {error}") from None


def _json_object(text: bytes) -> dict[str, Any]:
    if not text.endswith(b"\n"):
        raise InputError("the file is cut off in this line; use another copy, or dump again")
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InputError("not a JSON object")
    return record


def _header(record: dict[str, Any]) -> dict[str, Any]:
    if record.get("format") != FORMAT:
        raise InputError(f"not a dump of a catalogue: its first line lacks the format {FORMAT!r}")
    if record.get("version") not in _READABLE:
        raise InputError(f"a dump of format version {record.get('version')!r}; this program reads 1 to {VERSION}")
    if not isinstance(record.get("catalogue_id"), str) or not isinstance(record.get("seq"), int):
        raise InputError("the first line has no catalogue_id or no seq")
    return record | {"event_types": _types(record.get("event_types"), record.get("session_gap", "none"))}


def _types_record(types: EventTypes) -> dict[str, Any]:
    by_name = {name: one.weight if one.kind == "history" else one.kind for name, one in types.by_name.items()}
    return {"event_types": by_name, "session_gap": format_session_gap(types.session_gap)}


def _types(record: object, gap: object) -> EventTypes | None:
    if record is None:
        return None
    if not isinstance(record, dict):
        raise InputError("event_types must be an object")
    by_name = dict(parse_type(f"{name}={setting}") for name, setting in record.items())
    return EventTypes(by_name, parse_session_gap(str(gap)))


def _check_end(record: dict[str, Any], items: int, events: int, digest: str) -> None:
    if (record.get("items"), record.get("events")) != (items, events):
        raise InputError(
            f"lines are missing: the file has {items} items and {events} events, its last line counts "
            f"{record.get('items')} and {record.get('events')}"
        )
    if record.get("sha256") != digest:
        raise InputError("the file was altered: its SHA-256 is not the one in its last line")


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


def _item(record: dict[str, Any]) -> DumpedItem:
    if "item_id" not in record or "attributes" not in record:
        raise InputError("neither an item nor an event nor the last line of a dump")
    item = make_item(record["item_id"], record["attributes"], record.get("available", True))
    ids, types = _array(record, "token_ids", "<i4"), _array(record, "token_types", "u1")
    if (ids is None) != (types is None) or (ids is not None and types is not None and len(ids) != len(types)):
        raise InputError("there must be as many token_types as token_ids", "token_types")
    tower = record.get("item_tower")
    if tower is not None and not isinstance(tower, str):
        raise InputError("the digest of an item tower must be a string", "item_tower")
    tokens = None if ids is None or types is None else TokenizedItem(ids, types)
    count = record.get("popularity", 0)
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < math.inf:
        raise InputError("popularity must be a number from 0", "popularity")
    return DumpedItem(CatalogueItem(item, tokens, _array(record, "vector", "<f4"), tower), float(count))


def _placement(record: dict[str, Any]) -> DumpedPlacement:
    name, rules = record["placement"], record.get("rules")
    if not isinstance(name, str) or not isinstance(rules, dict):
        raise InputError("a placement has a name and rules, a JSON object", "placement")
    return DumpedPlacement(name, json.dumps(rules, ensure_ascii=False, separators=(",", ":")))


def _event(record: dict[str, Any]) -> Event:
    user_id = record["user_id"]
    if isinstance(user_id, str):
        user_id = former_user_id(user_id)  # a dump may be older than the rule
    item_id, timestamp, event_id = (record.get(name) for name in ("item_id", "timestamp", "event_id"))
    of = attribution_of(record["attribution"]) if "attribution" in record else None
    if of is not None and record.get("type") not in OUTCOMES:
        raise InputError(f"only {', '.join(OUTCOMES)} have an attribution, not {record.get('type')!r}", "type")
    return make_event(user_id, item_id, timestamp, event_id, "", record.get("type"), record.get("value"), of)


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _array(record: dict[str, Any], name: str, dtype: str) -> npt.NDArray[Any] | None:
    if name not in record:
        return None
    try:
        return np.frombuffer(base64.b64decode(record[name], validate=True), dtype)
    except (ValueError, TypeError) as error:
        raise InputError(f"not base64 of {np.dtype(dtype).name} numbers: {error}", name) from None


def equal_entries(one: CatalogueItem, other: CatalogueItem) -> bool:
    """Whether two entries are equal to the last bit, including the order of attributes."""
    return _item_record(one) == _item_record(other) and list(one.item.attributes) == list(other.item.attributes)
