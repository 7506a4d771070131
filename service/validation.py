"""Errors of pydantic in plain words, the same for requests and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from seqrec.errors import did_you_mean

_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

_LIKENESS = 0.7
"""`user` is like `user_id` and `avail` like `available`; `count` is not meant to be `context`."""


def reason(error: Any, body: Any = None) -> str:
    """One of the errors of a pydantic ValidationError in plain words: what was expected, and what came.

    `body`: the type that was to be read, whose fields are suggested for an unknown one.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        near = did_you_mean(str(error["loc"][-1])[:64], fields_at(body, error["loc"][1:-1]), _LIKENESS)
        return f"unknown field{near or '; GET /docs lists the fields'}"
    if kind == "missing":
        return "the body is missing; send a JSON object" if len(error["loc"]) == 1 else "this field is required"
    if kind == "string_unicode":
        return "not valid Unicode (a lone surrogate)"
    if kind == "too_short":
        return f"at least {context['min_length']} entry is needed"
    if kind == "too_long":
        return f"at most {context['max_length']} entries"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "greater_than_equal":
        expected = f"at least {context['ge']}"
    elif kind == "less_than_equal":
        expected = f"at most {context['le']}"
    elif kind == "greater_than":
        expected = f"more than {context['gt']}"
    elif kind == "less_than":
        expected = f"less than {context['lt']}"
    elif kind == "literal_error":
        expected = f"one of {context['expected']}"
    elif kind == "string_pattern_mismatch":
        expected = f"text that matches {context['pattern']}"
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind]
    else:
        return str(error["msg"])
    value = error.get("input")
    if not isinstance(value, str | int | float | None):
        return f"expected {expected}"
    shown = json.dumps(value[:60] if isinstance(value, str) else value)
    return f"expected {expected}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"


def field_path(loc: Sequence[str | int]) -> str:
    """("body", "history", 3, "<entry>", "attributes") -> "history[3].attributes"; a tag of a union is no field."""
    path = ""
    for part in loc[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part.startswith("<") and part.endswith(">")):
            path += f".{part}" if path else part
    return path


def fields_at(body: Any, path: Sequence[str | int]) -> list[str]:
    """Names of the fields of what lies at a path, such as ("events", 3), in bodies of the type `body`."""
    models = list(_models(body))
    for part in path:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:  # the number of an entry and the tag of a union are no fields
            models = [model for field in fields for model in _models(field.annotation)]
    return sorted({name for model in models for name in model.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that a type such as `list[PostedItem] | None` has."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
