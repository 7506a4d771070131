"""Counts that follow the log of events. They start from those of a snapshot, or from counting all events."""

from __future__ import annotations

import logging
from collections.abc import Callable

from index.catalogue.histories import HistoryStore
from seqrec.errors import LogTruncated
from seqrec.hybrid.cooccurrence import Blocks, CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts, EventChanges, EventCounts, count_sequences

log = logging.getLogger(__name__)

CHANGES_AT_ONCE = 1000
"""Numbers of the log that are read and counted together, in about 30 ms."""

COUNT_AGAIN = 200_000
"""Further behind the log than this, counting a million events from scratch is faster than following."""


def count_events(
    store: HistoryStore, settings: CooccurrenceSettings | None, compute: Blocks | None = None
) -> BaseCounts:
    """Count all events of the log from scratch: about 7 s and 1 GB per million events.

    compute: as in `seqrec.hybrid.cooccurrence.count`.
    """
    return count_sequences(settings, store.log_id, store.event_sequences(), compute)


def start_counts(
    store: HistoryStore,
    settings: CooccurrenceSettings | None,
    base: BaseCounts | None = None,
    compute: Blocks | None = None,
) -> EventCounts:
    """Counts that `follow` can bring up to the head: `base` if it was counted from this log, else counted from scratch.

    `base` must have been counted with these settings.
    """
    if base is not None and _leads_on(store, base):
        return EventCounts(settings, base)
    return EventCounts(settings, count_events(store, settings, compute))


def follow(
    store: HistoryStore,
    counts: EventCounts,
    apply: Callable[[EventChanges], object] | None = None,
    limit: int = CHANGES_AT_ONCE,
) -> int:
    """Bring counts up to the log's present head. -> the number that they reached.

    `apply` takes the changes; default: `counts.apply`. Raises LogTruncated if the log was compacted past the counts:
    then call `start_counts` again. Raises CatalogueReplaced if the log is another one.
    """
    head = store.events_head()
    while counts.seq < head:
        (apply or counts.apply)(store.event_changes(counts.seq, limit, counts.window))
    return counts.seq


def current_counts(
    store: HistoryStore,
    settings: CooccurrenceSettings | None,
    base: BaseCounts | None = None,
    compute: Blocks | None = None,
) -> BaseCounts:
    """Counts as of the log's head, for a new snapshot. `base`: those of the previous one, if the settings are equal."""
    counts = start_counts(store, settings, base, compute)
    follow(store, counts)
    return counts.compact()


def _leads_on(store: HistoryStore, base: BaseCounts) -> bool:
    if base.log_id != store.log_id:
        if base.log_id:
            log.warning("the snapshot was counted from another log of events, %s; counting from scratch", base.log_id)
        return False
    if base.times is None:  # a version before did not keep the times of events
        return False
    head = store.events_head()
    if base.seq > head:
        log.warning("the snapshot counted event %d, but the log ends at %d; counting from scratch", base.seq, head)
        return False
    if head - base.seq > COUNT_AGAIN:
        return False
    try:
        store.event_changes(base.seq, 0, 0)
    except LogTruncated:
        return False
    return True
