"""Items that a client posts or patches: checked, tokenized and encoded, as the catalogue stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from index.build.import_items import same_item, with_known_vectors
from index.catalogue.base import Catalogue, CatalogueItem, PutResult
from seqrec.data.items import Item, check_item_id, make_item
from seqrec.errors import InputError, ItemChanged, ItemNotFound
from seqrec.text.item_text import TokenizedItem, has_model_input
from service.engine.plan import no_text
from service.live.state import Towers


@dataclass(frozen=True)
class ItemPatch:
    """What is to change of an item: attributes by name, None removes one; availability, unless None (RFC 7396)."""

    item_id: str
    attributes: Mapping[str, Any]
    available: bool | None = None
    field: str = ""  # put before names of fields in errors


@dataclass(frozen=True, eq=False)
class Patched:
    """The items that a patch changes, and the number of the last change that each was read at."""

    entries: list[CatalogueItem]
    expected: list[int]
    unchanged: int


def read_posted(
    catalogue: Catalogue, towers: Towers, posted: Sequence[tuple[str, Mapping[str, Any], bool]]
) -> list[CatalogueItem]:
    """The items as the catalogue stores them; without a vector where it must be encoded. Raises InputError."""
    items: dict[str, Item] = {}
    for row, (item_id, attributes, available) in enumerate(posted):
        item = make_item(item_id, attributes, available, f"items[{row}].")
        if item_id in items:
            raise InputError(f"{item_id!r} occurs twice in this request; send it once", f"items[{row}].item_id")
        items[item_id] = item
    return _entries(catalogue, towers, list(items.values()), [f"items[{row}]." for row in range(len(items))])


def patched_entries(catalogue: Catalogue, towers: Towers, patches: Sequence[ItemPatch]) -> Patched:
    """The items with their patches applied, as `read_posted` returns them. Raises InputError, ItemNotFound."""
    seen: set[str] = set()
    for patch in patches:
        if check_item_id(patch.item_id, f"{patch.field}item_id") in seen:
            raise InputError(f"{patch.item_id!r} occurs twice in this request", f"{patch.field}item_id")
        seen.add(patch.item_id)
    stored = catalogue.get_many([patch.item_id for patch in patches])
    items: list[Item] = []
    fields: list[str] = []
    expected: list[int] = []
    for patch in patches:
        if patch.item_id not in stored:
            raise ItemNotFound(patch.item_id)
        seq, entry = stored[patch.item_id]
        available = entry.item.available if patch.available is None else patch.available
        # A null, which removes an attribute, is left out by `make_item`.
        item = make_item(patch.item_id, {**entry.item.attributes, **patch.attributes}, available, patch.field)
        if not same_item(entry.item, item):
            items.append(item)
            fields.append(patch.field)
            expected.append(seq)
    return Patched(_entries(catalogue, towers, items, fields), expected, len(patches) - len(items))


def put_unless_changed(catalogue: Catalogue, patched: Patched) -> PutResult | ItemChanged:
    """Write patched items; the error, and nothing is written, where one was changed since it was read."""
    try:
        return catalogue.put(patched.entries, patched.expected)
    except ItemChanged as error:
        return error


def _entries(catalogue: Catalogue, towers: Towers, items: Sequence[Item], fields: Sequence[str]) -> list[CatalogueItem]:
    all_tokens = towers.encoder.tokenize_items(items)
    for field, tokens in zip(fields, all_tokens, strict=True):
        if towers.encoder.cold_items and not has_model_input(tokens):
            raise InputError(no_text(towers), f"{field}attributes")
    tower = towers.encoder.item_tower
    bare = [CatalogueItem(item, tokens, None, tower) for item, tokens in zip(items, all_tokens, strict=True)]
    return with_known_vectors(catalogue, bare)


def has_input(entry: CatalogueItem) -> bool:
    """Whether the model that tokenized an item can read it."""
    return entry.tokens is not None and has_model_input(entry.tokens)


def encode_posted(units: Sequence[tuple[Towers, TokenizedItem]]) -> list[Any]:
    """A batch of the items lane. Right after a swap its units may be of two models."""
    vectors: list[Any] = [None] * len(units)
    for towers in {id(towers): towers for towers, _ in units}.values():
        rows = [row for row, (of, _) in enumerate(units) if of is towers]
        for row, vector in zip(rows, towers.encode_items([units[row][1] for row in rows]), strict=True):
            vectors[row] = vector
    return vectors
