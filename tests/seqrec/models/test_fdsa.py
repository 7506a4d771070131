"""FDSA: the contract, with both stacks written out, and which tags an item has."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch

from seqrec.data.items import Item, make_item
from seqrec.errors import InputError
from seqrec.models.base.item_features import ItemFeatures, KnownFeatures, field_tags
from seqrec.models.fdsa import FDSA, FDSASettings
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.id_model_contract import IdModelContract
from tests.seqrec.models.post_norm import brute_block

SMALL: dict[str, Any] = {"dim": 16, "layers": 1, "heads": 2, "inner": 32, "max_length": 12, "dropout": 0.0}
NAMES = "title,brand:token"


def brute_features(model: FDSA, row: int) -> torch.Tensor:
    """[d]: an item's fields, weighted by attention among them."""
    features = model.features
    fields = []
    for field in range(features.fields):
        bag = row * features.fields + field
        tags = features.tags[features.begins[bag] : features.begins[bag + 1]].long()
        fields.append(model.tags.weight[tags].mean(0) if len(tags) else torch.zeros(model.dim))
    energies = torch.stack([model.energy(torch.relu(model.attend(field)))[0] for field in fields])
    return sum((weight * field for weight, field in zip(energies.softmax(0), fields, strict=True)), torch.zeros(()))


def brute_states(model: FDSA, history: list[int]) -> torch.Tensor:
    """[n, d]"""
    positions = model.position_vectors[-len(history) :]
    items = model.norm(model.items.weight[history] + positions)
    features = model.norm(torch.stack([brute_features(model, row) for row in history]) + positions)
    for of_items, of_features in zip(model.item_blocks, model.feature_blocks, strict=True):
        items, features = brute_block(of_items, items, True), brute_block(of_features, features, True)
    joined: torch.Tensor = model.norm(model.join(torch.cat([items, features], dim=1)))
    return joined


class TestFDSA(IdModelContract):
    name = "fdsa"
    settings: ClassVar[dict[str, Any]] = {**SMALL, "features": NAMES}
    epochs = 12

    def score(self, model: Any, history: list[int], user: int | None, item: int) -> float:
        return float(brute_states(model, history)[-1] @ model.items.weight[item])


def items() -> list[Item]:
    return [
        make_item("a", {"title": "Red desk, red", "brand": "Acme Corp", "category": ["Home", "Office desks"]}),
        make_item("b", {"title": "red", "brand": ""}),
        make_item("c", {"title": "desk lamp", "brand": "Acme Corp", "price": 3}),
    ]


@pytest.mark.parametrize(
    ("field", "tags"),
    [
        ("title", ["red", "desk"]),
        ("brand", ["acme", "corp"]),
        ("brand:token", ["Acme Corp"]),
        ("category", ["Home", "Office desks"]),
        ("category:token", ["Home", "Office desks"]),
        ("colour", []),
    ],
)
def test_tags_are_words_whole_values_or_entries(field: str, tags: list[str]) -> None:
    assert list(field_tags(field, items()[0].attributes)) == tags


def test_a_number_is_a_tag_as_well() -> None:
    assert list(field_tags("price:token", items()[2].attributes)) == ["3"]


def test_items_share_the_tags_of_a_field_and_fields_do_not() -> None:
    model = FDSA.from_items(FDSASettings(**SMALL, features="title,brand:token,genres"), items(), [])
    assert model.features.fields == 2, "no item has genres"
    assert model.features.vocabulary == 4  # red, desk, Acme Corp, lamp
    has = model.features.multi_hot(torch.tensor([0, 1, 2, 3]))
    assert has.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]


def test_means_are_taken_field_by_field() -> None:
    features = ItemFeatures(KnownFeatures(2, 0, fields=2, tags=4, vocabulary=3))
    features.tags.copy_(torch.tensor([0, 1, 2, 2]))
    features.begins.copy_(torch.tensor([0, 2, 3, 3, 4, 4, 4]))  # item 0: {0, 1}, {2}; item 1: {}, {2}; none: {}, {}
    means = features.means(torch.tensor([2, 1, 0]), torch.tensor([[2.0], [4.0], [7.0]]))
    assert means[:, :, 0].tolist() == [[0, 0], [0, 7], [3, 7]]


def test_attributes_that_no_item_has_are_refused() -> None:
    with pytest.raises(InputError, match="no item has any of colour"):
        FDSA.from_items(FDSASettings(**SMALL, features="colour"), items(), [])
    with pytest.raises(InputError, match=r"model\.settings\.features"):
        FDSASettings(features=" , ")


def test_the_loss_is_the_cross_entropy_of_what_comes_next() -> None:
    torch.manual_seed(0)
    model = FDSA.from_items(FDSASettings(**SMALL, features=NAMES), items(), [])
    rows = [[0, 1], [2, 0, 1, 2]]
    histories = [TokenizedHistory([model.item_ids.token("abc"[row]) for row in some]) for some in rows]
    batch = model.prepare_training(histories, torch.Generator())
    losses = []
    with torch.no_grad():
        for row in rows:
            for place, state in enumerate(brute_states(model, row[:-1])):
                scores = model.items.weight[:3] @ state
                losses.append(-scores.log_softmax(0)[row[place + 1]])
        torch.testing.assert_close(model.training_loss(batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    assert math.isfinite(float(torch.stack(losses).mean()))
