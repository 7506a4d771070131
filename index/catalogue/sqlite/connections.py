"""Connections to one SQLite file: taken for one use at a time, each error told in words that name the way out."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqrec.data.files import fsync_directory
from seqrec.errors import CatalogueError, CatalogueReplaced

BUSY_SECONDS = 30.0
"""How long a writer waits for another one. A batch of 1,000 items takes well under a second."""

BUILD_ANEW = "restore it from a backup, or build a new one with `seqrec index build`"
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; make room and try again (nothing of this call was written)",
    sqlite3.SQLITE_READONLY: "it cannot be written; check the permissions of the file, its directory and the disk",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its directory exists and may be written",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; is this the right path?",
    sqlite3.SQLITE_BUSY: f"another process has been writing for more than {BUSY_SECONDS:.0f} s; try again",
    sqlite3.SQLITE_IOERR: "the disk reports an error; what this call wrote is not certain to be kept",
}


class Connections:
    """A pool that grows to as many connections as are in use at once. Safe to use from several threads."""

    def __init__(self, path: Path, name: str = "the catalogue", mending: str = BUILD_ANEW, erase: bool = False) -> None:
        """`name` and `mending` (of a damaged file) are for messages. `erase`: overwrite what is deleted."""
        self.path = path
        self._name = f"{name} {path}"
        self._mending = mending
        self._erase = erase
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            first = self._connect()
            try:
                _use_write_ahead_log(first)
                fsync_directory(path.parent)
                self._file = _identity(path)
            except BaseException:
                first.close()
                raise
        self._idle.append(first)

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """A connection outside of any transaction: each statement sees what was last committed."""
        with self._told():
            if self._closed:
                raise CatalogueError(f"{self._name} was closed")
            # A file that was removed or replaced under us could still be written, and nobody would ever read it.
            if _identity(self.path) != self._file:
                raise CatalogueReplaced(f"{self._name} is another file than when it was opened; restart")
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._idle.append(connection)
                if self._closed:
                    self.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """All statements of the block see one state."""
        with self.use() as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One atomic change, durable when the block has ended well; waits for other writers first."""
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close what is idle now; what is in use is closed after its use."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        if self._erase:
            connection.execute("PRAGMA secure_delete = ON")
        return connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, str(error))
            if code == sqlite3.SQLITE_CORRUPT:
                advice = f"it is damaged; {self._mending}"
            if "fts5" in str(error):
                advice = f"this Python's SQLite {sqlite3.sqlite_version} was built without FTS5, which is needed"
            raise CatalogueError(f"{self._name}: {advice}") from error
        except OSError as error:
            raise CatalogueError(f"{self._name}: {error.strerror}") from error


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The mode is a property of the file. SQLite does not wait for others where it changes it, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise CatalogueError("its disk does not allow SQLite's write-ahead log; SEQREC_HOME belongs on a local disk")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, at every read)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
