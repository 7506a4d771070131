"""The tables of a suite, and the cells they are made of: what is trained on what, from what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from training.config.schema import RunConfig
from training.suite.recipes import TEXT_MODELS, Recipes

Table = Literal["overall", "zero-shot", "training-data", "warm-cold", "ablations", "pretraining-steps"]
TABLES: tuple[Table, ...] = get_args(Table)
SHARES = (0.01, 0.05, 0.1, 0.5, 1.0)
LEARNERS = ("recformer", "unisrec", "sasrec")
"""Those that are trained on less data too, as in the paper's figure; all others only where none of these is chosen."""
FLOORS = ("popularity", "item-kNN", "last item")
ALIGNS = "adversarial"
"""The stage that learns from other data sets beside the own one."""
MODEL = "model"
"""The name of a cell's own model among the methods that it measures."""


@dataclass(frozen=True)
class Experiment:
    """One training and its evaluation; or, without `config`, the floors alone.

    share: of the users that train. start: whose checkpoint it starts from. others: it is trained on the data sets to
    pretrain on, and evaluated as it is. beside: it is trained on those beside its own.
    """

    name: str
    model: str
    config: RunConfig | None
    share: float = 1.0
    start: Experiment | None = None
    on_encoder: bool = False  # it starts from the text encoder that was named, if there is one
    others: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table: a method, and the cells, one a seed, in which it is measured as `method`."""

    table: Table
    label: str
    cells: tuple[Experiment, ...]
    method: str = MODEL
    share: float = 1.0


@dataclass(frozen=True)
class Plan:
    """`pretrained`: whether there are other data sets to pretrain on. The first seed pretrains, for all."""

    recipes: Recipes
    models: Sequence[str]
    tables: Sequence[Table]
    seeds: Sequence[int]
    pretrained: bool
    text_encoder: bool

    def lines(self) -> list[Line]:
        made = {
            "overall": self._overall,
            "zero-shot": self._zero_shot,
            "training-data": self._training_data,
            "warm-cold": self._overall,
            "ablations": self._ablations,
            "pretraining-steps": self._pretraining_steps,
        }
        return [line for table in TABLES if table in self.tables for line in made[table](table)]

    def _overall(self, table: Table) -> Iterator[Line]:
        yield from self._floors(table, 1.0)
        for model in self.models:
            yield Line(table, model, tuple(self.trained(model, seed) for seed in self.seeds))

    def _zero_shot(self, table: Table) -> Iterator[Line]:
        if not self.pretrained or not self._text_models:
            return
        yield from self._floors(table, 1.0)
        for model in self._text_models:
            cell = self.encoder() if model == "recformer" else self.frozen(model)
            yield Line(table, f"{model}, only pretrained", (cell,))
        for model in self.models:
            yield Line(table, f"{model}, trained", tuple(self.trained(model, seed) for seed in self.seeds))

    def _training_data(self, table: Table) -> Iterator[Line]:
        models = [model for model in self.models if model in LEARNERS] or self.models
        for share in SHARES:
            yield from self._floors(table, share)
            for model in models:
                yield Line(table, model, tuple(self.trained(model, seed, share) for seed in self.seeds), share=share)

    def _ablations(self, table: Table) -> Iterator[Line]:
        if "recformer" not in self.models:
            return
        encoder, bare = self.encoder(), "without item positions and token types"

        def line(label: str, start: Experiment | None, of: str = "", changes: Sequence[str] = ()) -> Line:
            begun = [(seed, self._begun(seed, 1.0, start, of)) for seed in self.seeds]
            return Line(table, label, tuple(self._tuned(label, seed, 1.0, cell, changes) for seed, cell in begun))

        for label, changes in _ABLATIONS:
            yield line(label, encoder, changes=changes)
        yield Line(table, _JOINT, tuple(self._joint(seed, 1.0, encoder) for seed in self.seeds))
        yield line("without pretraining", None, "without pretraining")
        yield line(bare, self.encoder(plain=True), bare)

    def _pretraining_steps(self, table: Table) -> Iterator[Line]:
        if "recformer" in self.models:
            yield Line(table, "recformer", (self.encoder(),))

    def _floors(self, table: Table, share: float) -> Iterator[Line]:
        counted = Experiment(_of_share("floors", share), "", None, share)
        yield Line(table, "popularity", (counted,), "popularity", share)
        yield Line(table, "item-kNN", (counted,), "item-kNN", share)
        if table != "training-data" and self._text_models and not self._only_on_encoder:
            yield Line(table, "last item, by pretrained text", (self.encoder(),), "last item")

    @property
    def _text_models(self) -> list[str]:
        return [model for model in self.models if model in TEXT_MODELS]

    @property
    def _only_on_encoder(self) -> bool:
        """Whether no encoder is pretrained: the models that need one stand on the text encoder that was named."""
        return self.text_encoder and "recformer" not in self.models

    def encoder(self, share: float = 1.0, plain: bool = False) -> Experiment:
        """A Recformer that is only pretrained: on the other data sets, or on what trains of this one."""
        share = 1.0 if self.pretrained else share
        changes = _WITHOUT_EMBEDDINGS if plain else ()
        name = "recformer pretrained" + (" without item positions and token types" if plain else "")
        config = self.recipes.pretraining("recformer", self.seeds[0], *changes)
        return Experiment(_of_share(name, share), "recformer", config, share, on_encoder=True, others=self.pretrained)

    def frozen(self, model: str, share: float = 1.0) -> Experiment:
        """What a model on frozen text begins from, pretrained where there is something to pretrain on."""
        if not self.pretrained:
            return self.encoder(share)
        config = self.recipes.pretraining(model, self.seeds[0])
        start = None if self.text_encoder else self.encoder()
        return Experiment(f"{model} pretrained", model, config, 1.0, start, on_encoder=True, others=True)

    def trained(self, model: str, seed: int, share: float = 1.0) -> Experiment:
        if model == "recformer":
            return self._tuned("", seed, share, self._begun(seed, share, self.encoder(share)))
        config = self.recipes.training(model, seed, share)
        name = _of_seed(_of_share(model, share), seed)
        if model not in TEXT_MODELS:
            return Experiment(name, model, config, share, beside=self.pretrained and ALIGNS in config.stages)
        start = None if self.text_encoder and not self.pretrained else self.frozen(model, share)
        return Experiment(name, model, config, share, start, on_encoder=True)

    def _begun(self, seed: int, share: float, encoder: Experiment | None, label: str = "") -> Experiment | None:
        """What the two stages start from. With little time that is an encoder that learnt the data set's own items and
        histories at once: against items that stay as they are for an epoch it learns next to nothing."""
        return self._joint(seed, share, encoder, label) if self.recipes.quick else encoder

    def _joint(self, seed: int, share: float, encoder: Experiment | None, label: str = "") -> Experiment:
        return self._tuned(f"{_JOINT} {label}".strip(), seed, share, encoder, ('stages=["joint"]',))

    def _tuned(
        self, label: str, seed: int, share: float, start: Experiment | None, changes: Sequence[str] = ()
    ) -> Experiment:
        config = self.recipes.training("recformer", seed, share, *changes)
        label = "" if label == _WHOLE else label
        name = _of_seed(_of_share(f"recformer {label}".strip(), share), seed)
        return Experiment(name, "recformer", config, share, start, on_encoder=True)


_WHOLE = "two stages, all weights trained"
_JOINT = "one stage, items trained through their text"
_WITHOUT_EMBEDDINGS = ("model.settings.token_types=false", "model.settings.item_positions=false")
_FROZEN_WORDS = ("stage1.freeze_words=true", "stage2.freeze_words=true")
_ABLATIONS: Sequence[tuple[str, Sequence[str]]] = (
    (_WHOLE, ()),
    ("two stages, words frozen", _FROZEN_WORDS),
    ("one stage, items encoded anew each epoch", ('stages=["stage1"]',)),
    ("one stage, items frozen", ('stages=["stage2"]',)),
    ("one stage, items and words frozen", ('stages=["stage2"]', *_FROZEN_WORDS)),
)


def cells_of(lines: Iterable[Line]) -> list[Experiment]:
    """Each once, and after what it starts from."""
    found: dict[str, Experiment] = {}

    def add(cell: Experiment) -> None:
        if cell.start is not None:
            add(cell.start)
        found.setdefault(cell.name, cell)

    for line in lines:
        for cell in line.cells:
            add(cell)
    return list(found.values())


def _of_share(name: str, share: float) -> str:
    return name if share == 1 else f"{name}, {share:.0%} of the users"


def _of_seed(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"
