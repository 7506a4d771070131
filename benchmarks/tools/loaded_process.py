"""A process that opens a published snapshot as a worker does, without HTTP; `benchmarks.speed.memory` measures it.

python -m benchmarks.tools.loaded_process HOME        # prints "ready", and ends when its standard input is closed
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from index.catalogue.open import open_catalogue
from index.snapshot.publication import published
from seqrec.runtime.malloc import freeze_gc, limit_arenas, trim_heap
from service.engine.execution import execute
from service.engine.plan import Plan, VectorQuery
from service.live.loader import Loader
from service.live.search import SearchSpec
from service.settings import Settings

SEARCHES = 5


def main() -> None:
    home = Path(sys.argv[1])
    limit_arenas()
    freeze_gc()
    with closing(open_catalogue(home)) as catalogue:
        snapshot_id = published(catalogue)
        assert snapshot_id is not None
        state = Loader(Settings(home=home), catalogue)(snapshot_id, None)
        trim_heap()
        view = state.view
        for row in range(SEARCHES):  # compares with every vector, so all of them are in memory
            (found,) = execute([Plan(view, SearchSpec(10), VectorQuery(view.snapshot.vectors[row]))])
            best = view.item_id(found.hits[0].position)
            assert best == view.item_id(row), f"{best} is nearer to item {row} than the item itself"
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
