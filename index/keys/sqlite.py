"""API keys in an SQLite file of the home, for one host."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from index.catalogue.sqlite.connections import Connections
from index.keys.base import ApiKey, check_free, unknown_name

_COLUMNS = "name, digest, scopes, created, expires, revoked, rate, quota"


class SqliteKeys:
    """Implements `index.keys.base.KeyStore`. Creates the file if it is missing, readable by its owner only."""

    def __init__(self, path: Path | str) -> None:
        self._connections = Connections(
            Path(path), "the API keys", "delete it while the service is stopped, and create new keys"
        )
        try:
            with self._connections.writing() as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, "
                    "scopes TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL, rate TEXT, quota TEXT)"
                )
                connection.execute("CREATE TABLE IF NOT EXISTS version (number INTEGER NOT NULL)")
                connection.execute("INSERT INTO version SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM version)")
        except BaseException:
            self._connections.close()
            raise

    def add(self, key: ApiKey) -> None:
        with self._connections.writing() as connection:
            check_free(_find(connection, key.name))
            connection.execute(
                f"INSERT OR REPLACE INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key.name,
                    key.digest,
                    " ".join(sorted(key.scopes)),
                    key.created,
                    key.expires,
                    key.revoked,
                    key.rate,
                    key.quota,
                ),
            )
            _changed(connection)

    def revoke(self, name: str, when: float) -> ApiKey:
        with self._connections.writing() as connection:
            connection.execute("UPDATE keys SET revoked = coalesce(revoked, ?) WHERE name = ?", (when, name))
            _changed(connection)
            found = _find(connection, name)
            if found is None:
                raise unknown_name(name)
            return found

    def all(self) -> list[ApiKey]:
        with self._connections.use() as connection:
            return [_key(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY name")]

    def version(self) -> int:
        with self._connections.use() as connection:
            return int(connection.execute("SELECT number FROM version").fetchone()[0])

    def close(self) -> None:
        self._connections.close()


def _changed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE version SET number = number + 1")


def _find(connection: sqlite3.Connection, name: str) -> ApiKey | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE name = ?", (name,)).fetchone()
    return None if row is None else _key(row)


def _key(row: tuple[Any, ...]) -> ApiKey:
    name, digest, scopes, *rest = row
    return ApiKey(name, digest, frozenset(scopes.split()), *rest)
