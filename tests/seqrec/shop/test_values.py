from __future__ import annotations

import pyarrow as pa
import pytest

from seqrec.shop.values import id_texts, is_available, parse_amount, plain_text, split_list


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>Caf&eacute; &amp; bar</p>", "Café & bar"),
        ("Red<br/>Large", "Red Large"),
        ("a < b and c > d", "a < b and c > d"),
        ("I <3 you", "I <3 you"),
        ("R&D; AT&T", "R&D; AT&T"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("&amp;nbsp;x", "x"),
        ("<style>p {color: red}</style>text<!-- note -->", "text"),
        ("  many \n blanks ", "many blanks"),
    ],
)
def test_html_becomes_text(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("1.234,50 €", ",", 1234.5),
        ("1,234.50", None, 1234.5),
        ("12,5", None, 12.5),
        ("1,234", None, 1234),
        ("0.85 GBP", None, 0.85),
        ("$ 1'000", None, 1000),
        ("-3", None, -3),
        ("1 234,5", ",", 1234.5),
        ("free", None, None),
        ("", None, None),
        ("1.2.3", None, None),
    ],
)
def test_numbers_as_people_write_them(text: str, decimal: str | None, value: float | None) -> None:
    assert parse_amount(text, decimal) == value


def test_lists_in_one_field() -> None:
    assert split_list("a > b >c", ">") == ["a", "b", "c"]
    assert split_list("['a', \"b\"]", None) == ["a", "b"]
    assert split_list("a, b", None) == ["a, b"]


@pytest.mark.parametrize(
    ("value", "available"),
    [
        ("active", True),
        ("draft", False),
        ("0", False),
        ("12", True),
        (0, False),
        (True, True),
        (None, True),
        ("Out of stock", False),
    ],
)
def test_words_and_stocks_of_availability(value: object, available: bool) -> None:
    assert is_available(value, None) is available


def test_values_that_mean_available_can_be_named() -> None:
    assert is_available("Lieferbar", ["lieferbar"])
    assert not is_available("bald", ["lieferbar"])
    assert not is_available(None, ["lieferbar"])


def test_ids_are_texts() -> None:
    assert id_texts(pa.array([1.0, None, 2.0])).to_pylist() == ["1", None, "2"]
    assert id_texts(pa.array([1, 2])).to_pylist() == ["1", "2"]
    assert id_texts(pa.array([" a ", ""])).to_pylist() == ["a", None]
    assert id_texts(pa.array(["a", "a"]).dictionary_encode()).to_pylist() == ["a", "a"]
