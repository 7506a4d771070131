from __future__ import annotations

import numpy as np
import pytest
import torch

from seqrec import Encoder, load_model
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item, make_item
from seqrec.errors import InputError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.base.id_table import ItemIds, known_row
from seqrec.models.base.model import SequenceModel
from seqrec.models.residual import Residual, newest_first
from seqrec.text.item_text import KNOWN, TokenizedHistory
from tests.contracts.model_contract import ModelContract

DIM = 8


def residual(item_ids: list[str]) -> Residual:
    """Over a bag of words, with random learned vectors."""
    torch.manual_seed(0)
    model = Residual.over(
        "bag_of_words", BagOfWords(BagOfWordsConfig(dim=64)), ItemIds.of(item_ids), len(item_ids), DIM, 20, 0.07
    )
    with torch.no_grad():
        for table in (model.item_vectors, model.history_vectors, model.item_biases):
            table.weight[:-1].normal_()
    return model


class TestResidual(ModelContract):
    name = "residual"

    def make(self) -> SequenceModel:
        return residual([item.item_id for item in self.items()[::2]])

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        """Item 2n + 1 follows item 2n, which no text says."""
        items = self.items()
        model = residual([item.item_id for item in items])
        with torch.no_grad():
            model.item_biases.weight.zero_()
            model.item_vectors.weight.zero_()
            model.history_vectors.weight.zero_()
            for place in range(DIM):
                model.item_vectors.weight[2 * place + 1, place] = 10
                model.history_vectors.weight[2 * place, place] = 10
        return model, [([items[2 * place]], items[2 * place + 1]) for place in range(DIM)]


@pytest.fixture
def items() -> list[Item]:
    return [make_item(f"i{number}", {"title": f"word{number} word{number + 1}"}) for number in range(6)]


def test_the_score_of_an_item_that_training_never_saw_is_that_of_the_text_model(items: list[Item]) -> None:
    model = residual(["i0", "i1", "i2"])
    text = model.text
    histories = [TokenizedHistory(list(model.tokenize_items(some))) for some in (items[:3], items[3:], [])]
    plain = [TokenizedHistory(list(text.tokenize_items(some))) for some in (items[:3], items[3:], [])]
    queries = model.encode_histories(model.prepare_histories(histories))
    cold = model.encode_items(model.prepare_items(list(model.tokenize_items(items[3:]))))
    expected = (
        torch.nn.functional.normalize(text.encode_histories(text.prepare_histories(plain)))
        @ (torch.nn.functional.normalize(text.encode_items(text.prepare_items(list(text.tokenize_items(items[3:])))))).T
    )
    np.testing.assert_allclose((queries @ cold.T).detach().numpy(), expected.detach().numpy(), atol=1e-6)


def test_the_score_is_the_formula_of_the_header(items: list[Item]) -> None:
    model = residual([item.item_id for item in items[:5]])
    history = [items[0], items[5], items[3]]  # the one in the middle is not known
    query = model.encode_histories(model.prepare_histories([TokenizedHistory(list(model.tokenize_items(history)))]))[
        0
    ].detach()
    vectors = model.encode_items(model.prepare_items(list(model.tokenize_items(items)))).detach()
    text_query, text_items = query[:64], vectors[:, :64]
    weights = torch.exp(model.recency.detach()[[0, 2]])
    weights = weights / weights.sum()
    summed = weights[0] * model.history_vectors.weight[3] + weights[1] * model.history_vectors.weight[0]
    for row in range(5):
        learnt = model.scale * summed @ model.item_vectors.weight[row] + 0.07 * model.item_biases.weight[row, 0]
        expected = text_query @ text_items[row] + learnt.detach()
        assert (query @ vectors[row]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_attributes_without_an_id_and_unknown_ids_have_no_token_of_their_own(items: list[Item]) -> None:
    model = residual(["i0"])
    known, unknown, nameless = model.tokenize_items([items[0], items[1], items[0].attributes])
    assert known.types[-1] == KNOWN
    assert known_row(known) == 0
    assert known_row(unknown) is None
    assert known_row(nameless) is None
    assert known.ids[:-1].tolist() == nameless.ids.tolist()


def test_centering_moves_all_known_items_alike(items: list[Item]) -> None:
    model = residual([item.item_id for item in items])
    tokens = list(model.tokenize_items(items))
    queries = model.encode_histories(model.prepare_histories([TokenizedHistory(tokens[:2]), TokenizedHistory(tokens)]))
    before = queries @ model.encode_items(model.prepare_items(tokens)).T
    model.center()
    moved = queries @ model.encode_items(model.prepare_items(tokens)).T - before
    assert moved.std(dim=1).max() < 1e-5
    assert model.item_vectors.weight[:-1].mean(dim=0).abs().max() < 1e-6
    assert model.item_vectors.weight[-1].abs().max() == 0


def test_ids_of_every_kind_survive_a_checkpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ids = ["plain", "with blank", "ünïcode/☃", '"quoted"']
    save_checkpoint(tmp_path / "ck", "residual", residual(ids))
    encoder: Encoder = load_model(tmp_path / "ck", device="cpu")
    model = encoder.checkpoint.item_model
    assert isinstance(model, Residual)
    assert [model.item_ids.row(item_id) for item_id in [*ids, "other"]] == [0, 1, 2, 3, None]


def test_an_id_twice_and_a_text_model_without_cosine_are_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        ItemIds.of(["a", "a"])
    inner = residual(["a"])
    with pytest.raises(InputError, match="cosine"):
        Residual.over("residual", inner, ItemIds.of(["a"]), 1, 4, 20, 0.07)


def test_only_the_newest_rows_are_kept() -> None:
    assert newest_first([[1, 2, 3], [], [4]], 2, 9).tolist() == [[3, 2], [9, 9], [4, 9]]
