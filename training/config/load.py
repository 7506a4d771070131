"""Reading and writing the configuration of a training run as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from seqrec.data.encoding import read_text
from seqrec.errors import FileFormatError, InputError, there_are
from training.config import hardware
from training.config.schema import RunConfig
from training.config.validation import RENAMED, build

PRESETS = Path(__file__).parent / "presets"


def preset_path(name: str) -> Path:
    """The file of a preset. Raises InputError for an unknown name."""
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if name not in names:
        raise InputError(f"no preset {name!r}{there_are(name, names)}", "preset")
    return PRESETS / f"{name}.toml"


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a TOML file. Each override is `key=value`, such as `optimizer.max_steps=100`, the value in TOML.

    The tables [on.cpu] and [on.gpu] change settings by the hardware found; overrides are applied after them.

    Raises FileFormatError for a file that is not TOML, InputError for a setting that is unknown or has a wrong value.
    """
    table = hardware.resolve(_read(path))
    for override in overrides:
        _override(table, override)
    return build(RunConfig, table)


def load_stored_config(path: Path) -> RunConfig:
    """Reads the config.toml of a run directory, which an earlier version may have written with other names.

    Raises as `load_config`.
    """
    table = _read(path)
    for old, new in RENAMED.items():
        *tables, name = old.split(".")
        inner: Any = table
        for part in tables:
            inner = inner.get(part, {}) if isinstance(inner, dict) else {}
        if isinstance(inner, dict) and name in inner:
            inner[new.rpartition(".")[2]] = inner.pop(name)
    return build(RunConfig, table)


def dump_config(config: RunConfig) -> str:
    """Every setting as TOML, without empty tables; `load_config` reads an equal configuration back."""
    return tomli_w.dumps(_without_empty_tables(asdict(config)))


def flat(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The values of nested tables by dotted name."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        values |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return values


def _without_empty_tables(table: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: _without_empty_tables(value) if isinstance(value, dict) else value for name, value in table.items()}
    return {name: value for name, value in kept.items() if value != {}}


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise FileFormatError(path, None, "this is a directory; name a TOML file")
    try:
        return tomllib.loads(read_text(path).replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise FileFormatError(path, None, f"not TOML: {error}") from None


def _override(table: dict[str, Any], text: str) -> None:
    """Changes one setting in place. Raises InputError."""
    key, equals, literal = text.partition("=")
    if not equals:
        raise InputError(f"{text!r} is not key=value, such as optimizer.max_steps=100", "--set")
    try:
        value = tomllib.loads(f"value = {literal}")["value"]
    except tomllib.TOMLDecodeError:
        value = literal  # an unquoted string
    *tables, name = key.strip().split(".")
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"{part!r} of {key!r} is a setting, not a table", "--set")
    table[name] = value
