"""Tables of import strings, "package.module:name": variants by name, imported when they are first used."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from seqrec.errors import InputError, there_are

load = resolve_name
"""The object of an import string."""


def choose(table: Mapping[str, str], name: str, what: str, field: str) -> Any:
    """The object that the table has for `name`. Raises InputError for an unknown name; `what` says of what."""
    if name not in table:
        raise InputError(f"no {what} {name!r}{there_are(name, sorted(table))}", field)
    return resolve_name(table[name])
