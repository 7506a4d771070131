"""Opens the store of the API keys: where the catalogue is."""

from __future__ import annotations

from pathlib import Path

from index.catalogue.open import Location, is_redis, weaker_accepted
from index.keys.base import KeyStore
from index.keys.sqlite import SqliteKeys

KEYS_FILE = "keys.sqlite3"


def open_keys(location: Location, accept_weaker: bool | None = None) -> KeyStore:
    """Of a home or of a Redis server; created if missing. Raises CatalogueError."""
    if is_redis(location):
        from index.keys.redis import RedisKeys  # imports redis, which nothing else needs here

        return RedisKeys(str(location), weaker_accepted(accept_weaker))
    return SqliteKeys(Path(location) / KEYS_FILE)
