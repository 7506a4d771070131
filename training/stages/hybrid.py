"""The hybrid stage: joins the trained dense model with words and co-occurrence (`seqrec.models.hybrid`).

Nothing is optimised by gradients: counts and term weights have closed forms, and `training.hybrid.fit` searches the
settings on validation. It takes seconds to minutes and draws nothing by chance.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqrec.checkpoint import load_checkpoint
from seqrec.data.items import Item
from seqrec.errors import CheckpointError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.lexical import Vocabulary
from seqrec.models.hybrid import Hybrid, read_attributes
from seqrec.text.item_text import TokenizedHistory
from training.data.dataset import Rows
from training.evaluation.metrics import Metrics
from training.hybrid.fit import DAY, fit_hybrid, lines_of
from training.hybrid.search import Dense
from training.stages.base import Stage, StageContext

log = logging.getLogger(__name__)


class HybridStage(Stage):
    name = "hybrid"
    closed_form = True

    def __init__(self, context: StageContext) -> None:
        self.context = context

    @classmethod
    def from_context(cls, context: StageContext) -> Self:
        return cls(context)

    def solve(self) -> tuple[Metrics, Mapping[str, Any]]:
        """Replaces the model in `context.towers` by a `Hybrid`. -> its validation metrics, and what was chosen."""
        context = self.context
        [data] = context.data[:1]
        dataset, towers = data.dataset, context.towers
        recipe = None if towers.item_model.item_text is None else towers.item_model.item_text.recipe
        # A model of ids has no texts of its own; the words are those that the configuration names all the same.
        names = recipe.attributes if recipe is not None else context.config.text.attributes or None
        texts = [read_attributes(item, names) for item in dataset.items]
        vocabulary = Vocabulary.of(
            Item(item.item_id, text, item.available) for item, text in zip(dataset.items, texts, strict=True)
        )
        encoder = towers.encoder(context.device)
        items = list(data.tokens)

        def queries(histories: Sequence[Rows], newest: int) -> npt.NDArray[np.float32]:
            read = [history[-newest:] if newest else history for history in histories]
            return encoder.encode_history_tokens([_tokens(items, history) for history in read])

        dense = Dense(encoder.encode_item_tokens(items), queries)
        days = context.config.hybrid.half_life_days
        half_life = None if days == "auto" else days * DAY
        known = _known_settings(context.config.hybrid.settings_from)
        fit = fit_hybrid(dataset, vocabulary.vectors(texts), dense, context.config.seed, half_life, known)
        for line in lines_of(fit):
            log.info("%s", line)
        name, split = towers.model_name, towers.split

        def joined(model: Any) -> Hybrid:
            return Hybrid.of(name, model, vocabulary, names, fit.settings)

        towers.history_model = joined(towers.history_model)
        towers.item_model = joined(towers.item_model) if split else towers.history_model
        towers.model_name = self.name
        return context.validate(towers.encoder(context.device)), {"hybrid": fit.to_json()}


def _known_settings(checkpoint: str) -> CooccurrenceSettings | None:
    """Of a hybrid. Raises CheckpointError where there is none."""
    if not checkpoint:
        return None
    model = load_checkpoint(Path(checkpoint)).history_model
    if not isinstance(model, Hybrid):
        raise CheckpointError(f"{checkpoint} is no hybrid, so hybrid.settings_from cannot be it")
    return model.config.settings.cooccurrence


def _tokens(items: Sequence[Any], history: Rows) -> TokenizedHistory:
    return TokenizedHistory([items[row] for row in history])
