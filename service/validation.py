"""Errors of pydantic in plain words, the same for requests and settings."""

from __future__ import annotations

import json
from typing import Any

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


def reason(error: Any) -> str:
    """One of the errors of a pydantic ValidationError in plain words: what was expected, and what came."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown field; GET /docs lists the fields"
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
