"""RecBole's atomic files: NAME.inter and NAME.item, tables with tabs whose first line is `field:type ...`.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html; types token, token_seq, float, float_seq. RecBole
reads them as CSV, so a field that begins with a quote is quoted.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqrec.data.files import new_directory
from seqrec.data.items import AttributeValue, Interactions, Item, attribute_text
from seqrec.data.jsonl import OnError
from seqrec.data.sources.base import (
    Event,
    RawEvent,
    RawItem,
    check_replaceable,
    event_lines,
    first_line,
    item_lines,
    present,
)
from seqrec.data.timestamps import parse_number
from seqrec.errors import FileFormatError, InputError, there_are

log = logging.getLogger(__name__)

_SPACE_WITHIN = "\u00a0"
"""Stands for a blank within an element of a sequence: elements are separated by blanks, where RecBole splits."""

_MISSING = frozenset(
    [
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
"""Texts that pandas, with which RecBole reads files, parses as missing values."""


@dataclass(frozen=True)
class RecBoleFields:
    """Names of the fields that are read, RecBole's by default. `timestamp` None: the order of the lines is the time.

    `lists`: token_seq fields of items that become lists; others become one text.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str | None = "timestamp"
    rating: str = "rating"
    lists: tuple[str, ...] = ()


class RecBoleSource:
    """A data set's folder, or its .inter file. Items come from the .item file next to it, if there is one."""

    mixes_units = False

    def __init__(self, path: Path, fields: RecBoleFields) -> None:
        self._fields = fields
        self._events = _event_files(path)
        first = self._events[0]
        stem = first.name.split(".inter")[0].removesuffix(".train")
        found = present(first.parent, f"{stem}.item")
        self._items = [found] if found else []

    def items(self, on_error: OnError) -> Iterator[Item]:
        for path in self._items:
            header = _Header(path)
            item_field = header.place(self._fields.item_id)
            for name in self._fields.lists:
                header.place(name)
            left_out = [name for name, kind in header.kinds.items() if kind == "float_seq"]
            if left_out:
                log.warning("%s: left out %s: an attribute cannot be a sequence of numbers", path, ", ".join(left_out))

            def parse(line: str, header: _Header = header, item_field: int = item_field) -> RawItem:
                values = header.values(line)
                attributes = {
                    name: _attribute(text, kind, name in self._fields.lists)
                    for (name, kind), text in zip(header.kinds.items(), values, strict=True)
                    if text and name != self._fields.item_id and kind != "float_seq"
                }
                return values[item_field], attributes

            yield from item_lines(path, parse, on_error, header=True)

    def events(self, on_error: OnError) -> Iterator[Event]:
        fields, order = self._fields, itertools.count()
        for path in self._events:
            header = _Header(path)
            if f"{fields.item_id}_list" in header.kinds:
                raise FileFormatError(path, 1, "the file has sequences (item_id_list); use the one with single events")
            user, item = header.place(fields.user_id), header.place(fields.item_id)
            time = header.place(fields.timestamp) if fields.timestamp is not None else None
            rating = list(header.kinds).index(fields.rating) if fields.rating in header.kinds else None

            def parse(
                line: str,
                header: _Header = header,
                places: tuple[int, int, int | None, int | None] = (user, item, time, rating),
            ) -> RawEvent:
                values = header.values(line)
                user, item, time, rating = places
                when: object = next(order) if time is None else values[time]
                return values[user], values[item], when, values[rating] or None if rating is not None else None

            yield from event_lines(path, parse, on_error, header=True)


class _Header:
    """The first line of an atomic file. `kinds`: the type of each field, in the order of the columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kinds: dict[str, str] = {}
        for column in first_line(path).split("\t"):
            name, colon, kind = column.rpartition(":")
            if not colon or kind not in ("token", "token_seq", "float", "float_seq"):
                raise FileFormatError(
                    path, 1, f"{column[:100]!r} is not field:type; types are token, token_seq, float, float_seq"
                )
            self.kinds[name] = kind

    def place(self, name: str) -> int:
        if name not in self.kinds:
            raise FileFormatError(
                self._path,
                1,
                f"no field {name!r}, there are {', '.join(self.kinds)[:500]}; name the fields with --user-field, "
                "--item-field, --time-field (--file-order if there are no times), --list-field",
            )
        return list(self.kinds).index(name)

    def values(self, line: str) -> list[str]:
        values = line.split("\t")
        if len(values) != len(self.kinds):
            raise InputError(f"{len(values)} fields; the first line has {len(self.kinds)}")
        return [_unquoted(value) if value.startswith('"') else value for value in values]


def _event_files(path: Path) -> list[Path]:
    """One .inter file, or NAME.train.inter, NAME.valid.inter and NAME.test.inter of a split data set."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileFormatError(path, None, "no such folder or .inter file")
    found = sorted(path.glob("*.inter")) + sorted(path.glob("*.inter.gz"))
    whole = [one for one in found if one.name.split(".inter")[0] == path.name] or found
    if len(whole) == 1:
        return whole
    parts = {suffix: [one for one in found if f".{suffix}.inter" in one.name] for suffix in ("train", "valid", "test")}
    if all(len(part) == 1 for part in parts.values()):
        return [one for part in parts.values() for one in part]
    names = ", ".join(one.name for one in found) or "none"
    raise FileFormatError(path, None, f"one .inter file is needed, found {names}; give the path of the file")


