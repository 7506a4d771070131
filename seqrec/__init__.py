"""seqrec: an online recommendation service that reads text."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqrec.data.items import History, Item
    from seqrec.encoder import Encoder, load_model

__all__ = ["Encoder", "History", "Item", "load_model"]
__version__ = version("seqrec")


def __getattr__(name: str) -> Any:
    # Importing torch takes a second, which `seqrec --help` should not take.
    if name in ("Encoder", "load_model"):
        from seqrec import encoder

        return getattr(encoder, name)
    if name in ("History", "Item"):
        from seqrec.data import items

        return getattr(items, name)
    raise AttributeError(name)
