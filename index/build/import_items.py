"""Importing items into the catalogue with their vectors, and removing those that a full export no longer has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee

from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.batches import batches
from index.cluster.workers import ThisProcess, Workers
from seqrec.data.items import Item, OnError
from seqrec.encoder import Encoder
from seqrec.errors import InputError, ItemNotFound, LogTruncated
from seqrec.text.item_text import TokenizedItem, has_model_input, same_tokens

log = logging.getLogger(__name__)

MAX_DELETE = 0.3
"""Share of the stored items that an import may delete: an export that broke off half-way must not empty the shop."""
_CHANGES_PER_READ = 1000
_SHOWN = 5

Progress = Callable[[int, int], object]
"""Called with the number of items done so far, and the total."""


@dataclass(frozen=True)
class Imported:
    created: int = 0
    updated: int = 0  # attributes or availability changed
    unchanged: int = 0
    reencoded: int = 0  # of the unchanged: encoded again, because another model had encoded them
    left_out: int = 0  # without text
    not_in_file: int = 0  # stored before the import and absent from it
    deleted: int = 0  # of those, with `replace`
    recreated: Sequence[str] = ()  # ids of created items that had been deleted earlier


def import_items(
    catalogue: Catalogue,
    encoder: Encoder,
    items: Sequence[Item],
    on_error: OnError = "raise",
    progress: Progress = lambda done, total: None,
    workers: Workers | None = None,
) -> Imported:
    """Upsert the items that are new, changed or encoded by another item tower. Items that `items` lacks stay.

    Each batch of 1,000 is durable once it is written, so an interrupted import continues where it stopped. Raises
    InputError, before anything is written, for items without text; with `on_error="skip"` they are left out.
    `workers`: encode; None: this process.
    """
    tower = encoder.item_tower
    pending: list[Item] = []
    stale: set[str] = set()  # unchanged, but encoded by another tower
    for some in batches(items):
        stored = catalogue.get_many([item.item_id for item in some])
        for item in some:
            entry = stored[item.item_id][1] if item.item_id in stored else None
            if entry is None or not same_item(entry.item, item):
                pending.append(item)
            elif entry.item_tower != tower:
                pending.append(item)
                stale.add(item.item_id)
    fresh: list[tuple[Item, TokenizedItem]] = []
    textless: list[str] = []
    for batch in batches(pending):
        for item, tokens in zip(batch, encoder.tokenize_items(batch), strict=True):
            if encoder.cold_items and not has_model_input(tokens):
                textless.append(item.item_id)
            else:
                fresh.append((item, tokens))
    reject_textless(encoder, textless, on_error)
    created = updated = reencoded = done = 0

    def prepared() -> Iterator[tuple[list[CatalogueItem], dict[int, TokenizedItem]]]:
        """Batches of entries, and the tokens of those that are to be encoded, by row."""
        for pairs in batches(fresh):
            entries = with_known_vectors(
                catalogue, [CatalogueItem(item, tokens, None, tower) for item, tokens in pairs]
            )
            # A model that only knows ids has no token, and so no vector, for an item that was not in training.
            yield (
                entries,
                {
                    row: tokens
                    for row, (entry, (_, tokens)) in enumerate(zip(entries, pairs, strict=True))
                    if entry.vector is None and has_model_input(tokens)
                },
            )

    # Workers may read batches ahead of the one whose vectors come next.
    ahead, own = tee(prepared())
    wanted = (list(missing.values()) for _, missing in ahead)
    for (entries, missing), vectors in zip(own, (workers or ThisProcess(encoder)).encode(wanted), strict=True):
        for row, vector in zip(missing, vectors, strict=True):
            entries[row] = replace(entries[row], vector=vector)
        result = catalogue.put(entries)
        again = sum(entry.item.item_id in stale for entry in entries)
        created, reencoded, done = created + result.created, reencoded + again, done + len(entries)
        updated += max(0, result.updated - again)
        progress(done, len(fresh))
    return Imported(created, updated, len(items) - len(pending) + reencoded, reencoded, len(textless))


def missing_items(catalogue: Catalogue, items: Collection[Item]) -> set[str]:
    """Ids of stored items that `items` lacks."""
    return catalogue.ids() - {item.item_id for item in items}


def check_deletion(missing: Collection[str], stored: int, max_delete: float) -> None:
    """Raises InputError if `missing` is a larger share of the `stored` items than `max_delete`."""
    way_out = "--replace would delete them; at most {:.0%} may go. Check that the file is a full export; if so, allow "
    check_share(len(missing), stored, max_delete, "stored items", way_out + "more with --max-delete, up to 1")


def check_share(missing: int, of: int, most: float, what: str, way_out: str) -> None:
    """Raises InputError if `missing` of `of` items is a larger share than `most`, which `way_out` is formatted with."""
    if missing > most * of:
        share = f"{missing:,} of {of:,} {what} ({missing / of:.0%}) are not in the file, and "
        raise InputError(share + way_out.format(most), "items")


def delete_items(catalogue: Catalogue, item_ids: Collection[str], progress: Progress = lambda done, total: None) -> int:
    """Delete items in batches of 1,000; returns how many. Items that another writer deletes meanwhile do not count."""
    deleted = done = 0
    for batch in batches(sorted(item_ids)):
        left = list(batch)
        while left:
            try:
                catalogue.delete(left)
                break
            except ItemNotFound as error:
                left.remove(error.item_id)
        deleted, done = deleted + len(left), done + len(batch)
        progress(done, len(item_ids))
    return deleted


def deleted_before(catalogue: Catalogue, item_ids: Collection[str], after: int) -> list[str]:
    """Those of the ids that were deleted since change `after`, sorted. What the log no longer has is not found."""
    wanted = set(item_ids)
    found: set[str] = set()
    while wanted:
        try:
            changes = list(catalogue.changes(after, _CHANGES_PER_READ))
        except LogTruncated:
            break
        found |= {change.item_id for change in changes if change.op == "delete" and change.item_id in wanted}
        if len(changes) < _CHANGES_PER_READ:
            break
        after = changes[-1].seq
    return sorted(found)


def reject_textless(encoder: Encoder, item_ids: Sequence[str], on_error: OnError) -> None:
    """Raises InputError that names items without text, or logs it with `on_error="skip"`."""
    if not item_ids:
        return
    item_text = encoder.checkpoint.item_model.item_text
    names = None if item_text is None else item_text.recipe.attributes
    read = "" if names is None else f" (it reads {', '.join(names)})"
    what = f"{len(item_ids)} items have nothing that the model can read{read}: {shown(item_ids)}"
    if on_error == "raise":
        raise InputError(f"{what}; give them text, or leave them out with --on-error skip", "items")
    log.warning("left out: %s", what)


def shown(item_ids: Sequence[str]) -> str:
    """The first ids of a list, for a message."""
    return ", ".join(map(repr, item_ids[:_SHOWN])) + (", ..." if len(item_ids) > _SHOWN else "")


def with_known_vectors(catalogue: Catalogue, entries: Sequence[CatalogueItem]) -> list[CatalogueItem]:
    """The entries, with the stored vector where the catalogue has one of the same text from the same item tower.

    So a change of price or availability encodes nothing.
    """
    stored = catalogue.get_many([entry.item.item_id for entry in entries])
    return [
        _with_vector_of(stored[entry.item.item_id][1], entry) if entry.item.item_id in stored else entry
        for entry in entries
    ]


def same_item(stored: Item, item: Item) -> bool:
    """Whether nothing of an item has changed."""
    # The order of attributes is part of the text if the recipe does not fix one.
    same = list(stored.attributes.items()) == list(item.attributes.items())
    return same and stored.available == item.available


def _with_vector_of(stored: CatalogueItem, entry: CatalogueItem) -> CatalogueItem:
    if stored.tokens is None or entry.tokens is None or stored.item_tower != entry.item_tower:
        return entry
    return replace(entry, vector=stored.vector) if same_tokens(stored.tokens, entry.tokens) else entry
