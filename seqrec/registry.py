"""Tables of import strings, "package.module:name": variants by name, none of them imported before it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from seqrec.errors import InputError


def load(reference: str) -> Any:
    """What an import string names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def choose(table: Mapping[str, str], name: str, what: str, field: str) -> Any:
    """What `name` stands for in a table. Raises InputError that lists the names there are; `what` says of what."""
    if name not in table:
        raise InputError(f"no {what} {name!r}; there are {', '.join(sorted(table))}", field)
    return load(table[name])
