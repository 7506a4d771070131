"""Follows the catalogue: keeps the live state up with the log, and swaps it when a snapshot is published.

Every read compares the log's head with what has been applied and applies the rest first, so an answer is as fresh as
the log. Loading a published snapshot (with its model, warmed and caught up) happens on a thread of its own; until it
is done the state before goes on answering, and a request keeps the view it began with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from index.catalogue import Catalogue
from seqrec.errors import NotReady, SeqrecError
from service.live import LiveState, View

log = logging.getLogger(__name__)

CHANGES_AT_ONCE = 1000
RETRY_SECONDS = 30.0
"""How long a snapshot that could not be loaded is left alone before it is tried again."""

Load = Callable[[str, LiveState | None], LiveState]
"""Snapshot id and the state so far (whose model can be kept) -> the state at the snapshot, warmed."""


class Follower:
    """Holds the live state. `view` may be called from any thread."""

    def __init__(self, catalogue: Catalogue, load: Load, every: float) -> None:
        """`every`: seconds between looks at the log when nobody asks."""
        self._catalogue = catalogue
        self._load = load
        self._every = every
        self._state: LiveState | None = None
        self._applying = threading.Lock()
        self._tried = 0  # seq of the publication that was loaded, or failed to
        self._retry_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.trouble: str | None = "the snapshot is being loaded"
        """Why there is nothing to answer with, or why what was published last is not served; None if all is well."""

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def state(self) -> LiveState | None:
        """What is served now, perhaps behind the log."""
        return self._state

    def view(self) -> View:
        """The live catalogue as of now: every change that was durable before the call is in it.

        Raises NotReady before the first snapshot is loaded, CatalogueError where the log cannot be read.
        """
        state = self._state
        if state is None:
            raise NotReady(f"nothing can be answered yet: {self.trouble}")
        if self._catalogue.head() > state.view.seq:
            with self._applying:
                if self._state is not None:
                    state = self._state
                self._catch_up(state)
        return state.view

    def _catch_up(self, state: LiveState) -> None:
        """Apply everything up to the head of now. For the state that is served, `_applying` is held."""
        head = self._catalogue.head()
        while state.view.seq < head:
            changes = list(self._catalogue.changes(state.view.seq, CHANGES_AT_ONCE))
            # Fewer than asked for: the rest up to the head is nothing, such as records that were compacted away.
            reached = changes[-1].seq if len(changes) == CHANGES_AT_ONCE else head
            state.apply(changes, max(reached, changes[-1].seq if changes else 0))

    def _run(self) -> None:
        said = ""
        while not self._closing.is_set():
            try:
                self._look()
                said = ""
            except Exception as error:
                if str(error) != said:  # once, not at every look
                    said = str(error)
                    unexpected = not isinstance(error, SeqrecError)
                    log.error("following the catalogue failed: %s", error, exc_info=unexpected)
            self._closing.wait(self._every)

    def _look(self) -> None:
        published = self._catalogue.publications()
        if not published:
            self.trouble = "no snapshot is published; run `seqrec index build --publish`, or `seqrec demo`"
            return
        latest = published[0]
        assert latest.snapshot_id is not None
        if latest.seq != self._tried or (self.trouble is not None and time.monotonic() >= self._retry_at):
            self._tried = latest.seq
            try:
                self._swap(latest.snapshot_id)
                self.trouble = None
            except Exception as error:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                self.trouble = f"snapshot {latest.snapshot_id} cannot be loaded: {error}"
                raise
        if self._state is not None:
            self.view()

    def _swap(self, snapshot_id: str) -> None:
        if self._state is not None and self._state.snapshot.id == snapshot_id:
            return
        begin = time.perf_counter()
        state = self._load(snapshot_id, self._state)
        self._catch_up(state)
        with self._applying:
            self._catch_up(state)
            self._state = state
        log.info(
            "serving snapshot %s at %d, loaded in %.1f s", snapshot_id, state.view.seq, time.perf_counter() - begin
        )
