"""The configuration of each model of a suite: a preset with changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seqrec.errors import InputError
from training.config.load import load_config, preset_path
from training.config.schema import RunConfig
from training.data.dataset import Dataset

TEXT_MODELS = ("recformer", "unisrec", "zesrec")
"""Models that read item text; all others know items by id."""
MODELS = (*TEXT_MODELS, "sasrec", "bert4rec", "gru4rec", "attrec", "fdsa", "s3rec", "recguru")
ATTRIBUTES = ("title", "brand", "category", "genres")
"""The attributes that text models read, in this order."""

QUICK_USERS = 2000
QUICK_USERS_PRETRAINING = 10_000
"""Per data set to pretrain on. With fewer users the encoder overfits."""
MORE_EPOCHS = {"recformer": 3.0}
"""With a share of the users an epoch is shorter, so there are 1 / share times as many epochs, up to this factor."""
MORE_EPOCHS_OTHERS = 10.0

_ENDS_QUICK = (
    "validation.users=2000",
    "validation.at_start=false",
    # With few users GRU4Rec and BERT4Rec do not improve for dozens of epochs: many checks would exhaust patience.
    "validation.checks=12",
)
_PRETRAINS_QUICK = (
    "pretrain.batch_size=256",
    "pretrain.optimizer.max_epochs=20",
    "pretrain.optimizer.max_minutes=1.5",
    "pretrain.validation.users=200",
    "pretrain.held_out_items=1000",
    "pretrain.zero_shot_users=500",
)
_QUICK: Mapping[str, Sequence[str]] = {
    "recformer": (
        "text.vocab_size=8000",
        "text.max_attr_length=24",
        "model.settings.max_token_num=256",
        "optimizer.chunk=0",
        "optimizer.warmup=0.05",
        "validation.at_start=true",
        "validation.patience=0",
        # A small encoder needs many epochs until whole histories rank better than their last item.
        "pretrain.crop=true",
        "joint.crop=true",
        "stage1.crop=true",
        "stage2.crop=true",
        # The masked-language-model head triples the time.
        "pretrain.mlm_weight=0.0",
        "pretrain.single_domain_batches=true",
        "pretrain.held_out_items=1000",
        "pretrain.zero_shot_users=500",
        # With only 63 in-batch negatives the loss stays at chance for a thousand steps.
        "pretrain.batch_size=256",
        "pretrain.temperature=0.07",
        "pretrain.optimizer.max_epochs=0",
        "pretrain.optimizer.max_steps=400",
        "pretrain.optimizer.max_minutes=5.5",
        "pretrain.validation.checks=6",
        "pretrain.validation.users=500",
        "stage1.batch_size=32",
        "stage1.optimizer.max_epochs=4",
        "stage1.optimizer.max_minutes=1",
        "stage1.validation.checks=3",
        "stage1.validation.patience=2",
        "stage1.validation.users=1000",
        "stage2.batch_size=32",
        "stage2.optimizer.max_epochs=2",
        "stage2.optimizer.max_minutes=0.7",
        "stage2.validation.checks=2",
        "stage2.validation.users=1000",
        "joint.negatives=256",
        "joint.min_history=1",
        "joint.optimizer.max_epochs=15",
        "joint.optimizer.max_minutes=4",
        "joint.validation.checks=6",
        "joint.validation.users=1000",
    ),
    "unisrec": (
        "model.settings.dim=128",
        "sequence.optimizer.max_epochs=40",
        "sequence.optimizer.max_minutes=1.5",
        "sequence.validation.checks=10",
        *_PRETRAINS_QUICK,
    ),
    "zesrec": (
        "sequence.optimizer.max_epochs=60",
        "sequence.optimizer.max_minutes=1.5",
        "sequence.validation.checks=10",
        *_PRETRAINS_QUICK,
    ),
    "sasrec": ("model.settings.dim=64", *_ENDS_QUICK, "optimizer.max_epochs=100", "optimizer.max_minutes=1"),
    "bert4rec": (*_ENDS_QUICK, "optimizer.max_epochs=200", "optimizer.max_minutes=2"),
    "gru4rec": (*_ENDS_QUICK, "optimizer.max_epochs=100", "optimizer.max_minutes=1.5"),
    "attrec": (*_ENDS_QUICK, "optimizer.max_epochs=60", "optimizer.max_minutes=1.5"),
    "fdsa": (*_ENDS_QUICK, "optimizer.max_epochs=60", "optimizer.max_minutes=2"),
    "s3rec": (
        *_ENDS_QUICK,
        "self_supervised.optimizer.max_epochs=20",
        "optimizer.max_epochs=60",
        "optimizer.max_minutes=1.5",
    ),
    "recguru": (
        *_ENDS_QUICK,
        "adversarial.optimizer.max_epochs=20",
        "adversarial.warmup_epochs=5",
        "optimizer.max_epochs=100",
        "optimizer.max_minutes=1.5",
    ),
}
_SMALL_ENCODER = (
    "model.settings.hidden_size=128",
    "model.settings.num_layers=2",
    "model.settings.num_heads=4",
    "model.settings.intermediate_size=512",
    "model.settings.max_position_embeddings=258",
    "model.settings.dropout=0.0",
    "pretrain.optimizer.learning_rate=1e-3",
    "stage1.optimizer.learning_rate=5e-4",
    "stage2.optimizer.learning_rate=2e-4",
    "joint.optimizer.learning_rate=1e-3",
)
_PRESETS = {"recformer": "paper"}


@dataclass(frozen=True)
class Recipes:
    """`text_encoder`: whether encoders start from one instead of random weights. `changes`: the --set options.

    `long`: whether histories are long, as in MovieLens; `title_only`: whether items have no attribute but a title.
    """

    quick: bool
    text_encoder: bool
    long: bool
    title_only: bool
    threads: int = 0
    device: str = ""
    changes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, dataset: Dataset, quick: bool, text_encoder: bool, threads: int, device: str, changes: list[str]
    ) -> Recipes:
        for change in changes:
            model, colon, _ = change.partition("=")[0].partition(":")
            if colon and model not in MODELS:
                raise InputError(f"{change!r} is for {model!r}; there are {', '.join(MODELS)}", "--set")
        lengths = np.diff(dataset.offsets)
        names = {name for item in dataset.items for name in item.attributes}
        return cls(
            quick,
            text_encoder,
            bool(np.median(lengths) > 50),
            not names & {"brand", "category", "genres"},
            threads,
            device,
            tuple(changes),
        )

    def pretraining(self, model: str, seed: int, *more: str) -> RunConfig:
        """The pretraining of an encoder (`recformer`) or of a model on top of one."""
        return self._config(_PRESETS.get(model) or f"{model}_pretrain", model, seed, *more, 'stages=["pretrain"]')

    def training(self, model: str, seed: int, share: float = 1.0, *more: str) -> RunConfig:
        """The training on a share of the users."""
        preset = _PRESETS.get(model, model)
        config = self._config(preset, model, seed, *more)
        if share == 1:
            return config
        times = min(1 / share, MORE_EPOCHS.get(model, MORE_EPOCHS_OTHERS))
        epochs = {stage: config.optimizer_of(stage).max_epochs for stage in config.stages}
        longer = [f"{stage}.optimizer.max_epochs={round(times * number)}" for stage, number in epochs.items()]
        return self._config(preset, model, seed, *more, *longer)

    def _config(self, preset: str, model: str, seed: int, *more: str) -> RunConfig:
        """The preset with the changes of the suite, the user's and `more`, in this order."""
        overrides = [f"seed={seed}", f"threads={self.threads}", f'device="{self.device}"']
        if model in TEXT_MODELS:
            overrides.append(f"text.attributes={list(ATTRIBUTES)}")
        if model == "recformer":
            overrides.append('stages=["stage1","stage2"]')
        if model in ("sasrec", "bert4rec") and not self.long:
            overrides.append("model.settings.max_length=50")
        if model == "bert4rec" and not self.long:
            overrides.append("model.settings.mask_share=0.5")
        if model == "s3rec" and self.title_only:
            overrides.append("model.settings.features=title")
        if self.quick:
            overrides += _QUICK[model]
            if model == "recformer" and not self.text_encoder:
                overrides += _SMALL_ENCODER
        for change in self.changes:
            key, equals, value = change.partition("=")
            of, _, name = key.rpartition(":")
            if of in ("", model):
                overrides.append(f"{name}{equals}{value}")
        return load_config(preset_path(preset), [*overrides, *more])
