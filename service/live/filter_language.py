"""The filter of a request: which items an answer may contain, by their attributes. Every condition must be met.

{"brand": "Acme"}                          equal; of a list of strings: it contains this one
{"brand": ["Acme", "Lumen"]}               equal to any of these
{"price": {"gte": 10, "lt": 100}}          a number in a range: gt, gte, lt, lte
{"released": {"gte": "2026-01-01"}}        a date or time in a range; "now-30d" is relative
{"tags": {"all": ["gift", "kitchen"]}}     has all of these
{"brand": {"not": ["Acme"]}}               none of these; so has an item without the attribute
{"image": {"exists": true}}                has the attribute
{"place": {"near": {"lat": 52.5, "lon": 13.4, "km": 5}}}     "52.51,13.39" is within 5 km
{"brand": {"same_as": "last"}}             equal to that of the newest item of the history
{"or": [{"brand": "Acme"}, {"price": {"lt": 5}}]}            one of these filters; also `and`, and `not` of one filter

An item without the attribute meets no other condition than `not` and `exists: false`. "10" is not a number; 10 and 10.0
are equal. Numbers compare exactly. Conditions of one attribute can stand together: {"price": {"gte": 10, "not": 12}}.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from index.snapshot.attribute_columns import RANGES, Column, Mask, Parsed
from seqrec.data.items import MAX_ATTRIBUTES, AttributeValue
from seqrec.errors import InputError
from service.live.columns import Check

Value = str | int | float
MAX_DEPTH = 8
GROUPS = ("and", "or", "not")
OPERATORS = ("any", "all", "not", *RANGES, "exists", "near", "same_as")
_EARTH_KM = 6371.0088  # mean radius
_RELATIVE = re.compile(r"now(?:([+-])(\d{1,6})(m|h|d|w))?")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Condition:
    """Of one attribute. `operator` any, all, not (values), a range (a number), before or after (a moment in
    seconds), exists (1 or 0), near (latitude, longitude, km), same_as ("last").
    """

    attribute: str
    operator: str
    values: tuple[Value, ...]

    def mask(self, column: Column, length: int) -> Mask:
        """Which of the first `length` rows meet it."""
        if self.operator in RANGES:
            bound = self.values[0]
            if isinstance(bound, str):
                return column.where(parse_moment, _in_range(self.operator, _moment(bound)), length)
            return column.compare(self.operator, bound, length)
        if self.operator == "near":
            lat, lon, km = (float(value) for value in self.values)
            return column.where(parse_place, lambda places: _kilometres(places, lat, lon) <= km, length)
        if self.operator == "exists":
            there = column.present(length)
            return there if self.values[0] else ~there
        if self.operator == "all":
            return column.having(self.values, length, every=True)
        found = column.having(self.values, length)
        return ~found if self.operator == "not" else found


@dataclass(frozen=True)
class Group:
    """Filters joined by `and` or `or`, or one that must not pass (`not`)."""

    operator: str
    filters: tuple[Filter, ...]

    def mask(self, columns: Mapping[str, Column], length: int, check: Check) -> Mask:
        masks = [part.mask(columns, length, check) for part in self.filters]
        if self.operator == "not":
            return ~masks[0]
        join = np.logical_or if self.operator == "or" else np.logical_and
        joined: Mask = join.reduce(masks)
        return joined


@dataclass(frozen=True)
class Filter:
    """All conditions and groups must be met; equal filters are equal and hash alike."""

    parts: tuple[Condition | Group, ...]

    @cached_property
    def attributes(self) -> list[str]:
        return list(dict.fromkeys(condition.attribute for condition in self.conditions()))

    @cached_property
    def is_relative(self) -> bool:
        """Whether it depends on the history, and must be `resolved` first."""
        return any(condition.operator == "same_as" for condition in self.conditions())

    @cached_property
    def values(self) -> int:
        return sum(len(condition.values) for condition in self.conditions())

    def mask(self, columns: Mapping[str, Column], length: int, check: Check = lambda: None) -> Mask:
        """Which of the first `length` rows meet all conditions."""
        met = np.ones(length, np.bool_)
        for part in self.parts:
            check()
            if isinstance(part, Group):
                met &= part.mask(columns, length, check)
            else:
                met &= part.mask(columns[part.attribute], length)
        return met

    def resolved(self, last: Mapping[str, AttributeValue], missing: list[str]) -> Filter:
        """The filter with the values of the history's newest item. A condition on an attribute that this item does not
        have is left out, and the attribute is appended to `missing`.
        """
        if not self.is_relative:
            return self
        parts: list[Condition | Group] = []
        for part in self.parts:
            if isinstance(part, Group):
                parts.append(Group(part.operator, tuple(one.resolved(last, missing) for one in part.filters)))
            elif part.operator != "same_as":
                parts.append(part)
            elif (value := last.get(part.attribute)) is None or value == ():
                missing.append(part.attribute)
            else:
                parts.append(Condition(part.attribute, "any", value if isinstance(value, tuple) else (value,)))
        return Filter(tuple(parts))

    def conditions(self) -> Iterator[Condition]:
        for part in self.parts:
            if isinstance(part, Condition):
                yield part
            else:
                for one in part.filters:
                    yield from one.conditions()


def parse_filter(value: Mapping[str, Any], field: str, max_values: int) -> Filter:
    """Raises InputError that names the condition. `max_values` of all conditions together."""
    found = _parse(value, field, 0)
    if found.values > max_values:
        raise InputError(f"at most {max_values} values, not {found.values}", field)
    if len(found.attributes) > MAX_ATTRIBUTES:
        raise InputError(f"at most {MAX_ATTRIBUTES} attributes, not {len(found.attributes)}", field)
    return found


def parse_moment(value: str | float) -> tuple[float, float] | None:
    """Seconds since 1970 of a date or time in ISO 8601; without a zone it is in UTC. None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), 0.0


