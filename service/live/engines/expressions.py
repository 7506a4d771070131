"""Filters as expressions of Milvus. An expression passes everything that its filter passes, and perhaps more.

What cannot be pushed down (`near`, numbers that float64 rounds) passes everything; the engine checks what it gets.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from index.engines.attributes import moment, name_token, number_key, value_token
from service.live.filter_language import Condition, Filter, Group

EVERYTHING, NOTHING = "row >= 0", "row < 0"
_EXACT = 2**53
_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Expression(NamedTuple):
    text: str
    exact: bool  # passes nothing else, so that its opposite is that of the filter


def expression_of(wanted: Filter) -> str:
    """Of an item whose attributes did not fit (`wide`), nothing is known: it passes."""
    return f"wide == true or ({_filter(wanted).text})"


def _filter(wanted: Filter) -> Expression:
    parts = [_group(part) if isinstance(part, Group) else _condition(part) for part in wanted.parts]
    return _joined("and", parts) if parts else Expression(EVERYTHING, True)


def _joined(word: str, parts: list[Expression]) -> Expression:
    return Expression(f" {word} ".join(f"({part.text})" for part in parts), all(part.exact for part in parts))


def _group(group: Group) -> Expression:
    parts = [_filter(one) for one in group.filters]
    if group.operator != "not":
        return _joined(group.operator, parts)
    # The opposite of an expression that passes too much would pass too little.
    return Expression(f"not ({parts[0].text})", True) if parts[0].exact else Expression(EVERYTHING, False)


def _condition(condition: Condition) -> Expression:
    name, values = condition.attribute, condition.values
    if condition.operator in _COMPARE:
        return _range(name, condition.operator, values[0])
    if condition.operator == "exists":
        there = f'array_contains(tokens, "{name_token(name)}")'
        return Expression(there if values[0] else f"not ({there})", True)
    tokens = json.dumps(list(dict.fromkeys(value_token(name, value) for value in values)))
    if condition.operator == "all":
        return Expression(f"array_contains_all(tokens, {tokens})" if values else EVERYTHING, True)
    if condition.operator in ("any", "not"):
        found = f"array_contains_any(tokens, {tokens})" if values else NOTHING
        return Expression(found if condition.operator == "any" else f"not ({found})", True)
    return Expression(EVERYTHING, False)


def _range(name: str, word: str, bound: str | int | float) -> Expression:
    if isinstance(bound, str):
        # One of the dates is late enough if the last one is, and early enough if the first one is.
        key = number_key(name, "last" if word in ("gt", "gte") else "first")
        seconds = moment(bound)
        assert seconds is not None
        return Expression(f'numbers["{key}"] {_COMPARE[word]} {seconds!r}', False)
    if abs(bound) >= _EXACT:  # float64 rounds it, and numbers like it
        return Expression(f'array_contains(tokens, "{name_token(name)}")', False)
    # Not exact: an item without the number meets neither this nor its opposite.
    return Expression(f'numbers["{number_key(name)}"] {_COMPARE[word]} {float(bound)!r}', False)
