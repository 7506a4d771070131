"""docs/python.md and the notebook: their code runs, and the page names what there is."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import seqrec
from index.build.cli import index
from seqrec.client import AsyncClient, Client
from service.local.answer import Answer


def public(kind: type) -> set[str]:
    """Methods and properties, without those that every list has."""
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} - set(dir(list))


def test_the_examples_of_the_page_run(root: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (root / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    names: dict[str, Any] = {"HOME": home}
    for example in examples:
        if "pandas" not in example or importlib.util.find_spec("pandas"):
            exec(compile(example, "python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "k: expected at least 1, not 0" in printed
    assert "model ['gone'] " in printed
    assert "['mug-2']" in printed


def test_the_page_names_every_method(root: Path) -> None:
    page = (root / "docs" / "python.md").read_text(encoding="utf-8")
    for name in public(seqrec.Recommender):
        assert re.search(rf"^\| `{name}\(", page, re.MULTILINE), name
        assert inspect.getdoc(getattr(seqrec.Recommender, name))
    attributes = public(Answer) | {"source", "unknown", "degraded", "state"}
    for name in attributes:
        assert re.search(rf"^\| `{name}[`(]", page, re.MULTILINE), name
    signature = inspect.signature(seqrec.Recommender.recommend)
    row = re.search(r"^\| `recommend\((.*), \.\.\.\)`", page, re.MULTILINE)
    assert row
    for part in row[1].split(", "):
        name, _, default = part.partition("=")
        assert not default or repr(signature.parameters[name].default) == default


def test_the_client_s_page_names_every_method(root: Path) -> None:
    page = (root / "docs" / "client.md").read_text(encoding="utf-8")
    table = page.split("| Method | Endpoint |")[1].split("\n\n")[0]
    documented = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    for kind in (Client, AsyncClient):
        assert public(kind) - {"close", "aclose"} == documented
    assert [name for name in documented if not inspect.getdoc(getattr(Client, name))] == []


@pytest.mark.slow
def test_the_notebook_runs(
    root: Path, online_retail: Path, bag_of_words_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the demo's items, with a model without weights."""
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    items = str(online_retail / "items.jsonl.gz")
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", items, "--publish"])
    notebook = json.loads((root / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    run = 0
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), "a notebook is stored without its outputs"
        tags = cell["metadata"].get("tags", ())
        if cell["cell_type"] == "code" and ("pandas" not in tags or importlib.util.find_spec("pandas")):
            exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
            run += 1
    assert run >= 7
    assert len(names["answer"]) == 5
