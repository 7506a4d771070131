"""The default recipe: which preset the data gets, and which attributes are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqrec import cli
from seqrec.checkpoint import load_checkpoint
from seqrec.data.items import Item
from seqrec.models.hybrid import Hybrid
from training.hybrid.recipe import recipe_for, text_attributes


def items_of(count: int, **attributes: str | float) -> list[Item]:
    return [Item(str(number), dict(attributes)) for number in range(count)]


def test_a_shop_gets_a_text_model_and_a_dense_log_a_sequence_model() -> None:
    items = items_of(100, title="oak desk", price=3.0)
    assert recipe_for(items, 9_999).preset == "hybrid"
    assert recipe_for(items, 9_999).overrides == ('text.attributes=["title"]',)
    assert recipe_for(items, 10_000).preset == "hybrid_sequence"
    assert recipe_for(items, 10_000).overrides == ('text.attributes=["title"]',)
    assert recipe_for(items, 0).preset == "hybrid"


def test_items_without_words_get_a_sequence_model() -> None:
    recipe = recipe_for(items_of(100, price=3.0, code="123", link="http://a.b"), 200)
    assert recipe.preset == "hybrid_sequence"
    assert "items have no texts" in recipe.reasons[0]


def test_titles_come_first_and_rare_attributes_are_not_read() -> None:
    items = items_of(9, description="a desk of solid oak", brand="Acme", title="oak desk", colour="red")
    assert text_attributes([*items, Item("x", {"note": "rare"})]) == ["title", "brand", "colour"]


def test_attributes_that_are_set_are_those_that_it_says_are_read() -> None:
    items = items_of(9, title="oak desk", updated="2026-01-01T00:00:00Z", colour="red", shelf="oak", vendor="Acme")
    wanted = 'text.attributes=["title", "vendor", "shelf", "colour"]'
    recipe = recipe_for(items, 20, ["optimizer.max_steps=9", wanted])
    assert recipe.overrides == ()
    assert "Recformer over title, vendor, shelf, words from title, vendor, shelf, colour;" in recipe.reasons[0]
    assert "over title, vendor;" in recipe_for(items, 20, [wanted, 'text.attributes=["title", "vendor"]']).reasons[0]
    assert "over title, words" in recipe_for(items, 20, [wanted, "text.max_attr_num=1"]).reasons[0]
    assert "words from: title, vendor, shelf, colour" in recipe_for(items, 2000, [wanted]).reasons[0]
    assert recipe_for(items, 20, ["text.attributes=[", "text.max_attr_num='x'"]).preset == "hybrid"


@pytest.mark.slow
def test_the_words_of_a_hybrid_over_ids_are_those_of_the_texts_that_are_set(tmp_path: Path) -> None:
    items, events = tmp_path / "items.jsonl", tmp_path / "events.csv"
    items.write_text(
        "".join(
            json.dumps({"item_id": f"i{n}", "attributes": {"title": f"desk {n % 5}", "updated": f"day {n}"}}) + "\n"
            for n in range(20)
        )
    )
    rows = [f"u{user},i{(user * 7 + place) % 20},{place}" for user in range(12) for place in range(8)]
    events.write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]))
    small = ["optimizer.max_steps=2", "model.settings.dim=16", "validation.checks=1", 'text.attributes=["title"]']
    options = [part for setting in small for part in ("--set", setting)]
    files = ["--items", str(items), "--interactions", str(events), "--out", str(tmp_path / "run")]
    cli.run("train", [*files, "--preset", "hybrid_sequence", *options])
    model = load_checkpoint(tmp_path / "run" / "checkpoint").history_model
    assert isinstance(model, Hybrid)
    assert model.config.attributes == ("title",)
