"""Amazon review dumps of 2014, 2018 and 2023: reviews and metadata, one record per line, `.gz` too.

2014: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html, metadata as Python literals; 2018:
https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/; 2023: https://amazon-reviews-2023.github.io/. The fields of each
line show its year. Ratings without texts are CSV files.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqrec.data.csv_records import parse_line, strict_fields
from seqrec.data.items import Item
from seqrec.data.jsonl import OnError, json_object
from seqrec.data.sources.base import Event, RawEvent, RawItem, event_lines, first_line, item_lines
from seqrec.data.timestamps import parse_number
from seqrec.errors import FileFormatError, InputError

ATTRIBUTES = ("title", "brand", "category", "price", "description", "features")
PAPER_ATTRIBUTES = ("title", "brand", "category")
"""Those that the Recformer paper reads."""

_REVIEW = {"reviewerID": ("asin", "unixReviewTime", "overall"), "user_id": ("parent_asin", "timestamp", "rating")}
"""The fields of item, time and rating by the field of the user, which differs between 2014, 2018 and 2023."""
_CSV_NAMES = {"user": "user_id", "item": "parent_asin", "user_id": "user_id", "parent_asin": "parent_asin"}
_ELEMENTS = (
    "a|abbr|acronym|address|area|article|aside|audio|b|base|bdi|bdo|big|blockquote|body|br|button|canvas|caption|center|"
    "cite|code|col|colgroup|dd|del|details|dfn|dir|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|"
    "frameset|h1|h2|h3|h4|h5|h6|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|"
    "nav|noscript|object|ol|option|p|param|pre|q|s|samp|section|select|small|source|span|strike|strong|style|sub|"
    "summary|sup|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|var|video|wbr"
)
"""HTML elements, which pages write in lower or upper case; <Deluxe> and <Video> are words of a title."""
_TAG = re.compile(
    rf"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>|</?(?:{_ELEMENTS}|{_ELEMENTS.upper()})(?:\s[^<>]*)?/?>",
    re.DOTALL | re.ASCII,
)
_SCRIPT = re.compile(
    r"\s*(?:<!--|<script\b[^<>]*>)?\s*"
    r"(?:(?:var|let|const)\s+[\w$]+\s*=.*[;(]|\(?function\s*\w*\s*\([\w\s,]*\)\s*\{)",
    re.DOTALL,
)
"""A statement of JavaScript at the beginning: in 2018, many titles are scripts of the page."""
_PRICE = re.compile(r"\$?(\d[\d,]*(?:\.\d+)?)")


class AmazonSource:
    """`attributes`: which of ATTRIBUTES the items get, in this order.

    `columns`: the columns of CSV files without a header, named user, item, rating and timestamp.
    """

    mixes_units = True  # seconds in 2014 and 2018, milliseconds in 2023

    def __init__(
        self,
        reviews: Sequence[Path],
        metadata: Sequence[Path],
        attributes: Sequence[str] = PAPER_ATTRIBUTES,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._reviews, self._metadata, self._attributes, self._columns = reviews, metadata, attributes, columns

    def items(self, on_error: OnError) -> Iterator[Item]:
        def parse(line: str) -> RawItem:
            item_id, attributes = _item(line)
            return item_id, {name: attributes[name] for name in self._attributes if name in attributes}

        for path in self._metadata:
            yield from item_lines(path, parse, on_error)

    def events(self, on_error: OnError) -> Iterator[Event]:
        for path in self._reviews:
            if path.name.endswith((".csv", ".csv.gz")):
                yield from self._rated(path, on_error)
            else:
                yield from event_lines(path, _review, on_error)

    def _rated(self, path: Path, on_error: OnError) -> Iterator[Event]:
        named = [name.strip() for name in parse_line(first_line(path))]
        has_names = bool({"user", "user_id", "item", "parent_asin", "timestamp"} & set(named))
        columns = named if has_names else self._columns
        if columns is None:
            raise FileFormatError(
                path,
                1,
                "the first line does not name the columns; add --columns user item rating timestamp (the order of "
                "2014) or --columns item user rating timestamp (2018)",
            )
        places = {_CSV_NAMES.get(name, name): place for place, name in enumerate(columns)}
        missing = {"user_id", "parent_asin", "rating", "timestamp"} - places.keys()
        if missing:
            raise FileFormatError(path, 1, f"no column {sorted(missing)[0]!r}, there are {', '.join(columns)[:500]}")
        width, order = len(columns), [places[name] for name in ("user_id", "parent_asin", "timestamp", "rating")]

        def parse(line: str) -> RawEvent:
            fields = strict_fields(line)
            if len(fields) != width:
                raise InputError(f"{len(fields)} columns, not {width}")
            user_id, item_id, timestamp, rating = (fields[place] for place in order)
            return user_id, item_id, timestamp, rating

        yield from event_lines(path, parse, on_error, header=has_names)


def _review(line: str) -> RawEvent:
    record = _record(line)
    for user, (item, time, rating) in _REVIEW.items():
        if user in record:
            for name in (item, time):
                if name not in record:
                    raise InputError(f"no {name!r} in this review")
            return record[user], record[item], record[time], record.get(rating)
    raise InputError("not a review: neither 'reviewerID' (2014, 2018) nor 'user_id' (2023) is in it")


def _item(line: str) -> RawItem:
    record = _record(line)
    item_id = record.get("parent_asin", record.get("asin"))
    if item_id is None:
        raise InputError("not metadata: neither 'asin' (2014, 2018) nor 'parent_asin' (2023) is in it")
    attributes = {
        "title": _text(record.get("title")),
        "brand": _brand(record),
        "category": _category(record),
        "price": _price(record.get("price")),
        "description": _text(record.get("description")),
        "features": [text for text in map(_text, _parts(record.get("features", record.get("feature")))) if text],
    }
    return item_id, {name: value for name, value in attributes.items() if value not in (None, [])}


def _record(line: str) -> dict[str, Any]:
    if not line.startswith(("{'", "{u'")):
        return json_object(line)
    try:
        record = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise InputError(f"not a Python literal: {error}") from None
    if not isinstance(record, dict):
        raise InputError("not a dictionary")
    return record


def _text(value: object) -> str | None:
    """A text or list of texts as plain text without markup, entities and repeated blanks. None for a page's script."""
    if isinstance(value, list):
        value = " ".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str) or _SCRIPT.match(value):
        return None
    while (unescaped := html.unescape(value)) != value:  # some texts were escaped twice
        value = unescaped
    return " ".join(_TAG.sub(" ", value).split()) or None


def _parts(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _brand(record: Mapping[str, Any]) -> str | None:
    brand = record.get("brand")
    if isinstance(brand, str):
        return _text(re.sub(r"^\s*by\s*\n", "", brand))
    details = record.get("details")
    if isinstance(details, str):
        try:
            details = json.loads(details)
        except (ValueError, RecursionError):
            details = None
    named = details.get("Brand") if isinstance(details, dict) else None
    return _text(named) or _text(record.get("store"))


def _category(record: Mapping[str, Any]) -> list[str]:
    """2014 has several paths; 2018 and 2023 have one, in 2018 followed by markup of the page."""
    found: list[str] = []
    for path in _parts(record.get("category") or record.get("categories") or record.get("main_category")):
        for part in _parts(path):
            if isinstance(part, str) and "</" in part:
                return found
            text = _text(part)
            if text and text not in found:
                found.append(text)
    return found


def _price(value: object) -> int | float | None:
    """None for a range of prices, or markup of the page."""
    if isinstance(value, int | float):
        return None if isinstance(value, bool) else value
    single = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
    return parse_number(single[1].replace(",", "")) if single else None
