"""An item as fields of a log record in Redis, and back. What an item lacks has no field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from index.catalogue import CatalogueItem, Change
from index.item_json import attributes_from_json, attributes_to_json
from index.words import words_of
from seqrec.item_text import TokenizedItem
from seqrec.items import Item, attribute_text

MAX_WORDS = 64
"""Different words of an item that a search finds it by: the first ones."""


def fields_of(entry: CatalogueItem) -> list[Any]:
    """Names and values in turn."""
    item, tokens, vector = entry.item, entry.tokens, entry.vector
    fields = ["available", int(item.available), "attributes", attributes_to_json(item.attributes).encode()]
    if entry.item_tower is not None:
        fields += ["item_tower", entry.item_tower]
    if tokens is not None:
        fields += ["token_types", np.asarray(tokens.types, np.uint8).tobytes()]
        fields += ["token_ids", np.asarray(tokens.ids, "<i4").tobytes()]
    if vector is not None:
        fields += ["vector", np.asarray(vector, "<f4").tobytes()]
    return fields


def words_of_item(item: Item) -> bytes:
    """The words that find it, a line each."""
    text = " ".join(attribute_text(value) for value in item.attributes.values())
    return "\n".join(words_of(text, MAX_WORDS)).encode()


def entry_of(pairs: Sequence[bytes]) -> CatalogueItem:
    return _entry(dict(zip(pairs[::2], pairs[1::2], strict=True)))


def change_of(seq: int, pairs: Sequence[bytes]) -> Change:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    when = float(fields[b"time"])
    match fields[b"op"]:
        case b"put":
            return Change(seq, "put", fields[b"item_id"].decode(), _entry(fields), time=when)
        case b"delete":
            return Change(seq, "delete", fields[b"item_id"].decode(), time=when)
        case _:
            return Change(seq, "publish", snapshot_id=fields[b"snapshot_id"].decode(), time=when)


def _entry(fields: Mapping[bytes, bytes]) -> CatalogueItem:
    ids, types = fields.get(b"token_ids"), fields.get(b"token_types")
    vector, tower = fields.get(b"vector"), fields.get(b"item_tower")
    item_id, attributes = fields[b"item_id"].decode(), attributes_from_json(fields[b"attributes"])
    return CatalogueItem(
        item=Item(item_id, attributes, fields[b"available"] == b"1"),
        tokens=(
            None
            if ids is None or types is None
            else TokenizedItem(np.frombuffer(ids, "<i4"), np.frombuffer(types, np.uint8))
        ),
        vector=None if vector is None else np.frombuffer(vector, "<f4"),
        item_tower=None if tower is None else tower.decode(),
    )
