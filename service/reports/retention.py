"""Forgets old impressions and what reports counted of them, in the background."""

from __future__ import annotations

import logging
import threading
import time

from index.catalogue.histories import HistoryStore
from index.catalogue.outcomes import DAY
from seqrec.errors import CatalogueError

log = logging.getLogger(__name__)

_EVERY = 6 * 3600.0
"""Seconds between two runs."""


class Retention:
    """Each worker runs it: what another one forgot already is found in a look-up."""

    def __init__(self, histories: HistoryStore, days: int | None) -> None:
        """`days`: how many days of answers are kept, today included; None: all."""
        self._histories = histories
        self._days = days
        self._next = 0.0

    def maybe_run(self) -> None:
        """To be called regularly."""
        if self._days is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        threading.Thread(target=self.run, name="retention", daemon=True).start()

    def run(self) -> None:
        assert self._days is not None
        try:
            forgotten = self._histories.forget_outcomes(max(0, int(time.time()) // DAY - self._days + 1))
        except CatalogueError as error:
            log.warning("old impressions are not forgotten yet: %s", error)
            return
        if forgotten:
            log.info("%d events of recommendations of more than %d days ago were forgotten", forgotten, self._days)
