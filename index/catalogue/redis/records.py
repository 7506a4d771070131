"""Items in log records in Redis.

One value has the whole item: a line of JSON, then token ids (int32), their types (uint8) and the vector (float32),
little endian. Clients read few long values many times faster than many short ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from index.catalogue.base import CatalogueItem, Change, unknown_change
from index.catalogue.item_json import as_attributes
from index.catalogue.words import words_of
from seqrec.data.items import Item, attribute_text
from seqrec.text.item_text import TokenizedItem

MAX_WORDS = 64
"""Distinct words that an item is found by, the first ones."""


def body_of(entry: CatalogueItem) -> bytes:
    """An item without its id. Missing parts are null."""
    tokens, vector = entry.tokens, entry.vector
    head = {
        "available": entry.item.available,
        "item_tower": entry.item_tower,
        "tokens": None if tokens is None else len(tokens.ids),
        "dim": None if vector is None else len(vector),
        "attributes": dict(entry.item.attributes),
    }
    body = json.dumps(head, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if tokens is not None:
        body += np.asarray(tokens.ids, "<i4").tobytes() + np.asarray(tokens.types, np.uint8).tobytes()
    if vector is not None:
        body += np.asarray(vector, "<f4").tobytes()
    return body


def entry_of(item_id: bytes, body: bytes) -> CatalogueItem:
    head, _, arrays = body.partition(b"\n")  # JSON writes line breaks as \\n
    facts: dict[str, Any] = json.loads(head.decode())
    size, tokens = facts["tokens"], None
    if size is not None:
        tokens = TokenizedItem(np.frombuffer(arrays, "<i4", size), np.frombuffer(arrays, np.uint8, size, 4 * size))
    vector = None
    if facts["dim"] is not None:
        # A copy: after an odd number of types it is not aligned to four bytes.
        vector = np.frombuffer(arrays[5 * (size or 0) :], "<f4", facts["dim"])
    item = Item(item_id.decode(), as_attributes(facts["attributes"]), facts["available"])
    return CatalogueItem(item, tokens, vector, facts["item_tower"])


def words_of_item(item: Item) -> bytes:
    """The words that an item is found by, one a line."""
    text = " ".join(attribute_text(value) for value in item.attributes.values())
    return "\n".join(words_of(text, MAX_WORDS)).encode()


def change_of(seq: int, fields: Mapping[bytes, bytes]) -> Change:
    when = float(fields[b"time"])
    match fields[b"op"]:
        case b"put":
            entry = entry_of(fields[b"item_id"], fields[b"body"])
            return Change(seq, "put", entry.item.item_id, entry, time=when)
        case b"delete":
            return Change(seq, "delete", fields[b"item_id"].decode(), time=when)
        case b"place":
            rules = fields.get(b"rules")
            name = fields[b"placement"].decode()
            return Change(seq, "place", time=when, placement=name, rules=None if rules is None else rules.decode())
        case b"publish":
            return Change(seq, "publish", snapshot_id=fields[b"snapshot_id"].decode(), time=when)
        case op:
            raise unknown_change(seq, op.decode())


def fields_of(pairs: Sequence[bytes]) -> dict[bytes, bytes]:
    """A mapping from alternating names and values."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
