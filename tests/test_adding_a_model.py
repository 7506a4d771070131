"""The example of docs/adding-a-model.md is a model: it is run as the page shows it, and held to the contract."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from seqrec.models import MODELS
from training.config.load import load_config, preset_path
from training.data.dataset import read_dataset
from training.stages.start import starting_point

PAGE = Path(__file__).parents[1] / "docs" / "adding-a-model.md"
NAME = "markov"


def run(block: str, name: str) -> ModuleType:
    """The code of the page as a module of that name, which is where it looks for its own types."""
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(block, f"{PAGE.name}, {name}", "exec"), module.__dict__)
    return module


MODEL, TEST = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
[LINE] = re.findall(rf'`"{NAME}": "(seqrec\.models\.{NAME}:\w+)"`', PAGE.read_text(encoding="utf-8"))
run(MODEL, "seqrec.models.markov")
TestMarkov = run(TEST, "tests.seqrec.test_markov").TestMarkov


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, NAME, LINE)


def test_a_run_finds_it_by_its_name(online_retail: Path) -> None:
    [said] = re.findall(r"--set '(model\.settings=.*?)'", PAGE.read_text(encoding="utf-8"))
    start = starting_point(load_config(preset_path("gru4rec"), [f"model.name={NAME}", said]))
    assert (start.model_name, start.recipe) == (NAME, None)
    dataset = read_dataset(online_retail / "items.jsonl.gz", online_retail / "interactions.csv.gz")
    model = start.build([dataset])
    known = [item for item, seen in zip(dataset.items, dataset.trained_rows, strict=True) if seen]
    assert model.dim == 64
    assert all(len(tokens.ids) for tokens in model.tokenize_items(known[:100]))


def test_the_page_names_what_is_there(root: Path) -> None:
    for path in re.findall(r"`((?:seqrec|training|tests)/[\w/.-]+\.\w+)`", PAGE.read_text(encoding="utf-8")):
        assert (root / path).is_file() or NAME in path, path
