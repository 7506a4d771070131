"""Erases deleted rows from the write-ahead log as well, retrying while a reader prevents it.

A deleted row is overwritten in its page. But the previous version of the page remains in the database file until the
log is copied into it, and in the log until the log is truncated. SQLite can do neither while a reader, such as a
backup or a dump, sees an older state. So it is done as soon as there is no such reader.
"""

from __future__ import annotations

import logging
import threading

from index.catalogue.sqlite.connections import BUSY_SECONDS, Connections
from seqrec.errors import CatalogueError

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between two attempts; doubled after each."""


class Erasure:
    """Truncates a write-ahead log. Safe for several threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._due = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Erase now if there is no reader; otherwise a background thread retries."""
        if self._attempt():
            return
        with self._lock:
            self._due = True
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._retry, name="erasure", daemon=True)
                self._thread.start()

    def resume(self) -> None:
        """Finish what a killed process had not erased. Usually there is nothing to do."""
        wal = self._connections.path.with_name(f"{self._connections.path.name}-wal")
        if wal.exists() and wal.stat().st_size:
            self.begin()

    def close(self) -> None:
        """Stop retrying. The last process that closes the file truncates the log anyway."""
        self._closing.set()
        self._wake.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _retry(self) -> None:
        wait = FIRST_WAIT
        while not self._wake.wait(wait):
            wait = min(2 * wait, LONGEST_WAIT)
            with self._lock:
                self._due = False  # before the attempt: later deletes are due again
            done = self._attempt()
            with self._lock:
                self._due |= not done
                if not self._due:
                    self._thread = None
                    return

    def _attempt(self) -> bool:
        try:
            with self._connections.use() as connection:
                connection.execute("PRAGMA busy_timeout = 0")
                try:
                    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                finally:
                    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        except CatalogueError as error:
            if self._closing.is_set():
                return True
            log.warning("deleted events are not erased from the write-ahead log yet, retrying: %s", error)
            return False
        return not busy
