"""seqrec: an online recommendation service that reads text."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrec.data.items import History, Item
    from seqrec.encoder import Encoder, load_model
    from seqrec.errors import SeqrecError
    from service.local.recommender import Recommender

__all__ = ["Encoder", "History", "Item", "Recommender", "SeqrecError", "load_model"]
__version__ = version("seqrec")

_PLACES = {
    "Encoder": "seqrec.encoder",
    "History": "seqrec.data.items",
    "Item": "seqrec.data.items",
    "Recommender": "service.local.recommender",
    "SeqrecError": "seqrec.errors",
    "load_model": "seqrec.encoder",
}
"""Imported when they are first used: torch takes a second, which `seqrec --help` should not take."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'seqrec' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", "__doc__"})
