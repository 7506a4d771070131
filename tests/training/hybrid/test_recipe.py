"""The default recipe: which preset the data gets, and which attributes are read."""

from __future__ import annotations

from seqrec.data.items import Item
from training.hybrid.recipe import recipe_for, text_attributes


def items_of(count: int, **attributes: str | float) -> list[Item]:
    return [Item(str(number), dict(attributes)) for number in range(count)]


def test_a_shop_gets_a_text_model_and_a_dense_log_a_sequence_model() -> None:
    items = items_of(100, title="oak desk", price=3.0)
    assert recipe_for(items, 9_999).preset == "hybrid"
    assert recipe_for(items, 9_999).overrides == ('text.attributes=["title"]',)
    assert recipe_for(items, 10_000).preset == "hybrid_sequence"
    assert recipe_for(items, 0).preset == "hybrid"


def test_items_without_words_get_a_sequence_model() -> None:
    recipe = recipe_for(items_of(100, price=3.0, code="123", link="http://a.b"), 200)
    assert recipe.preset == "hybrid_sequence"
    assert "items have no texts" in recipe.reasons[0]


def test_titles_come_first_and_rare_attributes_are_not_read() -> None:
    items = items_of(9, description="a desk of solid oak", brand="Acme", title="oak desk", colour="red")
    assert text_attributes([*items, Item("x", {"note": "rare"})]) == ["title", "brand", "colour"]
