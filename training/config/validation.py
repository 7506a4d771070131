"""Dataclasses from TOML tables: pydantic checks the values, and errors name the setting, the value and the way out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass, is_pydantic_dataclass

from seqrec.errors import InputError, there_are

Config = TypeVar("Config")
Table = Mapping[str, int | float | str | bool]
"""A table whose keys are checked elsewhere."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""No conversion but of whole numbers to floats: a setting of the wrong type is a mistake."""

RENAMED = {
    "pretrain.words_across_borders": "pretrain.whole_words_cross_attributes",
    "pretrain.one_domain_a_batch": "pretrain.single_domain_batches",
    "adversarial.alone_epochs": "adversarial.warmup_epochs",
    "model.settings.told_from": "model.settings.alignment_negatives",
}
"""Settings of earlier versions, by dotted name. Refused in a user's file; read in the config.toml of a stored run."""

_TYPES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def build(kind: type[Config], table: object, path: str = "") -> Config:
    """The dataclass `kind` from a table. `path`: the dotted name of the table, with a dot at its end, or ''.

    Raises InputError for an unknown setting, a wrong type and a value out of range.
    """
    if not isinstance(table, dict):
        raise InputError(f"a table is needed, not {table!r}", path.rstrip("."))
    try:
        # As JSON, since strict validation of Python values takes neither a dict for a dataclass nor a list for a tuple.
        checked = _adapter(kind).validate_json(json.dumps(table, default=str))  # type: ignore[arg-type]
    except ValidationError as error:
        raise _input_error(kind, error, path) from None
    if isinstance(checked, kind) and is_pydantic_dataclass(kind):
        return checked
    return kind(**{entry.name: getattr(checked, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """A standard dataclass (the settings of a model) gets a strict pydantic subclass."""
    if is_pydantic_dataclass(kind):
        return TypeAdapter(kind)
    return TypeAdapter(dataclass(frozen=kind.__dataclass_params__.frozen, config=STRICT)(kind))


def _input_error(kind: type[Any], error: ValidationError, path: str) -> InputError:
    """The first error of a validation. A setting is named by the path of dataclass fields that leads to it."""
    found = error.errors()[0]
    context = found.get("ctx", {})
    limits = {name: _short(context[name]) for name in ("ge", "gt", "le", "lt") if name in context}
    hint: Any = kind
    names: list[str] = []
    location = list(found["loc"])
    while location and is_dataclass(hint):
        name = str(location.pop(0))
        names.append(name)
        known = get_type_hints(hint)
        if name not in known:
            full = path + ".".join(names)
            if full in RENAMED:
                return InputError(f"this setting is now called {RENAMED[full]}", full)
            return InputError(f"unknown setting{there_are(name, sorted(known))}", full)
        hint = known[name]
    if hint == Table and location:
        names.append(str(location[0]))
    value = found["input"]
    reason = {
        "greater_than_equal": f"{value} is below {limits.get('ge')}",
        "greater_than": f"{value} is not above {limits.get('gt')}",
        "less_than_equal": f"{value} is above {limits.get('le')}",
        "less_than": f"{value} is not below {limits.get('lt')}",
        "finite_number": f"{value} is not a finite number",
        "literal_error": f"{value!r} is not one of {str(context.get('expected')).replace(' or ', ', ')}",
    }.get(found["type"])
    if reason is None and is_dataclass(hint):
        reason = f"a table is needed, not {value!r}"
    elif reason is None and hint == Table:
        reason = f"{'a value' if location else 'a table of settings'} is needed, not {value!r}"
    elif reason is None:
        reason = f"{_TYPES.get(hint, 'a list of strings')} is needed, not {value!r}"
    return InputError(reason, path + ".".join(names))


def _short(limit: float) -> float:
    """1.0 as 1."""
    return int(limit) if limit == int(limit) else limit
