"""Text as stores take it: whether it can be stored, and the words it is found by."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
LONGEST = 32
"""Characters of a word that count."""


def words_of(text: str, limit: int) -> list[str]:
    """The first `limit` different words, without case and accents, in their order."""
    # Compatibility forms, then letters apart from their marks: é is e, ﬁ is fi.
    letters = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()
    found: dict[str, None] = {}
    for match in _WORD.finditer(letters):
        if len(found) == limit:
            break
        word = match[0][:LONGEST]
        if word.isprintable():  # no lone surrogates
            found[word] = None
    return list(found)


def is_unicode(text: str) -> bool:
    """False for lone surrogates: no store can hold them, so nothing is there under such a name."""
    return not any("\ud800" <= c <= "\udfff" for c in text)
