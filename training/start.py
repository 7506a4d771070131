"""Where a training begins: random weights, a text encoder, or a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqrec.checkpoint import load_checkpoint
from seqrec.errors import InputError
from seqrec.item_text import ItemText, Recipe
from seqrec.items import Item
from seqrec.model import SequenceModel
from seqrec.models import model_class
from seqrec.tokenizer import CLS, MASK, train_bpe
from training.config import RunConfig, TextConfig


@dataclass(frozen=True)
class Start:
    """`recipe` says what is text (None: the model reads none); `build` makes the model, given the catalogue."""

    model_name: str
    recipe: Recipe | None
    build: Callable[[Sequence[Item]], SequenceModel]


def starting_point(config: RunConfig) -> Start:
    """What `config.model` names. Raises InputError, CheckpointError."""
    name, source = config.model.name, config.model.start_from
    if source and (Path(source) / "digest").is_file():
        return _from_checkpoint(config, source)
    cls = model_class(name)
    text = config.text
    recipe = Recipe(text.attributes or None, text.max_attr_num, text.max_attr_length)
    if source:
        from_text_encoder = getattr(cls, "from_text_encoder", None)
        if from_text_encoder is None:
            raise InputError(f"{name} cannot start from a text encoder", "model.start_from")
        return Start(name, recipe, lambda items: _with_settings(config, from_text_encoder, source, recipe))

    def fresh(items: Sequence[Item]) -> SequenceModel:
        tokenizer = train_bpe(_texts(items, recipe), text.vocab_size)
        item_text = ItemText(recipe, tokenizer)
        settings = dict(config.model.settings)
        vocabulary = {
            "vocab_size": item_text.vocab_size,
            "cls_id": item_text.token_id(CLS),
            "mask_id": item_text.token_id(MASK),
        }
        fixed = settings.keys() & vocabulary.keys()
        if fixed:
            raise InputError("follows from the tokenizer; set text.vocab_size", f"model.settings.{sorted(fixed)[0]}")
        return _with_settings(config, lambda **settings: cls.from_config(settings | vocabulary, item_text))

    return Start(name, recipe, fresh)


def _from_checkpoint(config: RunConfig, source: str) -> Start:
    if config.text != TextConfig():
        raise InputError(f"{source} is a checkpoint and brings its own item text; leave [text] out", "text")
    if config.model.settings:
        raise InputError(f"{source} is a checkpoint and brings its own settings; leave them out", "model.settings")
    checkpoint = load_checkpoint(source)
    model = checkpoint.history_model
    recipe = None if model.item_text is None else model.item_text.recipe
    return Start(checkpoint.model_name, recipe, lambda items: model)


def _with_settings(config: RunConfig, make: Callable[..., SequenceModel], *arguments: object) -> SequenceModel:
    """A setting that the model does not know is the user's mistake, by name."""
    try:
        return make(*arguments, **config.model.settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(f"unknown setting of {config.model.name}: {error}", "model.settings") from None


def _texts(items: Sequence[Item], recipe: Recipe) -> Iterator[str]:
    for item in items:
        for name, value in recipe.texts(item.attributes):
            yield name
            yield value
