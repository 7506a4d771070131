"""Counts that follow the log of events: begun from a snapshot's, or by counting everything again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from index.catalogue.histories import HistoryStore
from seqrec.errors import LogTruncated
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts, EventChanges, EventCounts, count_sequences

log = logging.getLogger(__name__)

CHANGES_AT_ONCE = 1000
"""Numbers of the log that are read and counted together: some 30 ms."""

COUNT_AGAIN = 200_000
"""So many events behind the log, counting all of a million again takes less time than following."""


def count_events(store: HistoryStore, settings: CooccurrenceSettings | None) -> BaseCounts:
    """Count all events of the log again. Takes some 7 s and 1 GB a million events."""
    return count_sequences(settings, store.log_id, store.event_sequences())


def start_counts(
    store: HistoryStore, settings: CooccurrenceSettings | None, base: BaseCounts | None = None
) -> EventCounts:
    """Counts to follow the log with: from `base` where that was counted from this log, else everything again.

    `base` must have been counted with these settings. They are near the head, not at it: `follow` does the rest.
    """
    if base is not None and _leads_on(store, base):
        return EventCounts(settings, base)
    return EventCounts(settings, count_events(store, settings))


def follow(
    store: HistoryStore,
    counts: EventCounts,
    apply: Callable[[EventChanges], object] | None = None,
    limit: int = CHANGES_AT_ONCE,
) -> int:
    """Bring counts up to the log's head as it is now; the number they reached.

    `apply` is what takes the changes, `counts.apply` by default. Raises LogTruncated where the log no longer leads on
    from them: begin anew with `start_counts`; CatalogueReplaced for another log.
    """
    head = store.events_head()
    while counts.seq < head:
        (apply or counts.apply)(store.event_changes(counts.seq, limit, counts.window))
    return counts.seq


def current_counts(
    store: HistoryStore, settings: CooccurrenceSettings | None, base: BaseCounts | None = None
) -> BaseCounts:
    """Counts as of the log's head, for a new snapshot. `base`: of the one before, if it has the same settings."""
    counts = start_counts(store, settings, base)
    follow(store, counts)
    return counts.compact()


def _leads_on(store: HistoryStore, base: BaseCounts) -> bool:
    if base.log_id != store.log_id:
        if base.log_id:
            log.warning("the snapshot counted another log of events, %s; counting again", base.log_id)
        return False
    if base.times is None:  # a version before did not keep the times of events
        return False
    head = store.events_head()
    if base.seq > head:
        log.warning("the snapshot counted event %d, and the log is at %d; counting again", base.seq, head)
        return False
    if head - base.seq > COUNT_AGAIN:
        return False
    try:
        store.event_changes(base.seq, 0, 0)
    except LogTruncated:
        return False
    return True
