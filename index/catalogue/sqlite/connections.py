"""A pool of connections to one SQLite file. Errors become CatalogueError with a message that says what to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqrec.data.files import fsync_directory, make_private, private_directory, withdraw_permissions
from seqrec.errors import CatalogueError, CatalogueReplaced

_FREE_BYTES = 1_000_000
BUSY_SECONDS = 30.0
"""How long a writer waits for another. A batch of 1,000 items takes well under a second."""

REBUILD = "restore it from a backup, or build a new one with `seqrec index build`"
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again (this call wrote nothing)",
    sqlite3.SQLITE_READONLY: "it is not writable; check the permissions of the file and its directory, and the disk",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its directory exists and is writable",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; is this the right path?",
    sqlite3.SQLITE_BUSY: f"another process has been writing for more than {BUSY_SECONDS:.0f} s; try again",
    sqlite3.SQLITE_IOERR: "the disk reports an error; what this call wrote may be lost",
}


class Connections:
    """Grows to as many connections as are in use at the same time. Safe for several threads."""

    def __init__(self, path: Path, name: str = "the catalogue", repair: str = REBUILD, erase: bool = False) -> None:
        """`name` and `repair` (advice for a damaged file) are for messages. `erase`: overwrite deleted rows."""
        self.path = path
        self._name = f"{name} {path}"
        self._repair = repair
        self._erase = erase
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        with self._translated():
            existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
            if existing is not None and not existing.is_dir():
                raise CatalogueError(f"{existing} is a file, not a directory; set SEQREC_HOME to a directory")
            private_directory(path.parent)
            make_private(path)  # SQLite gives new -wal and -shm files the same permissions
            for suffix in ("-wal", "-shm"):
                withdraw_permissions(path.with_name(path.name + suffix))
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
        """A connection without a transaction: each statement sees the last commit."""
        with self._translated():
            if self._closed:
                raise CatalogueError(f"{self._name} was closed")
            # Writes to a file that was removed or replaced would be lost.
            if _identity(self.path) != self._file:
                raise CatalogueReplaced(f"{self._name} was replaced by another file since it was opened; restart")
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
        """All statements of the block see the same state."""
        with self.use() as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One atomic change, durable when the block ends without an error. Waits for other writers first."""
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def check(self) -> None:
        """Read with a new connection, and look at permissions and free space.

        Raises CatalogueError. Damage within the file is found only where it is read: at the begin of each table.
        """
        with self._translated():
            if _identity(self.path) != self._file:
                raise CatalogueReplaced(f"{self._name} was removed or replaced since it was opened; restart")
            connection = self._connect()
            try:
                tables = connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'"
                ).fetchall()
                for (table,) in tables:
                    connection.execute(f'SELECT * FROM "{table}" LIMIT 1').fetchone()
            finally:
                connection.close()
            if not os.access(self.path, os.W_OK) or not os.access(self.path.parent, os.W_OK):
                raise CatalogueError(f"{self._name}: {_ADVICE[sqlite3.SQLITE_READONLY]}")
            if shutil.disk_usage(self.path.parent).free < _FREE_BYTES:
                raise CatalogueError(f"{self._name}: the disk is full; free some space")

    def close(self) -> None:
        """Close idle connections now, and those in use after their use."""
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
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, str(error))
            if code == sqlite3.SQLITE_CORRUPT:
                advice = f"it is damaged; {self._repair}"
            if "fts5" in str(error):
                advice = (
                    f"this Python's SQLite {sqlite3.sqlite_version} was built without FTS5, which the catalogue needs"
                )
            raise CatalogueError(f"{self._name}: {advice}") from error
        except OSError as error:
            where = f" ({error.filename})" if error.filename and str(error.filename) != str(self.path) else ""
            raise CatalogueError(f"{self._name}: {error.strerror}{where}") from error


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The mode is a property of the file. SQLite does not wait for other users of it to change the mode, so retry."""
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
        raise CatalogueError(
            "its disk does not support the write-ahead log of SQLite; SEQREC_HOME must be on a local disk"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, at every read)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
