"""The tables of a suite and the experiments they need: which model is trained on which data, from which start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from training.config.schema import RunConfig
from training.suite.recipes import TEXT_MODELS, Recipes

Table = Literal["overall", "zero-shot", "training-data", "warm-cold", "ablations", "pretraining-steps"]
TABLES: tuple[Table, ...] = get_args(Table)
SHARES = (0.01, 0.05, 0.1, 0.5, 1.0)
SMALL_DATA_MODELS = ("recformer", "unisrec", "sasrec")
"""The models of the table training-data, as in the paper's figure; all models if none of these is chosen."""
BASELINES = ("popularity", "item-kNN", "last item")
ADVERSARIAL_STAGE = "adversarial"
"""The stage that also learns from other data sets."""
MODEL = "model"
"""The name of an experiment's own model among the methods it measures."""


@dataclass(frozen=True)
class Experiment:
    """One training and its evaluation; without `config`, the baselines.

    share: of the users in training. start: the experiment whose checkpoint it starts from. others: trained on the
    pretraining data sets instead of its own, and evaluated zero-shot. other_domains: trained on them and its own.
    from_text_encoder: starts from the given text encoder, if there is one.
    """

    name: str
    model: str
    config: RunConfig | None
    share: float = 1.0
    start: Experiment | None = None
    from_text_encoder: bool = False
    others: bool = False
    other_domains: bool = False


@dataclass(frozen=True)
class TableRow:
    """A row of a table: a method, and the experiments, one per seed, that measure it as `method`."""

    table: Table
    label: str
    experiments: tuple[Experiment, ...]
    method: str = MODEL
    share: float = 1.0


