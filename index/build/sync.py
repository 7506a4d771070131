"""Brings the catalogue to the state of a shop's full export, as it comes every day: `seqrec sync`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from index.build.import_items import Progress, check_share, import_items
from index.catalogue.base import Catalogue
from index.catalogue.batches import batches
from seqrec.data.items import Item, OnError
from seqrec.encoder import Encoder
from seqrec.errors import ItemChanged

log = logging.getLogger(__name__)

MAX_GONE = 0.2
"""Share of the available items that a feed may lack: an export that broke off half-way must not empty the shop."""


@dataclass(frozen=True)
class Synced:
    """What became of the items."""

    created: int
    updated: int
    unchanged: int
    gone: int  # were available, are not in the feed, and are unavailable now
    left_out: int  # of the feed: without text


def sync(
    catalogue: Catalogue,
    encoder: Encoder,
    items: Sequence[Item],
    on_error: OnError = "raise",
    max_gone: float = MAX_GONE,
    progress: Progress = lambda done, total: None,
) -> Synced:
    """Upsert what is new or changed, and make unavailable what `items` lacks. Unchanged texts are not encoded again.

    Each batch of 1,000 is durable once it is written; repeating an interrupted call does the rest. Raises InputError,
    before anything is written, where more than `max_gone` of the available items are not among `items`, and for items
    without text unless `on_error` is "skip".
    """
    named = {item.item_id for item in items}
    available = _available(catalogue, catalogue.ids())
    gone = [item_id for item_id in available if item_id not in named]
    check_share(
        len(gone),
        len(available),
        max_gone,
        "available items",
        "they would become unavailable; at most {:.0%} may. Check that the file is a full export; if so, repeat the "
        "command with --allow-gone",
    )
    imported = import_items(catalogue, encoder, items, on_error, progress)
    hidden = sum(_hide(catalogue, batch) for batch in batches(gone))
    return Synced(imported.created, imported.updated, imported.unchanged, hidden, imported.left_out)


def _available(catalogue: Catalogue, item_ids: Iterable[str]) -> list[str]:
    """Those of the ids whose items are available, sorted."""
    return [
        item_id
        for batch in batches(sorted(item_ids))
        for item_id, (_, entry) in catalogue.get_many(batch).items()
        if entry.item.available
    ]


def _hide(catalogue: Catalogue, item_ids: Sequence[str]) -> int:
    """Make items unavailable; returns how many. A change that another writer makes meanwhile stays."""
    left = {item_id: stored for item_id, stored in catalogue.get_many(item_ids).items() if stored[1].item.available}
    while left:
        entries = [replace(entry, item=replace(entry.item, available=False)) for _, entry in left.values()]
        try:
            return catalogue.put(entries, [seq for seq, _ in left.values()]).updated
        except ItemChanged as error:
            log.info("%r was changed meanwhile, and stays as it is", error.item_id)
            del left[error.item_id]
    return 0
