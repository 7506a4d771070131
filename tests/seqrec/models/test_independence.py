"""Models do not import each other: each can be read, changed and removed alone."""

from __future__ import annotations

from pathlib import Path

import grimp

from seqrec.models import MODELS


def roots() -> set[str]:
    """The module, or package, of each model in the table."""
    return {".".join(reference.partition(":")[0].split(".")[:3]) for reference in MODELS.values()}


def test_models_do_not_import_each_other() -> None:
    graph = grimp.build_graph("seqrec", cache_dir=None)
    models = sorted(roots())
    found = {
        (importer, imported): graph.find_shortest_chain(importer, imported, as_packages=True)
        for importer in models
        for imported in models
        if importer != imported
    }
    assert not [chain for chain in found.values() if chain]


def test_the_table_has_every_model(root: Path) -> None:
    folder = root / "seqrec" / "models"
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert {f"seqrec.models.{name}" for name in names - {"__init__", "base"}} == roots()
