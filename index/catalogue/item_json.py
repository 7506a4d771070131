"""Attributes as JSON text, as catalogue and snapshots store them. Order is preserved; tuples are lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from seqrec.data.items import AttributeValue


def attributes_to_json(attributes: Mapping[str, AttributeValue]) -> str:
    return json.dumps(dict(attributes), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def attributes_from_json(text: str | bytes) -> dict[str, AttributeValue]:
    return as_attributes(from_json(text))


def as_attributes(values: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Attributes from JSON values: lists become tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
