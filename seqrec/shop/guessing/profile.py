"""What the columns of a table look like, from its first rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from seqrec.data.tables.base import Rejects, Table
from seqrec.shop.values import has_html, id_texts, parse_amount

SAMPLE_ROWS = 100_000
_LOOKED_AT = 5_000
"""Values of a column whose text is examined."""
_ONE_URL = r"(?:(?:https?:)?//[^\s,;|]+|[^\s,;|]+\.(?:jpe?g|png|gif|webp|svg)(?:\?[^\s,;|]*)?)"
_URL = re.compile(rf"{_ONE_URL}(?:[\s,;|]+{_ONE_URL})*", re.IGNORECASE)
"""One, or several in one field."""
_CURRENCY = re.compile(
    r"[€$£¥₹₽₺₩₴]|(?<![^\W\d])(?:EUR|USD|GBP|CHF|JPY|CNY|INR|RUB|PLN|CZK|SEK|NOK|DKK|HUF|TRY|BRL|CAD|AUD|NZD|kr|zł|Kč|Ft|Fr)\b"
)
_SEPARATORS = (" > ", ">", "|", ";", "/", ",")


@dataclass(frozen=True)
class ColumnProfile:
    """Shares are of the values that are not empty. `values`: the sample as Arrow columns, one for each batch."""

    name: str
    type: pa.DataType
    rows: int
    filled: int
    distinct: int
    words: float
    letters: float
    numbers: float
    money: float
    urls: float
    html: float
    blanks: float
    separators: tuple[str, ...]
    examples: tuple[str, ...]
    values: Sequence[pa.Array]

    @property
    def unique(self) -> float:
        return self.distinct / max(1, self.filled)

    @property
    def is_list(self) -> bool:
        return bool(pa.types.is_list(self.type) or pa.types.is_large_list(self.type))

    @property
    def decimal(self) -> str | None:
        """ "," if numbers are written with a decimal comma, "." if with a point. None if neither is certain: 7,635 may
        be 7.635 and 7635."""
        commas = sum(1 for one in self._numbers() if re.search(r",\d{1,2}$|,\d{4,}$|^0,", one))
        points = sum(1 for one in self._numbers() if re.search(r"\.\d{1,2}$|\.\d{4,}$|^0\.", one))
        if commas == points:
            return None
        return "," if commas > points else "."

    @property
    def has_separators(self) -> bool:
        """Whether numbers have a comma or a point."""
        return any("," in one or "." in one for one in self._numbers())

    @property
    def counts_rows(self) -> bool:
        """Whether the values are 0, 1, 2 ... or 1, 2, 3 ... as in an index that a tool adds."""
        texts = [text for part in self.values for text in id_texts(part).drop_null().to_pylist()]
        return (
            bool(texts)
            and texts[0] in ("0", "1")
            and all(text == str(number) for number, text in enumerate(texts, int(texts[0])))
        )

    def _numbers(self) -> Iterator[str]:
        for part in self.values:
            if not pa.types.is_string(part.type):
                return
            for text in part.slice(0, _LOOKED_AT).to_pylist():
                found = re.search(r"\d[\d.,' ]*", text or "")
                if found:
                    yield found[0].strip()


def profile_table(table: Table, rows: int = SAMPLE_ROWS) -> list[ColumnProfile]:
    batches, count = [], 0
    for batch in table.batches(None, Rejects("skip")):
        batches.append(batch)
        count += len(batch)
        if count >= rows:
            break
    return [_profile(name, [batch.column(place) for batch in batches]) for place, name in enumerate(table.columns)]


def _profile(name: str, parts: Sequence[pa.Array]) -> ColumnProfile:
    parts = [part.dictionary_decode() if pa.types.is_dictionary(part.type) else part for part in parts]
    kind = parts[0].type if parts else pa.null()
    rows = sum(len(part) for part in parts)
    filled = rows - sum(part.null_count for part in parts)
    some: list[Any] = [value for part in parts for value in part.slice(0, _LOOKED_AT).to_pylist() if value is not None]
    texts = [_text(value) for value in some[:_LOOKED_AT]]
    texts = [text for text in texts if text.strip()]
    n = max(1, len(texts))
    return ColumnProfile(
        name,
        kind,
        rows,
        filled,
        _distinct(parts),
        sum(len(text.split()) for text in texts) / n,
        sum(any(letter.isalpha() for letter in text) for text in texts) / n,
        sum(parse_amount(text, None) is not None for text in texts) / n,
        sum(_CURRENCY.search(text) is not None for text in texts) / n,
        sum(_URL.fullmatch(text.strip()) is not None for text in texts) / n,
        sum(has_html(text) for text in texts) / n,
        sum(" " in text.strip() for text in texts) / n,
        _separators(texts),
        tuple(dict.fromkeys(text[:60] for text in texts[:20]))[:3],
        parts,
    )


def _text(value: Any) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _distinct(parts: Sequence[pa.Array]) -> int:
    values: set[Any] = set()
    for part in parts:
        if pa.types.is_nested(part.type):
            values.update(_text(value) for value in part.to_pylist() if value is not None)
        else:
            values.update(part.drop_null().unique().to_pylist())
    return len(values)


def values_of(profile: ColumnProfile) -> set[str]:
    """The distinct values of the sample, as ids."""
    found: set[str] = set()
    for part in profile.values:
        if not pa.types.is_nested(part.type) and not pa.types.is_temporal(part.type):
            found.update(id_texts(part).drop_null().unique().to_pylist())
    return found


def _separators(texts: Sequence[str]) -> tuple[str, ...]:
    """What separates the parts of a list in one field; of paths such as "Home > Decor, Toys > Games" both signs."""
    found = _separator(texts)
    if found not in (" > ", ">", "/"):
        return () if found is None else (found,)
    for outer in ("|", ";", ","):
        roots = {text.split(outer)[0].split(found)[0].strip() for text in texts}
        further = [path.split(found)[0].strip() for text in texts for path in text.split(outer)[1:]]
        if len(further) >= 0.02 * len(texts) and sum(root in roots for root in further) >= 0.5 * len(further) > 0:
            return outer, found.strip()
    return (found.strip(),)


def _separator(texts: Sequence[str]) -> str | None:
    """What separates short parts in at least a third of the texts. A comma must separate words, not clauses."""
    if texts and sum(text.strip()[:1] == "[" and text.strip()[-1:] == "]" for text in texts) > 0.8 * len(texts):
        return ","
    for separator in _SEPARATORS:
        having = [text for text in texts if separator in text]
        if len(having) * 3 < len(texts) or not texts:
            continue
        parts = [part for text in having for part in text.split(separator)]
        if all(len(part.split()) <= 6 for part in parts) and sum(len(p.split()) for p in parts) <= 3 * len(parts):
            common = Counter(part.strip() for part in parts)
            if len(common) <= 0.7 * len(parts):
                return separator
    return None
