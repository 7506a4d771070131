"""Settings that every stage of a training has: when it ends, how it is optimised, how it is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from seqrec.errors import InputError
from training.config.toml import Table


def check_at_least(table: str, config: object, **minima: int) -> None:
    """Raises InputError for a setting of `config`, the table of that name, below its minimum."""
    for name, minimum in minima.items():
        value = getattr(config, name)
        if not value >= minimum:
            raise InputError(f"{value} is below {minimum}", f"{table}.{name}".lstrip("."))


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    decay: Literal["linear", "cosine"] = "linear"
    clip_norm: float = 1.0
    chunk: int = 0
    gradient_checkpointing: bool = False
    max_epochs: int = 0
    max_steps: int = 0
    max_minutes: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("optimizer", self, weight_decay=0, chunk=0, max_epochs=0, max_steps=0, max_minutes=0)
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{getattr(self, name)} is not above 0", f"optimizer.{name}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"{self.warmup} is not a share from 0 to below 1", "optimizer.warmup")
        if self.decay not in ("linear", "cosine"):
            raise InputError(f"{self.decay!r} is not one of linear, cosine", "optimizer.decay")

    @property
    def ends(self) -> bool:
        return bool(self.max_epochs or self.max_steps or self.max_minutes)


@dataclass(frozen=True)
class ValidationConfig:
    checks: int = 10
    at_start: bool = False
    patience: int = 3
    users: int = 1000

    def __post_init__(self) -> None:
        check_at_least("validation", self, checks=1, patience=0, users=1)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What the table of any stage may hold beside its own settings: what is otherwise for it than for all stages.

    `[stage2.optimizer]` changes settings of `[optimizer]`, `[stage2.validation]` of `[validation]`.
    """

    optimizer: Table = field(default_factory=lambda: MappingProxyType({}))
    validation: Table = field(default_factory=lambda: MappingProxyType({}))
