"""Items into the catalogue, encoded; and what an item without text is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.batches import batches
from seqrec.data.items import Item, OnError
from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.text.item_text import NAME, TokenizedItem

log = logging.getLogger(__name__)

Progress = Callable[[int, int], object]
"""Called with the number of items done so far, and of all."""


@dataclass(frozen=True)
class Imported:
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    left_out: int = 0  # without text


def import_items(
    catalogue: Catalogue,
    encoder: Encoder,
    items: Sequence[Item],
    on_error: OnError = "raise",
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Upsert the items that are new, changed or encoded by another item tower. Items that `items` lacks stay.

    Each batch of 1,000 is durable when it is put, so an import that was broken off goes on where it stopped. Raises
    InputError, before anything is written, for items without text; with `on_error="skip"` they are left out.
    """
    tower = encoder.item_tower
    pending: list[Item] = []
    for some in batches(items):
        stored = catalogue.get_many([item.item_id for item in some])
        pending += [item for item in some if _differs(stored.get(item.item_id), item, tower)]
    fresh: list[tuple[Item, TokenizedItem]] = []
    silent: list[str] = []
    for batch in batches(pending):
        for item, tokens in zip(batch, encoder.tokenize_items(batch), strict=True):
            if encoder.cold_items and not has_model_input(tokens):
                silent.append(item.item_id)
            else:
                fresh.append((item, tokens))
    reject_textless(encoder, silent, on_error)
    created = updated = done = 0
    for pairs in batches(fresh):
        entries = with_known_vectors(catalogue, [CatalogueItem(item, tokens, None, tower) for item, tokens in pairs])
        # A model that only knows ids has no token, and so no vector, for an item that training never saw.
        bare = [row for row, entry in enumerate(entries) if entry.vector is None and has_model_input(pairs[row][1])]
        vectors = encoder.encode_item_tokens([pairs[row][1] for row in bare])
        for row, vector in zip(bare, vectors, strict=True):
            entries[row] = replace(entries[row], vector=vector)
        result = catalogue.put(entries)
        created, updated, done = created + result.created, updated + result.updated, done + len(pairs)
        progress(done, len(fresh))
    return Imported(created, updated, len(items) - len(pending), len(silent))


def has_model_input(tokens: TokenizedItem) -> bool:
    """Whether a model reads anything in the item but names of attributes: its text, or that it knows it by its id."""
    return bool((tokens.types != NAME).any())


def reject_textless(encoder: Encoder, silent: Sequence[str], on_error: OnError) -> None:
    """Say that items have no text: raises InputError, or logs it with `on_error="skip"`."""
    if not silent:
        return
    item_text = encoder.checkpoint.item_model.item_text
    names = None if item_text is None else item_text.recipe.attributes
    read = "" if names is None else f", which is {', '.join(names)}"
    shown = ", ".join(map(repr, silent[:5])) + (", ..." if len(silent) > 5 else "")
    what = f"{len(silent)} items have nothing that the model can read{read}: {shown}"
    if on_error == "raise":
        raise InputError(f"{what}; give them some text, or leave them out with --on-error skip", "items")
    log.warning("left out: %s", what)


def _differs(stored: tuple[int, CatalogueItem] | None, item: Item, tower: str) -> bool:
    if stored is None:
        return True
    entry = stored[1]
    # The order of attributes is part of the text where the recipe takes them as they come.
    same = list(entry.item.attributes.items()) == list(item.attributes.items())
    return not (same and entry.item.available == item.available and entry.item_tower == tower)


def with_known_vectors(catalogue: Catalogue, entries: Sequence[CatalogueItem]) -> list[CatalogueItem]:
    """The entries, each with the vector that the catalogue has of the same text by the same tower, if it has one.

    So a change of price or availability encodes nothing.
    """
    stored = catalogue.get_many([entry.item.item_id for entry in entries])
    return [
        _with_vector_of(stored[entry.item.item_id][1], entry) if entry.item.item_id in stored else entry
        for entry in entries
    ]


def _with_vector_of(before: CatalogueItem, entry: CatalogueItem) -> CatalogueItem:
    if before.tokens is None or entry.tokens is None or before.item_tower != entry.item_tower:
        return entry
    same = np.array_equal(before.tokens.ids, entry.tokens.ids) and np.array_equal(
        before.tokens.types, entry.tokens.types
    )
    return replace(entry, vector=before.vector) if same else entry
