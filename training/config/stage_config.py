"""Settings of the stages; each is documented in the preset that has the stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seqrec.errors import InputError
from training.config.settings import StageConfig, check_at_least


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """History against next item within the batch, and masked words (Recformer, section 2.3.1)."""

    data: tuple[str, ...] = ()
    zero_shot: tuple[str, ...] = ()
    zero_shot_users: int = 1000
    batch_size: int = 64
    temperature: float = 0.05
    mlm_weight: float = 0.1
    sequence_weight: float = 0.0
    drop: float = 0.2
    drop_words: float = 0.1
    words_across_borders: bool = False
    one_domain_a_batch: bool = False
    crop: bool = False
    held_out_items: int = 0

    def __post_init__(self) -> None:
        check_at_least(
            "pretrain", self, zero_shot_users=1, batch_size=2, mlm_weight=0, sequence_weight=0, held_out_items=0
        )
        if not 0 <= self.drop < 1:
            raise InputError(f"{self.drop} is not a share from 0 to below 1", "pretrain.drop")
        if not 0 <= self.drop_words <= 1:
            raise InputError(f"{self.drop_words} is not a share from 0 to 1", "pretrain.drop_words")
        _above_zero("pretrain", self)


@dataclass(frozen=True)
class JointConfig(StageConfig):
    """The joint stage: both towers trained, batch targets and random negatives (MODELS.md)."""

    batch_size: int = 64
    negatives: int = 512
    temperature: float = 0.07
    targets: Literal["all", "later_half"] = "all"
    examples_per_user: int = 1
    min_history: int = 0
    crop: bool = False

    def __post_init__(self) -> None:
        check_at_least("joint", self, batch_size=1, negatives=0, examples_per_user=1, min_history=0)
        _above_zero("joint", self)
        if self.targets not in ("all", "later_half"):
            raise InputError(f"{self.targets!r} is not one of all, later_half", "joint.targets")


@dataclass(frozen=True)
class FineTuningConfig(StageConfig):
    """One of the two stages of fine-tuning (Recformer, Algorithm 1)."""

    batch_size: int = 16
    negatives: int = 0
    temperature: float = 0.05
    freeze_words: bool = False
    crop: bool = False

    def __post_init__(self) -> None:
        check_at_least("stage1/stage2", self, batch_size=1, negatives=0)
        _above_zero("stage1/stage2", self)


@dataclass(frozen=True)
class ResidualConfig(StageConfig):
    """What is learnt of each item beside its text (seqrec.models.residual)."""

    dim: int = 128
    history: int = 20
    batch_size: int = 256
    reverse: bool = True
    examples: int = 1_000_000
    encoded: int = 0
    dropout: float = 0.2
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_at_least("residual", self, dim=1, history=1, batch_size=1, examples=1, encoded=0, dropout=0)
        _above_zero("residual", self)
        if not self.dropout < 1:
            raise InputError(f"{self.dropout} is not a share from 0 to below 1", "residual.dropout")


@dataclass(frozen=True)
class SelfSupervisedConfig(StageConfig):
    """Whole sequences, for models that pretrain themselves (training.stages.self_supervised)."""

    batch_size: int = 128

    def __post_init__(self) -> None:
        check_at_least("self_supervised", self, batch_size=1)


@dataclass(frozen=True)
class AdversarialConfig(StageConfig):
    """Users of several data sets, represented alike (training.stages.adversarial)."""

    data: tuple[str, ...] = ()
    batch_size: int = 128
    alone_epochs: int = 10
    confusion_weight: float = 1.0
    overlap_weight: float = 1.0

    def __post_init__(self) -> None:
        check_at_least("adversarial", self, batch_size=1, alone_epochs=0, confusion_weight=0, overlap_weight=0)


@dataclass(frozen=True)
class SequenceConfig(StageConfig):
    """Whole sequences, for models that bring their own loss (training.stages.sequence)."""

    batch_size: int = 128

    def __post_init__(self) -> None:
        check_at_least("sequence", self, batch_size=1)


def _above_zero(table: str, config: PretrainConfig | JointConfig | FineTuningConfig | ResidualConfig) -> None:
    if not config.temperature > 0:
        raise InputError(f"{config.temperature} is not above 0", f"{table}.temperature")
