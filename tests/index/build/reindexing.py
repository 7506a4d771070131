"""A process that makes snapshots until it is killed: python reindexing.py HOME. It says when each was published."""

from __future__ import annotations

import sys
from pathlib import Path

from index.build.import_items import import_items
from index.build.reindex import Request, make_snapshot
from index.catalogue.open import open_catalogue
from seqrec.data.items import Item
from seqrec.encoder import load_model


def main() -> None:
    home, checkpoint = Path(sys.argv[1]), Path(sys.argv[2])
    encoder = load_model(checkpoint)
    catalogue = open_catalogue(home)
    print("ready", flush=True)
    number = 0
    while True:
        # A few items that no tower encoded yet, so that there is something to do.
        for _ in range(3):
            number += 1
            import_items(catalogue, encoder, [Item(f"new-{number}", {"title": f"new {number}"})])
        result = make_snapshot(home, Request(checkpoint=checkpoint))
        print(result.manifest.snapshot_id, flush=True)


if __name__ == "__main__":
    main()
