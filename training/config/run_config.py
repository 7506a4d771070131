"""A training run's configuration: one TOML file, kept with the run. `presets/demo.toml` documents every setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from seqrec.errors import InputError
from training.config import hardware, toml
from training.config.settings import OptimizerConfig, StageConfig, ValidationConfig, check_at_least
from training.config.stage_config import (
    AdversarialConfig,
    FineTuningConfig,
    JointConfig,
    PretrainConfig,
    ResidualConfig,
    SelfSupervisedConfig,
    SequenceConfig,
)
from training.config.toml import Table
from training.data.splits import SplitConfig

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class TextConfig:
    """The item text of a model that begins here; one that continues a checkpoint of ours keeps its own."""

    attributes: tuple[str, ...] = ()
    max_attr_num: int = 3
    max_attr_length: int = 32
    vocab_size: int = 4000

    def __post_init__(self) -> None:
        check_at_least("text", self, max_attr_num=1, max_attr_length=1, vocab_size=300)


@dataclass(frozen=True)
class ModelConfig:
    name: str = "recformer"
    start_from: str = ""
    settings: Table = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class RunConfig:
    stages: tuple[str, ...] = ("joint",)
    seed: int = 1
    device: str = ""
    threads: int = 0
    precision: Literal["", "float32", "bfloat16"] = ""
    sharding: Literal["none", "full"] = "none"
    save_minutes: float = 5.0
    data: SplitConfig = field(default_factory=SplitConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    stage1: FineTuningConfig = field(default_factory=FineTuningConfig)
    stage2: FineTuningConfig = field(default_factory=FineTuningConfig)
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    hybrid: StageConfig = field(default_factory=StageConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    self_supervised: SelfSupervisedConfig = field(default_factory=SelfSupervisedConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        check_at_least("", self, seed=0, threads=0, save_minutes=0)
        known = [entry.name for entry in fields(self) if isinstance(getattr(self, entry.name), StageConfig)]
        if not self.stages:
            raise InputError(f"name at least one; there are {', '.join(known)}", "stages")
        if "hybrid" in self.stages[:-1]:
            raise InputError("'hybrid' comes last: it joins what the stages before it trained", "stages")
        if "residual" in self.stages[:-1] and self.stages[-2:] != ("residual", "hybrid"):
            raise InputError("'residual' comes last, or before 'hybrid': it freezes the text model", "stages")
        for number, stage in enumerate(self.stages):
            if stage not in known:
                raise InputError(f"no stage {stage!r}; there are {', '.join(known)}", "stages")
            if stage in self.stages[:number]:
                raise InputError(f"{stage!r} is there twice", "stages")
            self.validation_of(stage)
            if stage != "hybrid" and not self.optimizer_of(stage).ends:
                raise InputError(
                    f"set at least one of max_epochs, max_steps, max_minutes: nothing would end stage {stage}",
                    "optimizer",
                )

    def optimizer_of(self, stage: str) -> OptimizerConfig:
        """[optimizer] with what the stage's own table changes of it."""
        return _changed(self.optimizer, getattr(self, stage).optimizer, f"{stage}.optimizer.")

    def validation_of(self, stage: str) -> ValidationConfig:
        return _changed(self.validation, getattr(self, stage).validation, f"{stage}.validation.")

    def to_toml(self) -> str:
        """Every setting; what `load_config` reads back as an equal configuration."""
        return toml.dump(self)


Common = TypeVar("Common", OptimizerConfig, ValidationConfig)


def _changed(base: Common, changes: toml.Table, path: str) -> Common:
    changed: Common = toml.build(type(base), toml.plain(base) | dict(changes), path)
    return changed


def preset_path(name: str) -> Path:
    """The file of a preset. Raises InputError for a name that is none."""
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if name not in names:
        raise InputError(f"no preset {name!r}; there are {', '.join(names)}", "preset")
    return PRESETS / f"{name}.toml"


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a TOML file; each override is `key=value`, such as `optimizer.max_steps=100`, the value in TOML.

    Tables [on.cpu] and [on.gpu] change settings by the hardware found; overrides come after them.

    Raises FileFormatError for a file that is no TOML, InputError naming the key that is unknown or of a wrong type.
    """
    table = hardware.resolve(toml.read(path))
    for override in overrides:
        toml.override(table, override)
    config: RunConfig = toml.build(RunConfig, table)
    return config
