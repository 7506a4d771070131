"""Words that items are found by, and a check for text that no store can keep."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
LONGEST = 32
"""Characters of a word that are compared."""


def words_of(text: str, limit: int) -> list[str]:
    """The first `limit` distinct words in order, without case and accents."""
    # Compatibility decomposition, without combining marks: é becomes e, ﬁ becomes fi.
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
    """False for text with lone surrogates: no store can keep it, so no such id exists."""
    return not any("\ud800" <= c <= "\udfff" for c in text)
