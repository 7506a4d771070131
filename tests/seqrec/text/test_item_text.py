from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from seqrec.data.items import make_item
from seqrec.errors import InputError
from seqrec.text.item_text import NAME, VALUE, ItemText, ItemTokens, Recipe, TokenizedItem, has_model_input

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def tokenizer() -> Tokenizer:
    """A byte-level BPE in which every byte is a token of its own, and a few letters together are one."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["title brand oak desk oak desk"] * 3, trainer)
    return made


def item_text(attributes: tuple[str, ...] | None = ("title", "brand"), **options: Any) -> ItemText:
    return ItemText(Recipe(attributes, **options), tokenizer())


def spell(text: ItemText, item: TokenizedItem) -> list[tuple[str, int]]:
    """The runs of one type, as text."""
    decoder = Tokenizer.from_str(text.tokenizer_json)
    runs: list[tuple[list[str], int]] = []
    for token, type_ in zip(item.ids.tolist(), item.types.tolist(), strict=True):
        if not runs or runs[-1][1] != type_:
            runs.append(([], type_))
        runs[-1][0].append(decoder.id_to_token(token) or "?")
    return [("".join(tokens).replace("Ġ", " "), type_) for tokens, type_ in runs]


def only(text: ItemText, attributes: dict[str, Any]) -> TokenizedItem:
    (tokens,) = text.tokenize([attributes])
    return tokens


def test_attributes_come_in_the_order_of_the_recipe() -> None:
    text = item_text(("brand", "title", "colour"))
    tokens = only(text, {"title": "oak desk", "price": 3, "brand": "acme"})
    assert spell(text, tokens) == [("brand", NAME), ("acme", VALUE), ("title", NAME), ("oak desk", VALUE)]


def test_without_a_list_the_order_is_the_item_s_own() -> None:
    text = item_text(None, max_attr_num=2)
    assert [run for run, _ in spell(text, only(text, {"b": "x", "a": "y", "c": "z"}))] == ["b", "x", "a", "y"]


def test_no_more_attributes_than_the_recipe_reads() -> None:
    text = item_text(("title", "brand", "colour"), max_attr_num=2)
    assert [run for run, _ in spell(text, only(text, {"colour": "c", "brand": "b"}))] == ["brand", "b", "colour", "c"]
    assert [run for run, _ in spell(text, only(text, {"colour": "c", "brand": "b", "title": "t"}))][0::2] == [
        "title",
        "brand",
    ]


def test_an_attribute_is_cut_name_and_value_together() -> None:
    whole = only(item_text(), {"title": "x y z w"})
    name = int((whole.types == NAME).sum())
    cut = only(item_text(max_attr_length=name + 2), {"title": "x y z w"})
    assert cut.ids.tolist() == whole.ids[: name + 2].tolist()
    assert cut.types.tolist() == [NAME] * name + [VALUE] * 2


def test_a_long_name_can_use_up_the_budget() -> None:
    tokens = only(item_text(("nameless thing", "title"), max_attr_length=3), {"nameless thing": "v", "title": "v"})
    assert tokens.types.tolist()[:3] == [NAME] * 3
    assert len(tokens.ids) <= 6


def test_name_and_value_are_tokenised_separately() -> None:
    text = item_text(("oak",))
    assert spell(text, only(text, {"oak": " desk"})) == [("oak", NAME), (" desk", VALUE)]
    assert only(text, {"oak": "desk"}).ids[-1] != only(text, {"oak": " desk"}).ids[-1]


@pytest.mark.parametrize(
    ("value", "as_text"), [(3, "3"), (3.0, "3"), (2.5, "2.5"), (["a", "b"], "a, b"), (("a", "b"), "a, b"), ("", "")]
)
def test_numbers_and_lists_are_text(value: Any, as_text: str) -> None:
    text = item_text()
    assert only(text, {"title": value}).ids.tolist() == only(text, {"title": as_text}).ids.tolist()


def test_an_item_without_any_of_the_attributes_has_no_tokens() -> None:
    text = item_text()
    tokens = text.tokenize([make_item("a", {}), make_item("b", {"price": 3}), make_item("c", {"title": "oak"})])
    assert tokens.lengths.tolist()[:2] == [0, 0]
    assert tokens.lengths[2] > 0
    assert len(text.tokenize([])) == 0


@pytest.mark.parametrize("title", ["🫖👩‍🍳", "שולחן", "a\x00b\x1f", "e\u0301", "<mask>", "\u202eab"])
def test_any_text_has_tokens_and_they_say_it_all(title: str) -> None:
    text = item_text(max_attr_length=100)
    values = [
        id_ for id_, type_ in zip(*map(np.ndarray.tolist, only(text, {"title": title})), strict=True) if type_ == VALUE
    ]
    alphabet = {c: b for b, c in _byte_alphabet().items()}
    tokens = "".join(Tokenizer.from_str(text.tokenizer_json).id_to_token(value) for value in values)
    assert bytes(alphabet[c] for c in tokens).decode() == title


# Special tokens


@pytest.mark.parametrize("token", SPECIAL)
def test_a_text_cannot_forge_a_special_token(token: str) -> None:
    text = item_text(max_attr_length=64)
    special = text.token_id(token)
    assert special is not None
    for attributes in ({"title": token}, {"title": f"oak {token}desk{token}"}, {"brand": f" {token} "}):
        assert special not in only(text, attributes).ids.tolist()
    assert special not in only(item_text((token,)), {token: "value"}).ids.tolist()


def test_an_imported_recipe_may_parse_them_as_its_authors_do() -> None:
    text = item_text(parse_special_tokens=True, max_attr_length=64)
    for token in SPECIAL:
        assert text.token_id(token) in only(text, {"title": f"oak {token} desk"}).ids.tolist()
    mask = text.token_id("<mask>")
    with_space, without = only(text, {"title": "oak <mask>"}), only(text, {"title": "oak<mask>"})
    assert with_space.ids.tolist() == without.ids.tolist()  # <mask> takes the space before it along
    assert with_space.ids[-1] == mask


def test_post_processing_padding_and_truncation_of_the_tokenizer_are_dropped() -> None:
    fancy = tokenizer()
    fancy.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    fancy.enable_padding(length=50)
    fancy.enable_truncation(2)
    plain = item_text(("title",))
    dressed = ItemText(Recipe(("title",)), fancy)
    title = {"title": "oak desk oak desk"}
    assert only(dressed, title).ids.tolist() == only(plain, title).ids.tolist()
    assert dressed.digest == plain.digest


# Recipe and digest


def test_equal_recipes_and_tokenizers_have_equal_digests() -> None:
    assert item_text().digest == item_text().digest
    different = {item_text().digest, item_text(("title",)).digest, item_text(max_attr_length=31).digest}
    different |= {item_text(max_attr_num=2).digest, item_text(parse_special_tokens=True).digest, item_text(None).digest}
    assert len(different) == 6


@pytest.mark.parametrize("recipe", [Recipe(None), Recipe(("title", "🫖")), Recipe(("a",), 1, 2, True)])
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_recipe_that_reads_nothing_is_refused() -> None:
    for options in (
        {"attributes": ()},
        {"attributes": None, "max_attr_num": 0},
        {"attributes": ("a",), "max_attr_length": 0},
    ):
        with pytest.raises(InputError):
            Recipe(**options)  # type: ignore[arg-type]


def test_a_recipe_of_a_later_format_is_refused() -> None:
    with pytest.raises(InputError, match="format"):
        Recipe.from_json(Recipe(None).to_json().replace('"format": 1', '"format": 2'))


@pytest.mark.slow
def test_many_names_do_not_pile_up() -> None:
    text = item_text(None)
    for start in range(0, 30_000, 5_000):
        items = text.tokenize([{f"n{i}": "v"} for i in range(start, start + 5_000)])
        assert len(items) == 5_000
    assert len(text.names) <= 10_000
    assert only(text, {"n1": "v"}).ids.tolist() == only(item_text(None), {"n1": "v"}).ids.tolist()


# ItemTokens


def tokens(*lengths: int) -> ItemTokens:
    items = [TokenizedItem(np.arange(n, dtype=np.int32) + 10 * n, np.full(n, VALUE, np.uint8)) for n in lengths]
    return ItemTokens.concatenate(items)


def test_ragged_tokens_are_a_sequence() -> None:
    made = tokens(3, 0, 2)
    assert len(made) == 3
    assert made.lengths.tolist() == [3, 0, 2]
    assert [item.ids.tolist() for item in made] == [[30, 31, 32], [], [20, 21]]
    assert [made[i].ids.tolist() for i in range(3)] == [item.ids.tolist() for item in made]
    assert made[-1].ids.tolist() == [20, 21]
    assert made[-3].types.tolist() == [VALUE] * 3
    assert [item.ids.tolist() for item in made[1:]] == [[], [20, 21]]
    assert [item.ids.tolist() for item in made[::-2]] == [[20, 21], [30, 31, 32]]
    assert (made.ids.dtype, made.types.dtype, made.offsets.dtype) == (np.int32, np.uint8, np.int64)
    for row in (3, -4):
        with pytest.raises(IndexError):
            made[row]


def test_no_items_are_a_sequence_too() -> None:
    for none in (tokens(), tokens(3)[3:]):
        assert (len(none), list(none), none.offsets.tolist()) == (0, [], [0])
    assert tokens(0, 0).lengths.tolist() == [0, 0]


def test_tokens_may_be_memory_mapped(tmp_path: Any) -> None:
    made = tokens(3, 0, 2)
    for name in ("ids", "types", "offsets"):
        np.save(tmp_path / name, getattr(made, name))
    mapped = ItemTokens(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("ids", "types", "offsets")))
    assert [item.ids.tolist() for item in mapped] == [item.ids.tolist() for item in made]


def _byte_alphabet() -> dict[int, str]:
    """Byte-level BPE writes each byte as a printable character (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u00a0", "\u200b", "\u2060\ufeff", "\u3164", "\xad", "\u2800"])
def test_an_item_without_visible_text_has_names_only(blank: str) -> None:
    text = item_text()
    nothing, some = text.tokenize([{"title": blank, "brand": blank}, {"title": blank, "brand": "oak"}])
    assert [run for run, _ in spell(text, nothing)] == ["titlebrand"]
    assert not has_model_input(nothing)
    assert has_model_input(some)


@pytest.mark.parametrize("visible", ["oak", ".", "\u200boak", "🫖", "ת", "0"])
def test_any_visible_character_is_text(visible: str) -> None:
    assert has_model_input(only(item_text(), {"title": visible}))
