"""Frozen dataclasses from TOML tables, and back: every key is known, of the right type, and named where it is not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from seqrec.errors import FileFormatError, InputError

Table = Mapping[str, int | float | str | bool]
"""A table whose keys are checked elsewhere."""

_WANTED = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def read(path: Path) -> dict[str, Any]:
    """Raises FileFormatError for a file that is not there or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(path, None, "no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(path, None, f"not TOML: {error}") from None


def override(table: dict[str, Any], text: str) -> None:
    """Change one setting of a table in place: `optimizer.max_steps=100`, the value in TOML. Raises InputError."""
    key, equals, said = text.partition("=")
    if not equals:
        raise InputError(f"{text!r} is not key=value, such as optimizer.max_steps=100", "--set")
    try:
        value = tomllib.loads(f"value = {said}")["value"]
    except tomllib.TOMLDecodeError:
        value = said  # a bare word is a string
    *tables, name = key.strip().split(".")
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"{part!r} of {key!r} is a setting, not a table", "--set")
    table[name] = value


def build(kind: Any, table: object, path: str = "") -> Any:
    """A dataclass of type `kind` from a table; `path` is where the table stands, with a dot at its end.

    Raises InputError that names the key.
    """
    if not isinstance(table, dict):
        raise InputError(f"a table is needed, not {table!r}", path.rstrip("."))
    known = {entry.name for entry in fields(kind)}
    for name in table:
        if name not in known:
            raise InputError(f"unknown setting; there are {', '.join(sorted(known))}", f"{path}{name}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in table.items()})


def dump(config: Any) -> str:
    """Every setting of a dataclass; what `build` makes an equal one of. Empty tables are left out."""
    return "\n".join(_lines(plain(config), "")).lstrip("\n") + "\n"


def plain(config: Any) -> dict[str, Any]:
    """Dictionaries all the way down."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    return {
        name: plain(value) if is_dataclass(value) else dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _value(hint: Any, value: object, path: str) -> Any:
    if is_dataclass(hint):
        return build(hint, value, f"{path}.")
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(f"{value!r} is not one of {', '.join(map(repr, get_args(hint)))}", path)
        return value
    if hint is float and type(value) is int:
        return float(value)
    if hint in _WANTED and type(value) is hint:
        return value
    if hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    if hint == Table:
        if isinstance(value, dict) and all(type(part) in (int, float, str, bool) for part in value.values()):
            return MappingProxyType(value)
        raise InputError(f"a table of settings is needed, not {value!r}", path)
    raise InputError(f"{_WANTED.get(hint, 'a list of strings')} is needed, not {value!r}", path)


def _lines(table: dict[str, Any], path: str) -> list[str]:
    lines = [f"{name} = {_said(value)}" for name, value in table.items() if not isinstance(value, dict)]
    if path and lines:
        lines = ["", f"[{path}]", *lines]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{path}.{name}" if path else name)
    return lines


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_said, value))}]"
    return json.dumps(value, ensure_ascii=True) if isinstance(value, str | bool) else repr(value)
