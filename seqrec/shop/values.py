"""Values of a shop's columns: ids, texts without HTML, numbers, lists, availability."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

T = TypeVar("T", bound=np.generic)

_TAG = re.compile(r"<(?:/?[a-zA-Z][^<>]*|!--.*?--|!\[CDATA\[.*?\]\])>", re.DOTALL)
_ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]+);")
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_AMOUNT = re.compile(r"[^\d]{0,6}?([+-]?\d[\d.,'\u00a0\u202f ]*)[^\d]{0,6}")
_WHOLE = re.compile(r"0*(\d+)(?:\.0*)?")
NO = frozenset(["", "0", "0.0", "no", "n", "false", "f", "nein", "non", "none", "null", "inactive", "archived", "draft",
                "out of stock", "out_of_stock", "outofstock", "sold out", "soldout", "unavailable", "not available",
                "ausverkauft", "nicht verfügbar", "inaktiv", "discontinued", "deleted", "disabled", "hidden",
                "épuisé"])  # fmt: skip
"""Texts that mean "not available", in lower case."""


def has_html(text: str) -> bool:
    return _TAG.search(text) is not None or _ENTITY.search(text) is not None


def plain_text(text: str) -> str:
    """Without tags and entities, one blank between words. Tags stand for blanks: `Red<br>Large` is two words.

    >>> plain_text("<p>Caf&eacute; &amp; bar</p>")
    'Café & bar'
    """
    if "<" in text:
        text = _TAG.sub(" ", _SCRIPT.sub(" ", text))
    if "&" in text:
        text = html.unescape(text)
        if "&" in text and _ENTITY.search(text):  # escaped twice, as some exports are
            text = html.unescape(text)
        if "<" in text:
            text = _TAG.sub(" ", text)
    return _SPACE.sub(" ", text).strip()


def parse_amount(text: str, decimal: str | None) -> float | int | None:
    """A number with its thousands separators, currency or unit; None if it is none.

    >>> parse_amount("1.234,50 €", ",")
    1234.5
    """
    found = _AMOUNT.fullmatch(text.strip())
    if not found:
        return None
    digits = re.sub(r"['\u00a0\u202f ]", "", found[1])
    if decimal is None:
        decimal = (
            "," if digits.rfind(",") > digits.rfind(".") and not re.fullmatch(r"\d{1,3}(,\d{3})+", digits) else "."
        )
    digits = digits.replace("." if decimal == "," else ",", "").replace(",", ".")
    try:
        return int(digits) if digits.lstrip("+-").isdigit() else float(digits)
    except ValueError:
        return None


def split_list(text: str, separator: str | Sequence[str] | None) -> list[str]:
    """The different parts of a list in one field, without the brackets and quotes of JSON or Python lists.

    >>> split_list("Home > Decor, Home > Kitchen", [",", ">"])
    ['Home', 'Decor', 'Kitchen']
    """
    text = text.strip()
    if text[:1] in "[{(" and text[-1:] in "]})":
        text, separator = text[1:-1], separator or ","
    parts = [text]
    for sign in (separator,) if isinstance(separator, str) else separator or ():
        parts = [part for whole in parts for part in whole.split(sign)]
    return list(dict.fromkeys(part for raw in parts if (part := raw.strip().strip("'\"").strip())))


TOTALS = frozenset(["total", "totals", "grand total", "subtotal", "sum", "summe", "gesamt", "gesamtsumme",
                    "gesamtergebnis", "total général", "sous-total", "totaux", "totale", "totale generale", "totaal",
                    "suma", "total general", "zwischensumme", "razem", "soma", "summa"])  # fmt: skip
"""What the row of totals at the end of a report has in place of an id, in lower case."""
TOTALS_ROWS, EMPTY_ROWS = "rows of totals", "empty rows"


def is_total(item_id: str) -> bool:
    return item_id.lower().rstrip(": ") in TOTALS


def is_available(value: object, yes: Sequence[str] | None) -> bool:
    """Of a truth value, a stock (above 0) or a word."""
    if value is None:
        return yes is None
    text = str(value).strip()
    if yes is not None:
        return text.lower() in {one.lower() for one in yes}
    if isinstance(value, bool):
        return value
    number = parse_amount(text, None) if text[:1].isdigit() or text[:1] == "-" else None
    return number > 0 if number is not None else text.lower() not in NO


def id_texts(column: pa.Array) -> pa.Array:
    """Ids as text without blanks around them; a whole number has no ".0". Empty ones are null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        whole = pc.equal(pc.floor(column), column)
        if pc.all(whole, min_count=0).as_py() is not False:
            column = pc.cast(column, pa.int64())
    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(column, ""), None, column)


def number_of(item_id: str) -> str | None:
    """The number that an id is, however it is written; None for other ids.

    >>> number_of("00123"), number_of("123.0")
    ('123', '123')
    """
    found = _WHOLE.fullmatch(item_id)
    return found[1] if found else None


def take(values: npt.NDArray[T], indices: pa.Array) -> npt.NDArray[T]:
    """Values by Arrow indices; a null takes the last value."""
    places: npt.NDArray[Any] = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)
    taken: npt.NDArray[T] = values[places]
    return taken
