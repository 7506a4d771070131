"""The words of a text, as a store without a search engine of its own finds them."""

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
