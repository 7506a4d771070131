"""Popularity from a dump without events, kept in the home until the first snapshot contains it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from seqrec.data.files import private_directory, write_text
from seqrec.errors import SnapshotError


def keep_popularity(home: Path, catalogue_id: str, counts: Mapping[str, float]) -> None:
    """`counts`: events of each item that are not in the restored log of events."""
    private_directory(home)
    text = json.dumps({"catalogue_id": catalogue_id, "counts": dict(counts)}, ensure_ascii=False)
    write_text(_path(home), text + "\n", private=True)


def kept_popularity(home: Path, catalogue_id: str) -> dict[str, float] | None:
    """The counts for this catalogue, if any. Raises SnapshotError for a damaged file."""
    try:
        record = json.loads(_path(home).read_text(encoding="utf-8"))
        counts = {str(item_id): float(count) for item_id, count in record["counts"].items()}
        return counts if record["catalogue_id"] == catalogue_id else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotError(f"{_path(home)} is damaged: restore the dump again, or remove the file") from error


def forget_popularity(home: Path) -> None:
    _path(home).unlink(missing_ok=True)


def _path(home: Path) -> Path:
    return home / "restored-popularity.json"
