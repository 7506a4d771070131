from __future__ import annotations

import numpy as np

from seqrec.data.items import Item
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import TokenizedHistory
from tests.contracts.model_contract import ModelContract


class TestBagOfWords(ModelContract):
    name = "bag_of_words"

    def make(self) -> SequenceModel:
        return BagOfWords(BagOfWordsConfig(dim=64))

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        items = self.items()
        return self.make(), [([item], item) for item in items[::5]]


def test_an_older_item_weighs_less() -> None:
    model = BagOfWords(BagOfWordsConfig(dim=256, decay=0.5))
    old, new, both = (
        model.encode_histories(model.prepare_histories([_history(model, *titles)]))[0].numpy()
        for titles in (["desk"], ["lamp"], ["desk", "lamp"])
    )
    np.testing.assert_allclose(both, 0.5 * old + new, atol=1e-6)


def test_only_the_chosen_attributes_are_read() -> None:
    model = BagOfWords(BagOfWordsConfig(attributes=("title",)))
    plain, priced, unlike = model.tokenize_items(
        [{"title": "Oak desk"}, {"title": "OAK, desk!", "price": 3}, {"title": "Oak lamp"}]
    )
    assert plain.ids.tolist() == priced.ids.tolist()
    assert plain.ids.tolist() != unlike.ids.tolist()


def _history(model: BagOfWords, *titles: str) -> TokenizedHistory:
    return TokenizedHistory(list(model.tokenize_items([{"title": title} for title in titles])))