@dataclass(frozen=True)
class Plan:
    """`pretrained`: whether there are other data sets to pretrain on. All seeds share the pretraining of the first."""

    recipes: Recipes
    models: Sequence[str]
    tables: Sequence[Table]
    seeds: Sequence[int]
    pretrained: bool
    text_encoder: bool

    def rows(self) -> list[TableRow]:
        made = {
            "overall": self._overall,
            "zero-shot": self._zero_shot,
            "training-data": self._training_data,
            "warm-cold": self._overall,
            "ablations": self._ablations,
            "pretraining-steps": self._pretraining_steps,
        }
        return [row for table in TABLES if table in self.tables for row in made[table](table)]

    def _overall(self, table: Table) -> Iterator[TableRow]:
        yield from self._baselines(table, 1.0)
        for model in self.models:
            yield TableRow(table, model, tuple(self.trained(model, seed) for seed in self.seeds))

    def _zero_shot(self, table: Table) -> Iterator[TableRow]:
        if not self.pretrained or not self._text_models:
            return
        yield from self._baselines(table, 1.0)
        for model in self._text_models:
            experiment = self.encoder() if model == "recformer" else self.frozen(model)
            yield TableRow(table, f"{model}, only pretrained", (experiment,))
        for model in self.models:
            yield TableRow(table, f"{model}, trained", tuple(self.trained(model, seed) for seed in self.seeds))

    def _training_data(self, table: Table) -> Iterator[TableRow]:
        models = [model for model in self.models if model in SMALL_DATA_MODELS] or self.models
        for share in SHARES:
            yield from self._baselines(table, share)
            for model in models:
                yield TableRow(
                    table, model, tuple(self.trained(model, seed, share) for seed in self.seeds), share=share
                )

    def _ablations(self, table: Table) -> Iterator[TableRow]:
        if "recformer" not in self.models:
            return
        encoder, bare = self.encoder(), "without item positions and token types"

        def row_of(label: str, start: Experiment | None, of: str = "", changes: Sequence[str] = ()) -> TableRow:
            begun = [(seed, self._begun(seed, 1.0, start, of)) for seed in self.seeds]
            return TableRow(
                table, label, tuple(self._tuned(label, seed, 1.0, experiment, changes) for seed, experiment in begun)
            )

        for label, changes in _ABLATIONS:
            yield row_of(label, encoder, changes=changes)
        yield TableRow(table, _JOINT, tuple(self._joint(seed, 1.0, encoder) for seed in self.seeds))
        yield row_of("without pretraining", None, "without pretraining")
        yield row_of(bare, self.encoder(plain=True), bare)

    def _pretraining_steps(self, table: Table) -> Iterator[TableRow]:
        if "recformer" in self.models:
            yield TableRow(table, "recformer", (self.encoder(),))

    def _baselines(self, table: Table, share: float) -> Iterator[TableRow]:
        counted = Experiment(_of_share("floors", share), "", None, share)
        yield TableRow(table, "popularity", (counted,), "popularity", share)
        yield TableRow(table, "item-kNN", (counted,), "item-kNN", share)
        if table != "training-data" and self._text_models and not self._only_text_encoder:
            yield TableRow(table, "last item, by pretrained text", (self.encoder(),), "last item")

    @property
    def _text_models(self) -> list[str]:
        return [model for model in self.models if model in TEXT_MODELS]

    @property
    def _only_text_encoder(self) -> bool:
        """Whether no encoder is pretrained, since all chosen text models use the given text encoder."""
        return self.text_encoder and "recformer" not in self.models

    def encoder(self, share: float = 1.0, plain: bool = False) -> Experiment:
        """A Recformer that is only pretrained: on the other data sets, or on the training part of this one."""
        share = 1.0 if self.pretrained else share
        changes = _WITHOUT_EMBEDDINGS if plain else ()
        name = "recformer pretrained" + (" without item positions and token types" if plain else "")
        config = self.recipes.pretraining("recformer", self.seeds[0], *changes)
        return Experiment(
            _of_share(name, share), "recformer", config, share, from_text_encoder=True, others=self.pretrained
        )

    def frozen(self, model: str, share: float = 1.0) -> Experiment:
        """The start of a model on frozen text, pretrained if there are data sets to pretrain on."""
        if not self.pretrained:
            return self.encoder(share)
        config = self.recipes.pretraining(model, self.seeds[0])
        start = None if self.text_encoder else self.encoder()
        return Experiment(f"{model} pretrained", model, config, 1.0, start, from_text_encoder=True, others=True)

    def trained(self, model: str, seed: int, share: float = 1.0) -> Experiment:
        if model == "recformer":
            return self._tuned("", seed, share, self._begun(seed, share, self.encoder(share)))
        config = self.recipes.training(model, seed, share)
        name = _of_seed(_of_share(model, share), seed)
        if model not in TEXT_MODELS:
            return Experiment(
                name, model, config, share, other_domains=self.pretrained and ADVERSARIAL_STAGE in config.stages
            )
        start = None if self.text_encoder and not self.pretrained else self.frozen(model, share)
        return Experiment(name, model, config, share, start, from_text_encoder=True)

    def _begun(self, seed: int, share: float, encoder: Experiment | None, label: str = "") -> Experiment | None:
        """The start of the two stages. With --quick, an encoder trained by the joint stage: against an item matrix that
        is fixed for an epoch, it would learn next to nothing in the time."""
        return self._joint(seed, share, encoder, label) if self.recipes.quick else encoder

    def _joint(self, seed: int, share: float, encoder: Experiment | None, label: str = "") -> Experiment:
        return self._tuned(f"{_JOINT} {label}".strip(), seed, share, encoder, ('stages=["joint"]',))

    def _tuned(
        self, label: str, seed: int, share: float, start: Experiment | None, changes: Sequence[str] = ()
    ) -> Experiment:
        config = self.recipes.training("recformer", seed, share, *changes)
        label = "" if label == _WHOLE else label
        name = _of_seed(_of_share(f"recformer {label}".strip(), share), seed)
        return Experiment(name, "recformer", config, share, start, from_text_encoder=True)


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


def experiments_of(rows: Iterable[TableRow]) -> list[Experiment]:
    """Each experiment once, after the one it starts from."""
    found: dict[str, Experiment] = {}

    def add(experiment: Experiment) -> None:
        if experiment.start is not None:
            add(experiment.start)
        found.setdefault(experiment.name, experiment)

    for row in rows:
        for experiment in row.experiments:
            add(experiment)
    return list(found.values())


def _of_share(name: str, share: float) -> str:
    return name if share == 1 else f"{name}, {share:.0%} of the users"


def _of_seed(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"
