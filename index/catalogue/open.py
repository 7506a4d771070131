"""Opens catalogue and histories: in a home directory (SQLite, one host) or a Redis server (several hosts)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from seqrec.errors import CatalogueError
from seqrec.registry import load

Location = Path | str
"""A home directory, or a URL that begins with one of `REDIS_SCHEMES`."""

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
CATALOGUE_FILE = "catalogue.sqlite3"
HISTORIES_FILE = "histories.sqlite3"
CATALOGUES = {
    "sqlite": "index.catalogue.sqlite.catalogue:SqliteCatalogue",
    "redis": "index.catalogue.redis.catalogue:RedisCatalogue",
}
HISTORIES = {
    "sqlite": "index.catalogue.sqlite.histories:SqliteHistories",
    "redis": "index.catalogue.redis.histories:RedisHistories",
}


def is_redis(location: Location) -> bool:
    return isinstance(location, str) and location.startswith(REDIS_SCHEMES)


def location_of(home: Path) -> Location:
    """SEQREC_REDIS_URL if it is set, else the home."""
    return os.environ.get("SEQREC_REDIS_URL") or home


def open_catalogue(location: Location, create: bool = False, accept_weaker: bool | None = None) -> Catalogue:
    """Open the catalogue of a home or of a Redis server.

    Raises CatalogueError if it cannot be reached, if there is none and not `create`, and if a Redis server does not
    guarantee durability and not `accept_weaker` (None: the value of SEQREC_ACCEPT_WEAKER).
    """
    if is_redis(location):
        return cast(Catalogue, load(CATALOGUES["redis"])(location, create, weaker_accepted(accept_weaker)))
    path = Path(location) / CATALOGUE_FILE
    if not create and not path.is_file():
        raise CatalogueError(
            f"there is no catalogue in {Path(location).absolute()}; `seqrec index build --items` creates one. If it is "
            "elsewhere, name its directory by --home or SEQREC_HOME, or its Redis server by SEQREC_REDIS_URL"
        )
    return cast(Catalogue, load(CATALOGUES["sqlite"])(path))


def open_histories(location: Location, accept_weaker: bool | None = None) -> HistoryStore:
    """Open the users' histories of a home or of a Redis server; created if missing. Raises CatalogueError."""
    if is_redis(location):
        return cast(HistoryStore, load(HISTORIES["redis"])(location, weaker_accepted(accept_weaker)))
    return cast(HistoryStore, load(HISTORIES["sqlite"])(Path(location) / HISTORIES_FILE))


def weaker_accepted(accept: bool | None) -> bool:
    return os.environ.get("SEQREC_ACCEPT_WEAKER", "").lower() in ("1", "true") if accept is None else accept
