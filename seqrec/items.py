"""The former name of `seqrec.data.items`, for scripts that import it."""

from seqrec.data.items import (
    History,
    Interactions,
    Item,
    make_item,
    read_interactions,
    read_items,
)

__all__ = ["History", "Interactions", "Item", "make_item", "read_interactions", "read_items"]
