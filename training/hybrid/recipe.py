"""The default recipe: the dense model of the hybrid, chosen by the data."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqrec.data.items import Item, OnError, read_interactions, read_items

DENSE_LOG = 100
"""Mean events per item at or above which the dense part is a sequence model over ids. On MovieLens-1M (257) that model
is ahead of co-occurrence; Online Retail, a shop's log, has 84."""
MINUTES = 40
"""Minutes that a SASRec takes for a million events."""
COMMON = 0.5
"""Share of items that must have an attribute for it to be read as text."""
LONGEST = 3
"""Attributes that the text model reads, at most; words are taken from the same."""


@dataclass(frozen=True)
class Recipe:
    """A preset, the changes to it, and the reason."""

    preset: str
    overrides: Sequence[str]
    reasons: Sequence[str]


def choose_recipe(
    items: Path, interactions: Path, on_error: OnError = "raise", overrides: Sequence[str] = ()
) -> Recipe:
    """Reads both files. `overrides`: the user's, which decide. Raises FileFormatError for what the files cannot be."""
    catalogue = read_items(items, on_error)
    events = len(read_interactions(interactions, {item.item_id for item in catalogue}, on_error))
    return recipe_for(catalogue, events, overrides)


def recipe_for(items: Sequence[Item], events: int, overrides: Sequence[str] = ()) -> Recipe:
    per_item = events / max(1, len(items))
    found = f"{len(items):,} items, {events:,} events, {per_item:.0f} an item"
    wanted, most = _value_of("text.attributes", overrides), _value_of("text.max_attr_num", overrides)
    wanted = [str(name) for name in wanted] if isinstance(wanted, list) else []
    names = wanted or text_attributes(items)
    texts, dense = ", ".join(names) or "none", ", ".join(names[: most if isinstance(most, int) else LONGEST])
    attributes = ", ".join(f'"{name}"' for name in names)
    chosen = () if wanted or not names else (f"text.attributes=[{attributes}]",)
    if per_item >= DENSE_LOG or not names:
        why = "a dense log" if names else "items have no texts"
        minutes = f"some {math.ceil(MINUTES * events / 1e6)} minutes of one core"
        reason = f"{found}: {why}, so the dense model is a SASRec over ids, {minutes}; words from: {texts}"
        return Recipe("hybrid_sequence", chosen, (reason,))
    more = f", words from {texts}" if dense != texts else ""
    reason = (
        f"{found}: the dense model is a compact Recformer over {dense}{more}; some 2 to 5 minutes on 2 cores in all"
    )
    return Recipe("hybrid", chosen, (reason,))


def _value_of(name: str, overrides: Sequence[str]) -> Any:
    """What the last of the overrides sets; None without one, and for what the configuration will refuse."""
    found = [text.partition("=")[2] for text in overrides if text.partition("=")[0].strip() == name]
    try:
        return tomllib.loads(f"value = {found[-1]}")["value"] if found else None
    except tomllib.TOMLDecodeError:
        return None


def text_attributes(items: Sequence[Item]) -> list[str]:
    """Attributes with words that at least COMMON of the items have, those with titles or names first."""
    have: Counter[str] = Counter()
    words: dict[str, list[int]] = {}
    for item in items:
        for name, value in item.attributes.items():
            if _is_text(value):
                have[name] += 1
                words.setdefault(name, []).append(len(str(value).split()))
    names = [name for name, count in have.items() if count >= COMMON * len(items)]
    return sorted(names, key=lambda name: (not _is_title(name), float(np.mean(words[name]))))[:LONGEST]


def _is_text(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_is_text(part) for part in value)
    return isinstance(value, str) and any(letter.isalpha() for letter in value) and "://" not in value


def _is_title(name: str) -> bool:
    return any(word in name.lower() for word in ("title", "name"))
