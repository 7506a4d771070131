"""Items that a client posts: checked, tokenized and encoded, as the catalogue stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from index.build.import_items import with_known_vectors
from index.catalogue.base import Catalogue, CatalogueItem
from seqrec.data.items import Item, make_item
from seqrec.errors import InputError
from seqrec.text.item_text import TokenizedItem, has_model_input
from service.engine.plan import no_text
from service.live.state import Towers


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
    all_tokens = towers.encoder.tokenize_items(list(items.values()))
    for row, tokens in enumerate(all_tokens):
        if towers.encoder.cold_items and not has_model_input(tokens):
            raise InputError(no_text(towers), f"items[{row}].attributes")
    tower = towers.encoder.item_tower
    bare = [CatalogueItem(item, tokens, None, tower) for item, tokens in zip(items.values(), all_tokens, strict=True)]
    return with_known_vectors(catalogue, bare)


def encode_posted(units: Sequence[tuple[Towers, TokenizedItem]]) -> list[Any]:
    """A batch of the items lane. Right after a swap its units may be of two models."""
    vectors: list[Any] = [None] * len(units)
    for towers in {id(towers): towers for towers, _ in units}.values():
        rows = [row for row, (of, _) in enumerate(units) if of is towers]
        for row, vector in zip(rows, towers.encode_items([units[row][1] for row in rows]), strict=True):
            vectors[row] = vector
    return vectors
