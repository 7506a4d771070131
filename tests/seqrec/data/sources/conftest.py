"""An import as its user sees it: the command, and the folder read back by the readers that everything else uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrec.data.items import read_interactions, read_items
from seqrec.data.sources.cli import import_data


class Folder:
    """What an import wrote. `items`: attributes by id, in order. `events`: user, item, timestamp, in order."""

    def __init__(self, path: Path) -> None:
        (items,), (interactions,) = path.glob("items.jsonl*"), path.glob("interactions.csv*")
        self.names = sorted(one.name for one in path.iterdir())
        self.items = {item.item_id: dict(item.attributes) for item in read_items(items)}
        read = read_interactions(interactions, self.items)
        self.events = list(zip(read.user_ids, read.item_ids, read.timestamps.tolist(), strict=True))
        self.about: dict[str, Any] = json.loads((path / "import.json").read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Folder]:
    """`run("movielens", folder, "--core", 5)` is `seqrec import movielens folder --core 5 --out ...`."""

    def run(*arguments: object) -> Folder:
        out = tmp_path / "imported"
        import_data([*map(str, arguments), "--out", str(out), "--overwrite"])
        return Folder(out)

    return run
