"""Data folders written by finetune_data/process.py of the Recformer authors (github.com/AaronHeee/RecFormer).

meta_data.json: item id -> attributes. smap.json, umap.json: item id, user id -> number. train.json, val.json,
test.json: number of a user -> numbers of items, oldest first. Each is one JSON object and is read as a whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqrec.data.encoding import read_text
from seqrec.data.items import Item, check_event, make_item
from seqrec.data.jsonl import BrokenLines, OnError
from seqrec.data.sources.base import Event, fit
from seqrec.errors import FileFormatError, InputError

PARTS = ("train.json", "val.json", "test.json")


class RecformerSource:
    """Histories are train, val and test joined in this order; the timestamp of an event is its position."""

    mixes_units = False

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileFormatError(folder, None, "no such folder")
        self._folder = folder

    def items(self, on_error: OnError) -> Iterator[Item]:
        path = self._folder / "meta_data.json"
        broken = BrokenLines(path, on_error)
        for item_id, described in _read(path).items():
            try:
                # Some other writers of this format give only the title.
                attributes = described if isinstance(described, dict) else {"title": described}
                fitted = {name: fit(name, value) for name, value in attributes.items() if not _is_empty(value)}
                item = make_item(item_id, fitted)
            except InputError as error:
                broken.add(None, f"item {item_id!r}: {error}")
                continue
            yield item
        broken.report()

    def events(self, on_error: OnError) -> Iterator[Event]:
        item_ids = _by_number(self._folder / "smap.json")
        user_ids = _by_number(self._folder / "umap.json")
        parts = {name: _read(self._folder / name) for name in PARTS}
        broken = {name: BrokenLines(self._folder / name, on_error) for name in PARTS}
        for user in dict.fromkeys(user for part in parts.values() for user in part):
            pieces = {name: part[user] for name, part in parts.items() if user in part}
            if PARTS[0] not in pieces and pieces.get(PARTS[1]) == pieces.get(PARTS[2]):
                del pieces[PARTS[1]]  # split by user: val.json and test.json have the same complete histories
            place = 0
            for name, items in pieces.items():
                for item in items if isinstance(items, list) else [items]:
                    try:
                        ids = _named(user_ids, user, "umap"), _named(item_ids, item, "smap")
                        event = Event(*check_event(*ids, place), None)
                    except InputError as error:
                        broken[name].add(None, f"user {user!r}: {error}")
                        continue
                    place += 1
                    yield event
        for one in broken.values():
            one.report()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, None, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FileFormatError(path, None, "not one JSON object")
    return value


def _by_number(path: Path) -> dict[str, str]:
    return {str(number): name for name, number in _read(path).items()}


def _named(names: dict[str, str], number: object, file: str) -> str:
    if str(number) not in names:
        raise InputError(f"{number!r} is not in {file}.json")
    return names[str(number)]


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
