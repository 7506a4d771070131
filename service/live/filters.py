"""The filter of a request: which items an answer may contain, by their attributes. Every condition must be met.

{"brand": "Acme"}                          equal; of a list of strings: it contains this one
{"brand": ["Acme", "Lumen"]}               equal to any of these
{"price": {"gte": 10, "lt": 100}}          a number in a range: gt, gte, lt, lte
{"tags": {"all": ["gift", "kitchen"]}}     has all of these
{"brand": {"not": ["Acme"]}}               none of these; so has an item without the attribute

An item without the attribute meets no other condition than `not`. "10" is not a number; 10 and 10.0 are equal.
Numbers compare exactly. Conditions of one attribute can stand together: {"price": {"gte": 10, "not": 12}}.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from index.snapshot.snapshot import Snapshot
from seqrec.data.items import MAX_ATTRIBUTES, AttributeValue
from seqrec.errors import InputError
from service.live.columns import RANGES, Check, Column, Columns, Mask

MOST_MASKS = 32
"""Remembered for each snapshot, a byte a row each."""
Value = str | int | float
_OPERATORS = ("any", "all", "not", *RANGES)


@dataclass(frozen=True)
class Condition:
    """Of one attribute. `operator` any, all, not (with values) or a range (with one number)."""

    attribute: str
    operator: str
    values: tuple[Value, ...]

    def mask(self, column: Column, length: int) -> Mask:
        """Which of the first `length` rows meet it."""
        if self.operator in RANGES:
            bound = self.values[0]
            assert not isinstance(bound, str)
            return column.compare(self.operator, bound, length)
        if self.operator == "all":
            return column.having(self.values, length, every=True)
        found = column.having(self.values, length)
        return ~found if self.operator == "not" else found


@dataclass(frozen=True)
class Filter:
    """All conditions must be met; equal filters are equal and hash alike."""

    conditions: tuple[Condition, ...]

    @cached_property
    def attributes(self) -> list[str]:
        return list(dict.fromkeys(condition.attribute for condition in self.conditions))

    def mask(self, columns: Mapping[str, Column], length: int, check: Check = lambda: None) -> Mask:
        """Which of the first `length` rows meet all conditions."""
        met = np.ones(length, np.bool_)
        for condition in self.conditions:
            check()
            met &= condition.mask(columns[condition.attribute], length)
        return met


@dataclass(frozen=True, eq=False)
class FilterMask:
    """What a filter lets through of one view."""

    snapshot: Mask  # [n]
    delta: Mask  # [length of the delta]
    unknown: Sequence[str] = ()  # attributes of the filter that no item has

    def __contains__(self, position: int) -> bool:
        n = len(self.snapshot)
        return bool(self.snapshot[position] if position < n else self.delta[position - n])


class SnapshotFilters:
    """The columns of a snapshot, and the masks of recent filters, since the same filter comes again and again."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._columns = Columns()
        self._masks: OrderedDict[Filter, Mask] = OrderedDict()
        self._lock = threading.Lock()

    def mask(self, wanted: Filter, check: Check = lambda: None) -> Mask:
        """[n]; the same object for the same filter, as long as it is remembered."""
        with self._lock:
            known = self._masks.get(wanted)
            if known is not None:
                self._masks.move_to_end(wanted)
                return known
        n = len(self._snapshot.item_ids)
        made = self._columns.evaluate(
            wanted.attributes, n, self._attributes, lambda columns: wanted.mask(columns, n, check), check
        )
        if self.unknown(wanted.attributes):  # invented names must not displace the masks of real filters
            return made
        with self._lock:
            made = self._masks.setdefault(wanted, made)
            while len(self._masks) > MOST_MASKS:
                self._masks.popitem(last=False)
        return made

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Attributes that no item of the snapshot has, as far as it was read: wholly after `mask` or `read_names`."""
        return self._columns.unknown(names)

    def read_names(self, check: Check = lambda: None) -> None:
        """Learn which attributes there are."""
        self._columns.read_names(len(self._snapshot.item_ids), self._attributes, check)

    def warm_from(self, other: SnapshotFilters) -> None:
        """Read the columns that another snapshot's filters have used, before they are needed here."""
        names = other._columns.names
        self._columns.evaluate(names, len(self._snapshot.item_ids), self._attributes, lambda columns: None)

    def _attributes(self, row: int) -> Mapping[str, AttributeValue]:
        return self._snapshot.item(row).attributes


def parse_filter(value: Mapping[str, Any], field: str, max_values: int) -> Filter:
    """Raises InputError that names the condition. `max_values` of all conditions together."""
    if len(value) > MAX_ATTRIBUTES:
        raise InputError(f"at most {MAX_ATTRIBUTES} attributes, not {len(value)}", field)
    conditions = []
    for name, condition in value.items():
        where = f"{field}.{name}"
        if isinstance(condition, Mapping):
            if not condition:
                raise InputError(f"give at least one of {', '.join(_OPERATORS)}", where)
            for word, operand in condition.items():
                conditions.append(_condition(name, word, operand, f"{where}.{word}"))
        else:
            conditions.append(_condition(name, "any", condition, where))
    count = sum(len(condition.values) for condition in conditions)
    if count > max_values:
        raise InputError(f"at most {max_values} values, not {count}", field)
    return Filter(tuple(conditions))


def _condition(name: str, word: str, operand: Any, where: str) -> Condition:
    if word not in _OPERATORS:
        raise InputError(f"unknown operator {word!r}; the operators are {', '.join(_OPERATORS)}", where)
    if word in RANGES:
        if not _is_number(operand):
            raise InputError(f"a number, not {_shown(operand)}", where)
        return Condition(name, word, (operand,))
    values = operand if isinstance(operand, list) else [operand]
    for value in values:
        if not isinstance(value, str) and not _is_number(value):
            raise InputError(f"a string, a number or a list of them, not {_shown(value)}", where)
    return Condition(name, word, tuple(values))


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
