"""A process that writes to a catalogue and prints each sequence number once it was acknowledged.

python catalogue_writer.py MODULE:CLASS LOCATION NAME BATCHES: batch b puts NAME-b-0, NAME-b-1 and prints "b seq".
"""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np

from index.catalogue.base import CatalogueItem
from seqrec.data.items import Item
from seqrec.text.item_text import TokenizedItem


def main() -> None:
    factory, location, name, batches = sys.argv[1:]
    module, _, attribute = factory.partition(":")
    catalogue = getattr(import_module(module), attribute)(location)
    tokens = TokenizedItem(np.arange(3, dtype=np.int32), np.ones(3, np.uint8))
    for batch in range(int(batches)):
        items = [Item(f"{name}-{batch}-{i}", {"title": f"{name} {batch} {i}"}) for i in range(2)]
        result = catalogue.put([CatalogueItem(item, tokens, np.full(8, batch, np.float32), "tower") for item in items])
        print(batch, result.seq, flush=True)


if __name__ == "__main__":
    main()
