"""Opens a path: a home, a project file, or a checkpoint, for which a home is made in a temporary directory."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from index.build.reindex import Request, make_snapshot
from index.catalogue.open import CATALOGUE_FILE
from seqrec.data.items import make_item, read_items
from seqrec.errors import InputError
from seqrec.shop.project import FILE, read_project
from service.local.tables import item_body, records
from service.settings import PREFIX, Settings, load_settings

_DEADLINE = 60.0
"""Nobody else waits, and the first filter on a text may read all items."""
EVENT_COLUMNS = ("user_id", "item_id", "timestamp")


@dataclass(frozen=True)
class Opened:
    """`temporary`: the home that was made of a checkpoint, removed with `cleanup`."""

    settings: Settings
    temporary: TemporaryDirectory[str] | None = None


def open_path(path: Path, items: Any, events: Any, given: Mapping[str, Any]) -> Opened:
    """The settings of a service on what lies at `path`. Raises InputError, and for a checkpoint as `make_snapshot`."""
    if _is_checkpoint(path / "checkpoint") and not (path / CATALOGUE_FILE).is_file():
        path = path / "checkpoint"  # a run's directory
    if _is_checkpoint(path):
        return _of_checkpoint(path, items, events, given)
    if items is not None or events is not None:
        raise InputError("only with a checkpoint: a home has its items and events; `add` adds items", "items")
    if path.suffix == ".toml" or (path / FILE).is_file():
        project = read_project(path)
        return Opened(_settings(project.home, given, project.config.serve.settings))
    if not path.is_dir():
        raise InputError(f"no such directory: {path}; a home, a shop.toml or a checkpoint is needed", "path")
    if not (path / CATALOGUE_FILE).is_file() and not given.get("redis_url") and not os.environ.get("SEQREC_REDIS_URL"):
        raise InputError(
            f"{path} is neither a home nor a checkpoint and has no {FILE}; `seqrec up` or `seqrec index build "
            "--publish` make a home",
            "path",
        )
    return Opened(_settings(path, given))


def _is_checkpoint(path: Path) -> bool:
    return (path / "digest").is_file() and (path / "config.json").is_file()


def _settings(home: Path, given: Mapping[str, Any], serve: Mapping[str, Any] | None = None) -> Settings:
    """Values in `given` win over those in `serve` of shop.toml. Jobs start automatically only if they are given."""
    values: dict[str, Any] = {} if f"{PREFIX}DEADLINE" in os.environ else {"deadline": _DEADLINE}
    return load_settings({**values, **(serve or {}), "home": home, "reindex_at": 0.0, "retrain_every": None, **given})


def _of_checkpoint(path: Path, items: Any, events: Any, given: Mapping[str, Any]) -> Opened:
    if items is None:
        raise InputError("a checkpoint has no items: give items=, a list, a table or a JSON Lines file", "items")
    bodies = (
        []
        if isinstance(items, str | Path)
        else [item_body(r, f"items[{i}]") for i, r in enumerate(records(items, "items"))]
    )
    found = (
        read_items(items)
        if isinstance(items, str | Path)
        else [
            make_item(body["item_id"], body["attributes"], body.get("available", True), f"items[{row}].")
            for row, body in enumerate(bodies)
        ]
    )
    if not found:
        raise InputError("there are none", "items")
    temporary = TemporaryDirectory(prefix="seqrec-", ignore_cleanup_errors=True)
    try:
        home = Path(temporary.name)
        settings = _settings(home, given)
        interactions = None if events is None else _interactions(home, events)
        request = Request(
            checkpoint=path,
            items=found,
            interactions=interactions,
            device=settings.device,
            precision=settings.precision,
        )
        make_snapshot(home, request)
    except BaseException:
        temporary.cleanup()
        raise
    return Opened(settings, temporary)


def _interactions(home: Path, events: Any) -> Path:
    """A file of events: the given one, or one with the rows of a table."""
    if isinstance(events, str | Path):
        return Path(events)
    path = home / "events.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(EVENT_COLUMNS)
        for number, row in enumerate(records(events, "events")):
            if not isinstance(row, Mapping) or any(row.get(name) is None for name in EVENT_COLUMNS):
                raise InputError(f"an event is a dict with {', '.join(EVENT_COLUMNS)}", f"events[{number}]")
            writer.writerow([row[name] for name in EVENT_COLUMNS])
    return path
