"""The attributes of an item as an engine filters them: tokens for equality, numbers for ranges.

A token is a digest of a name and a value, so neither length nor quoting can differ between here and the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

from seqrec.data.items import AttributeValue

MOST_TOKENS = 1024
"""An item with more passes every pushed-down condition and is checked afterwards."""
TOKEN_LENGTH = 22


@dataclass(frozen=True, slots=True)
class EngineAttributes:
    tokens: list[str]
    numbers: dict[str, float]
    wide: bool  # more tokens than fit: only those of names are held


def engine_attributes(attributes: Mapping[str, AttributeValue]) -> EngineAttributes:
    tokens: list[str] = []
    names: list[str] = []
    numbers: dict[str, float] = {}
    for name, value in attributes.items():
        values = value if isinstance(value, tuple) else (value,)
        if values:
            names.append(name_token(name))
        tokens += dict.fromkeys(value_token(name, one) for one in values)
        if isinstance(value, int | float):
            numbers[number_key(name)] = float(value)
        moments = [found for one in values if (found := moment(one)) is not None]
        if moments:
            numbers[number_key(name, "first")] = min(moments)
            numbers[number_key(name, "last")] = max(moments)
    wide = len(names) + len(tokens) > MOST_TOKENS
    return EngineAttributes(names if wide else names + tokens, numbers, wide)


def moment(value: str | float) -> float | None:
    """Seconds since 1970 of a date or time in ISO 8601, UTC without a zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def name_token(name: str) -> str:
    """Of an item that has the attribute."""
    return _digest(name)


def value_token(name: str, value: str | float) -> str:
    """Of an item that has this value, also in a list. 1 and 1.0 are one value, "1" is another."""
    if not isinstance(value, str) and value == int(value):
        value = int(value)
    return _digest(name, value)


def number_key(name: str, part: str = "value") -> str:
    """`first` and `last`: the earliest and the latest of the dates."""
    return "k" + _digest(name, part)


def _digest(*parts: str | float) -> str:
    """In letters that need no quoting."""
    return blake2b(json.dumps(parts).encode(), digest_size=11).hexdigest()