def parse_place(value: str | float) -> tuple[float, float] | None:
    """Latitude and longitude of "52.51,13.39", in degrees. None where it is none."""
    if not isinstance(value, str) or value.count(",") != 1:
        return None
    try:
        lat, lon = (float(part) for part in value.split(","))
    except ValueError:
        return None
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else None


def _parse(value: Any, field: str, depth: int) -> Filter:
    if not isinstance(value, Mapping):
        raise InputError(f"a filter is an object, not {_shown(value)}", field)
    if depth > MAX_DEPTH:
        raise InputError(f"filters nest at most {MAX_DEPTH} deep", field)
    if len(value) > MAX_ATTRIBUTES:
        raise InputError(f"at most {MAX_ATTRIBUTES} attributes, not {len(value)}", field)
    parts: list[Condition | Group] = []
    for name, condition in value.items():
        where = f"{field}.{name}"
        if name in GROUPS:
            parts.append(_group(name, condition, where, depth))
        elif isinstance(condition, Mapping):
            if not condition:
                raise InputError(f"give at least one of {', '.join(OPERATORS)}", where)
            for word, operand in condition.items():
                parts.append(_condition(name, word, operand, f"{where}.{word}"))
        else:
            parts.append(_condition(name, "any", condition, where))
    return Filter(tuple(parts))


def _group(word: str, operand: Any, where: str, depth: int) -> Group:
    if word == "not":
        return Group(word, (_parse(operand, where, depth + 1),))
    if not isinstance(operand, list) or not 1 <= len(operand) <= MAX_ATTRIBUTES:
        raise InputError(f"a list of 1 to {MAX_ATTRIBUTES} filters, not {_shown(operand)}", where)
    return Group(word, tuple(_parse(one, f"{where}[{i}]", depth + 1) for i, one in enumerate(operand)))


def _condition(name: str, word: str, operand: Any, where: str) -> Condition:
    if word not in OPERATORS:
        raise InputError(f"unknown operator {word!r}; the operators are {', '.join(OPERATORS)}", where)
    if word in RANGES:
        return Condition(name, word, (_bound(operand, where),))
    if word == "exists":
        if not isinstance(operand, bool):
            raise InputError(f"true or false, not {_shown(operand)}", where)
        return Condition(name, word, (int(operand),))
    if word == "same_as":
        if operand != "last":
            raise InputError(f'"last", the newest item of the history, not {_shown(operand)}', where)
        return Condition(name, word, (operand,))
    if word == "near":
        return Condition(name, word, _circle(operand, where))
    values = operand if isinstance(operand, list) else [operand]
    for value in values:
        if not isinstance(value, str) and not _is_number(value):
            raise InputError(f"a string, a number or a list of them, not {_shown(value)}", where)
    return Condition(name, word, tuple(values))


def _bound(operand: Any, where: str) -> Value:
    if isinstance(operand, str) and _RELATIVE.fullmatch(operand):
        return _absolute(operand)
    if isinstance(operand, str) and parse_moment(operand) is not None:
        return operand
    if not _is_number(operand):
        raise InputError(f'a number, a date such as "2026-01-31", or "now-30d", not {_shown(operand)}', where)
    bound: int | float = operand
    return bound


def _absolute(relative: str) -> str:
    """To the minute, so that the same filter stays the same for a while and its mask is found again."""
    match = _RELATIVE.fullmatch(relative)
    assert match is not None
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    if match[1]:
        step = timedelta(**{_UNITS[match[3]]: int(match[2])})
        try:
            now = now + step if match[1] == "+" else now - step
        except OverflowError:
            now = (datetime.max if match[1] == "+" else datetime.min).replace(tzinfo=UTC)
    return now.isoformat()


def _circle(operand: Any, where: str) -> tuple[float, float, float]:
    if not isinstance(operand, Mapping) or set(operand) != {"lat", "lon", "km"}:
        raise InputError(f'{{"lat": degrees, "lon": degrees, "km": distance}}, not {_shown(operand)}', where)
    limits = {"lat": (-90, 90), "lon": (-180, 180), "km": (0, 20_100)}
    for name, (low, high) in limits.items():
        if not _is_number(operand[name]) or not low <= operand[name] <= high:
            raise InputError(f"a number from {low} to {high}, not {_shown(operand[name])}", f"{where}.{name}")
    return float(operand["lat"]), float(operand["lon"]), float(operand["km"])


def _moment(bound: str) -> float:
    found = parse_moment(bound)
    assert found is not None
    return found[0]


def _in_range(word: str, bound: float) -> Callable[[Parsed], Mask]:
    return lambda moments: np.asarray(RANGES[word](moments[:, 0], bound), np.bool_)


def _kilometres(places: Parsed, lat: float, lon: float) -> Parsed:
    """[v] Great-circle distances (haversine)."""
    at, to = np.radians(places), np.radians([lat, lon])
    a = np.sin((at[:, 0] - to[0]) / 2) ** 2 + np.cos(at[:, 0]) * np.cos(to[0]) * np.sin((at[:, 1] - to[1]) / 2) ** 2
    return np.asarray(2 * _EARTH_KM * np.arcsin(np.sqrt(np.clip(a, 0, 1))))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:100]
    except (TypeError, ValueError):
        return type(value).__name__