def _unquoted(value: str) -> str:
    inside = value[1:-1]
    if len(value) < 2 or value[-1] != '"' or '"' in inside.replace('""', ""):
        return value  # written without any quoting, as RecBole's own conversion does
    return inside.replace('""', '"')


def _attribute(text: str, kind: str, as_list: bool) -> object:
    if kind == "float":
        return parse_number(text)
    if kind == "token":
        return text
    if as_list:
        return [part.replace(_SPACE_WITHIN, " ") for part in text.split(" ") if part]
    return text.replace(_SPACE_WITHIN, " ")


def export_recbole(
    items: Sequence[Item], interactions: Interactions, out: Path, attributes: Sequence[str] | None, overwrite: bool
) -> None:
    """Writes a folder with NAME.inter, NAME.item and NAME.yaml, a RecBole configuration with the same split.

    NAME is the folder's. Strings are written as token, lists as token_seq, attributes that are numbers in every item as
    float; `attributes` selects some. Events are written in the order of their times, because RecBole keeps times in 32
    bits, where close times are equal, and sorts them stably. Raises InputError for values that these files cannot
    represent, and if `out` cannot be written.
    """
    check_replaceable(out, f"{out.name}.inter", overwrite)
    if out.name == "ml-100k":
        raise InputError("RecBole replaces a data set called ml-100k by its own copy; give --out another name")
    for one in itertools.chain(interactions.user_ids, interactions.item_ids, (item.item_id for item in items)):
        if one in _MISSING:
            raise InputError(f"the id {one!r} is read as a missing value by RecBole; give it another name")
    kinds = _kinds(items, attributes)
    with new_directory(out, replace=overwrite) as folder:
        with (folder / f"{out.name}.inter").open("w", encoding="utf-8", newline="") as file:
            file.write("user_id:token\titem_id:token\ttimestamp:float\n")
            times = interactions.timestamps
            for row in np.argsort(times, kind="stable").tolist():
                ids = _field(interactions.user_ids[row]), _field(interactions.item_ids[row])
                file.write("\t".join((*ids, str(times[row].item()))) + "\n")
        with (folder / f"{out.name}.item").open("w", encoding="utf-8", newline="") as file:
            file.write("\t".join(("item_id:token", *(f"{name}:{kind}" for name, kind in kinds.items()))) + "\n")
            for item in items:
                values = (_written(item.attributes.get(name), kind) for name, kind in kinds.items())
                file.write("\t".join((_field(item.item_id), *values)) + "\n")
        (folder / f"{out.name}.yaml").write_text(_configuration(list(kinds)), encoding="utf-8")


def _kinds(items: Sequence[Item], chosen: Sequence[str] | None) -> dict[str, str]:
    """The type of each attribute, in the order of first occurrence."""
    types: dict[str, set[type]] = {}
    for item in items:
        for name, value in item.attributes.items():
            types.setdefault(name, set()).add(type(value))
    for name in chosen or ():
        if name not in types:
            raise InputError(f"no item has {name!r}{there_are(name, list(types))}", "--attributes")
    kinds = {}
    for name in types if chosen is None else chosen:
        if name == "item_id" or name.startswith('"') or any(c in name for c in ":\t\r\n"):
            raise InputError(
                f"an attribute of the name {name!r} cannot be written to atomic files; choose others", "--attributes"
            )
        kinds[name] = "token_seq" if tuple in types[name] else "float" if types[name] <= {int, float} else "token"
    return kinds


def _written(value: AttributeValue | None, kind: str) -> str:
    if value is None:
        return ""
    if kind == "token_seq":
        parts = value if isinstance(value, tuple) else (attribute_text(value),)
        return _field(" ".join(_SPACE_WITHIN.join(part.split()) for part in parts))
    return _field(value if isinstance(value, str) else str(value))


def _field(text: str) -> str:
    """Without tabs and line ends; quoted if it begins with a quote, which CSV readers treat specially."""
    text = text.translate({ord(c): " " for c in "\t\r\n"})
    return '"' + text.replace('"', '""') + '"' if text.startswith('"') else text


def _configuration(attributes: Sequence[str]) -> str:
    """As JSON, which is YAML. Leave-one-out over the whole catalogue, as in `seqrec evaluate`."""
    load: Mapping[str, Sequence[str]] = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", *attributes]}
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
    settings = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "TIME_FIELD": "timestamp"}
    return json.dumps({**settings, "load_col": load, "eval_args": split}, indent=2, ensure_ascii=False) + "\n"
