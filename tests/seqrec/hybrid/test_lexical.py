"""Term vectors against the formula, written out."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.items import Item
from seqrec.hybrid import lexical
from seqrec.hybrid.lexical import Vocabulary, history_vectors, terms

WORDS = st.lists(st.sampled_from(["oak", "pine", "desk", "lamp", "brass", "tall"]), max_size=5).map(" ".join)
TITLES = st.lists(WORDS, min_size=1, max_size=12)


def items_of(titles: list[str]) -> list[Item]:
    return [Item(str(number), {"title": title}) for number, title in enumerate(titles)]


def weighed(titles: list[str], limit: float) -> list[dict[str, float]]:
    """The unit vector of each title, by the formula."""
    counted = [Counter(terms({"title": title})) for title in titles]
    documents = Counter(term for counts in counted for term in counts)
    vectors = []
    for counts in counted:
        vector = {
            term: (1 + math.log(times)) * math.log((len(titles) + 1) / (documents[term] + 0.5)) ** 1.5
            for term, times in counts.items()
            if 1 < documents[term] <= limit
        }
        length = math.sqrt(sum(value**2 for value in vector.values()))
        vectors.append({term: value / length for term, value in vector.items()} if length else {})
    return vectors


def test_terms_are_words_pairs_and_whole_values() -> None:
    assert terms({"title": "Oak  Desk, oak", "tags": ("New in", "Sale"), "price": 3.0}) == [
        *("oak", "desk", "oak", "oak desk", "desk oak", "title=oak  desk, oak"),
        *("new", "in", "new in", "tags=new in", "sale", "tags=sale"),
        *("3", "price=3"),
    ]


@pytest.mark.slow
@given(TITLES, st.integers(1, 12))
def test_products_are_the_cosines_of_the_formula(titles: list[str], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexical, "MIN_LIMIT", limit)
        vectors = Vocabulary.of(items_of(titles)).vectors(items_of(titles))
    expected = weighed(titles, limit)
    for one, own in enumerate(expected):
        for other, theirs in enumerate(expected):
            cosine = sum(value * theirs.get(term, 0.0) for term, value in own.items())
            found = vectors[[one]] @ vectors[[other]].T
            assert float(found.toarray()[0, 0]) == pytest.approx(cosine, abs=1e-5)


def test_terms_of_many_items_are_left_out() -> None:
    titles = [f"mug number{number // 2}" for number in range(2000)]
    vocabulary = Vocabulary.of(items_of(titles))
    assert len(vocabulary) == 3 * 1000  # "number7", "mug number7" and "title=mug number7", not "mug" of all
    assert vocabulary.vectors([{"title": "mug"}]).nnz == 0


def test_unknown_terms_and_texts_without_any_have_rows_of_zeros() -> None:
    vocabulary = Vocabulary.of(items_of(["oak desk", "oak lamp"]))
    vectors = vocabulary.vectors([{"title": "oak"}, {}, {"title": "unheard of"}])
    assert np.diff(vectors.indptr).tolist() == [1, 0, 0]
    assert vectors.data.tolist() == [1.0]
    assert vocabulary.vectors([]).shape == (0, 1)


def test_hashes_are_the_same_in_every_process() -> None:
    vocabulary = Vocabulary.of(items_of(["oak desk", "oak lamp"]))
    assert vocabulary.hashes.tolist() == [14_329_097_412_519_084_706]


def test_a_history_is_the_mean_of_its_last_items() -> None:
    items = Vocabulary.of(items_of(["oak", "pine", "oak", "pine"])).vectors(items_of(["oak", "pine"]))
    read = history_vectors([np.array([0, 1]), np.array([], np.int64), np.array([0, 0, 1])], items, last=2)
    products = (read @ items.T).toarray()
    length = math.sqrt(1 + 0.25)
    assert products == pytest.approx(np.array([[0.5, 1], [0, 0], [0.5, 1]]) / length)
