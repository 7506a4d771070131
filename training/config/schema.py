"""The settings of a training run, with their types, ranges and defaults. The presets document each of them."""

from __future__ import annotations

from dataclasses import asdict, field, fields
from typing import Annotated, Literal, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from seqrec.errors import InputError, there_are
from training.config.validation import STRICT, Table, build
from training.data.splits import SplitConfig

Strings = tuple[str, ...]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW, its schedule, and when a stage ends."""

    learning_rate: AboveZero = 1e-3
    weight_decay: Weight = 0.01
    warmup: Share = 0.05
    decay: Literal["linear", "cosine"] = "linear"
    clip_norm: AboveZero = 1.0
    chunk: Count = 0
    gradient_checkpointing: bool = False
    max_epochs: Count = 0
    max_steps: Count = 0
    max_minutes: Weight = 0.0

    @property
    def ends(self) -> bool:
        return bool(self.max_epochs or self.max_steps or self.max_minutes)


@dataclass(frozen=True, config=STRICT)
class ValidationConfig:
    checks: Positive = 10
    at_start: bool = False
    patience: Count = 3
    users: Positive = 1000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StageConfig:
    """Base of the table of a stage.

    `[stage2.optimizer]` overrides settings of `[optimizer]` for that stage, `[stage2.validation]` of `[validation]`.
    """

    optimizer: Table = field(default_factory=dict)
    validation: Table = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class PretrainConfig(StageConfig):
    """History against next item within the batch, and masked words (Recformer, section 2.3.1)."""

    data: Strings = ()
    zero_shot: Strings = ()
    zero_shot_users: Positive = 1000
    batch_size: Annotated[int, Field(ge=2)] = 64
    temperature: AboveZero = 0.05
    mlm_weight: Weight = 0.1
    sequence_weight: Weight = 0.0
    drop: Share = 0.2
    drop_words: Probability = 0.1
    whole_words_cross_attributes: bool = False
    single_domain_batches: bool = False
    crop: bool = False
    held_out_items: Count = 0


@dataclass(frozen=True, config=STRICT)
class JointConfig(StageConfig):
    """Both towers trained, against the targets of the batch and random negatives (training.stages.joint)."""

    batch_size: Positive = 64
    negatives: Count = 512
    temperature: AboveZero = 0.07
    targets: Literal["all", "later_half"] = "all"
    examples_per_user: Positive = 1
    min_history: Count = 0
    crop: bool = False


@dataclass(frozen=True, config=STRICT)
class FineTuningConfig(StageConfig):
    """One of the two stages of fine-tuning (Recformer, Algorithm 1)."""

    batch_size: Positive = 16
    negatives: Count = 0
    temperature: AboveZero = 0.05
    freeze_words: bool = False
    crop: bool = False


@dataclass(frozen=True, config=STRICT)
class ResidualConfig(StageConfig):
    """Vectors learned per item in addition to its text (seqrec.models.residual)."""

    dim: Positive = 128
    history: Positive = 20
    batch_size: Positive = 256
    reverse: bool = True
    examples: Positive = 1_000_000
    encoded: Count = 0
    dropout: Share = 0.2
    temperature: AboveZero = 0.07


@dataclass(frozen=True, config=STRICT)
class SelfSupervisedConfig(StageConfig):
    """Whole sequences, for models with a pretraining loss (training.stages.self_supervised)."""

    batch_size: Positive = 128


@dataclass(frozen=True, config=STRICT)
class HybridConfig(StageConfig):
    """Co-occurrence, words and the dense model in one score (training.stages.hybrid)."""

    half_life_days: Weight | Literal["auto"] = "auto"
    settings_from: str = ""  # the checkpoint of a hybrid, whose settings the search tries first


@dataclass(frozen=True, config=STRICT)
class AdversarialConfig(StageConfig):
    """Users of several data sets in one space (training.stages.adversarial)."""

    data: Strings = ()
    batch_size: Positive = 128
    warmup_epochs: Count = 10
    confusion_weight: Weight = 1.0
    overlap_weight: Weight = 1.0


@dataclass(frozen=True, config=STRICT)
class SequenceConfig(StageConfig):
    """Whole sequences, for models with a loss of their own (training.stages.sequence)."""

    batch_size: Positive = 128


@dataclass(frozen=True, config=STRICT)
class TextConfig:
    """How items become text, for a model that starts from scratch. A checkpoint keeps its own."""

    attributes: Strings = ()
    max_attr_num: Positive = 3
    max_attr_length: Positive = 32
    vocab_size: Annotated[int, Field(ge=300)] = 4000


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    name: str = "recformer"
    start_from: str = ""
    start_required: bool = False
    settings: Table = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """Everything that a training run depends on, except the data. Stored with the run as config.toml."""

    stages: Strings = ("joint",)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    device: str = ""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    precision: Literal["", "float32", "bfloat16"] = ""
    sharding: Literal["none", "full"] = "none"
    save_minutes: Weight = 5.0
    data: SplitConfig = field(default_factory=SplitConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    stage1: FineTuningConfig = field(default_factory=FineTuningConfig)
    stage2: FineTuningConfig = field(default_factory=FineTuningConfig)
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    self_supervised: SelfSupervisedConfig = field(default_factory=SelfSupervisedConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        known = [entry.name for entry in fields(self) if isinstance(getattr(self, entry.name), StageConfig)]
        if not self.stages:
            raise InputError(f"name at least one; there are {', '.join(known)}", "stages")
        if "hybrid" in self.stages[:-1]:
            raise InputError("'hybrid' comes last: it combines what the stages before it trained", "stages")
        if "residual" in self.stages[:-1] and self.stages[-2:] != ("residual", "hybrid"):
            raise InputError("'residual' comes last, or before 'hybrid': it freezes the text model", "stages")
        for number, stage in enumerate(self.stages):
            if stage not in known:
                raise InputError(f"no stage {stage!r}{there_are(stage, known)}", "stages")
            if stage in self.stages[:number]:
                raise InputError(f"{stage!r} is listed twice", "stages")
            self.validation_of(stage)
            if stage != "hybrid" and not self.optimizer_of(stage).ends:
                raise InputError(
                    f"set at least one of max_epochs, max_steps, max_minutes: nothing would end stage {stage}",
                    "optimizer",
                )

    def optimizer_of(self, stage: str) -> OptimizerConfig:
        """[optimizer] with the overrides of the stage."""
        return _overridden(self.optimizer, getattr(self, stage).optimizer, f"{stage}.optimizer.")

    def validation_of(self, stage: str) -> ValidationConfig:
        """[validation] with the overrides of the stage."""
        return _overridden(self.validation, getattr(self, stage).validation, f"{stage}.validation.")


Common = TypeVar("Common", OptimizerConfig, ValidationConfig)


def _overridden(base: Common, overrides: Table, path: str) -> Common:
    return build(type(base), asdict(base) | dict(overrides), path)
