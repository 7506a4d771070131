"""What the contract answers to the mistakes that are easily made with a new model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from seqrec import load_model, registry
from seqrec.checkpoint import save_checkpoint
from seqrec.models import MODELS
from seqrec.models.base.ids import RowBatch
from seqrec.models.gru4rec import GRU4Rec
from tests.contracts.id_model_contract import IdModelContract
from tests.contracts.model_contract import ModelContract


class ThreeDimensions(GRU4Rec):
    def states(self, batch: RowBatch) -> Tensor:
        queries: Tensor = self.out(self.gru(self.items(batch.rows))[0])
        return queries


class ReadWeight(GRU4Rec):
    def states(self, batch: RowBatch) -> Tensor:
        queries: Tensor = self.gru(self.items(batch.rows))[0] @ self.out.weight.T
        return queries


class ReadsPadding(GRU4Rec):
    def states(self, batch: RowBatch) -> Tensor:
        states = super().states(batch)
        return states + states.sum(dim=1, keepdim=True)


class BagOfItems(GRU4Rec):
    def states(self, batch: RowBatch) -> Tensor:
        sums: Tensor = self.items(batch.rows).cumsum(dim=1)
        return sums


CLASSES = {"three": ThreeDimensions, "read": ReadWeight, "padding": ReadsPadding, "bag": BagOfItems}


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models above have names."""
    resolve = registry.resolve_name
    monkeypatch.setattr(registry, "resolve_name", lambda reference: CLASSES.get(reference) or resolve(reference))
    for name in CLASSES:
        monkeypatch.setitem(MODELS, name, name)


def of(name: str, **attributes: Any) -> Any:
    """The contract's tests of a model."""
    small = {"dim": 8, "hidden": 8, "max_length": 12, "dropout": 0.0}
    return type("Tests", (IdModelContract,), {"name": name, "settings": small} | attributes)()


def encoder_of(tests: ModelContract, path: Path) -> Any:
    save_checkpoint(path, tests.name, tests.make())
    return load_model(path, device="cpu")


@pytest.mark.parametrize("name", ["three", "read"])
def test_a_linear_layer_that_has_no_int8_form(name: str, tmp_path: Path) -> None:
    tests, path = of(name), tmp_path / "checkpoint"
    encoder = encoder_of(tests, path)
    with pytest.raises(AssertionError, match=r"int8 replaces each nn\.Linear"):
        tests.test_its_int8_form_gives_nearly_the_same_vectors(path, encoder)


def test_a_model_that_reads_padding(tmp_path: Path) -> None:
    tests = of("padding")
    with pytest.raises(AssertionError, match="does the model read padding"):
        tests.test_a_history_is_the_same_alone_and_in_a_batch(encoder_of(tests, tmp_path / "checkpoint"), 4096)


@pytest.mark.parametrize(
    ("name", "stated", "advice"), [("bag", True, "reads_order = False"), ("three", False, "reads_order = True")]
)
def test_whether_order_matters(name: str, stated: bool, advice: str, tmp_path: Path) -> None:
    tests = of(name, reads_order=stated)
    with pytest.raises(AssertionError, match=advice):
        tests.test_a_history_is_read_oldest_first(encoder_of(tests, tmp_path / "checkpoint"))


def test_a_model_that_reads_more_than_the_longest_history(tmp_path: Path) -> None:
    tests = of("bag", longest=11)
    with pytest.raises(AssertionError, match=r"items before the newest 11 are read: lower `max_length`"):
        tests.test_the_newest_that_fit_are_read(encoder_of(tests, tmp_path / "checkpoint"))


def test_too_short_a_training(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"\d of 7 planted items come first: too short a training"):
        of("three", epochs=0).test_the_planted_item_comes_first(tmp_path)


def test_a_formula_that_is_missing_or_another(tmp_path: Path) -> None:
    tests, other = of("three"), of("three", score=lambda _tests, _model, _history, _user, item: float(item))
    encoder = encoder_of(tests, tmp_path / "checkpoint")
    with pytest.raises(NotImplementedError, match="define `score` in Tests"):
        tests.test_its_scores_are_those_of_its_formula_and_search_finds_the_best(encoder)
    with pytest.raises(AssertionError, match=r"not the scores \(actual\) of `score`"):
        other.test_its_scores_are_those_of_its_formula_and_search_finds_the_best(encoder)
