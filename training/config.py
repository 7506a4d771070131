"""A training run's configuration: one TOML file, kept with the run. `presets/demo.toml` documents every setting."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from seqrec.errors import FileFormatError, InputError

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class TextConfig:
    """The item text of a model that begins here; one that continues a checkpoint of ours keeps its own."""

    attributes: tuple[str, ...] = ()
    max_attr_num: int = 3
    max_attr_length: int = 32
    vocab_size: int = 4000

    def __post_init__(self) -> None:
        _at_least("text", self, max_attr_num=1, max_attr_length=1, vocab_size=300)


@dataclass(frozen=True)
class ModelConfig:
    name: str = "recformer"
    start_from: str = ""
    settings: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class JointConfig:
    """The joint stage: both towers trained, batch targets and random negatives (MODELS.md)."""

    batch_size: int = 64
    negatives: int = 512
    temperature: float = 0.07
    targets: Literal["all", "later_half"] = "all"
    examples_per_user: int = 1
    min_history: int = 0

    def __post_init__(self) -> None:
        _at_least("joint", self, batch_size=1, negatives=0, examples_per_user=1, min_history=0)
        if not self.temperature > 0:
            raise InputError(f"{self.temperature} is not above 0", "joint.temperature")
        if self.targets not in ("all", "later_half"):
            raise InputError(f"{self.targets!r} is not one of all, later_half", "joint.targets")


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    decay: Literal["linear", "cosine"] = "linear"
    clip_norm: float = 1.0
    max_epochs: int = 0
    max_steps: int = 0
    max_minutes: float = 0.0

    def __post_init__(self) -> None:
        _at_least("optimizer", self, weight_decay=0, max_epochs=0, max_steps=0, max_minutes=0)
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{getattr(self, name)} is not above 0", f"optimizer.{name}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"{self.warmup} is not a share from 0 to below 1", "optimizer.warmup")
        if self.decay not in ("linear", "cosine"):
            raise InputError(f"{self.decay!r} is not one of linear, cosine", "optimizer.decay")


@dataclass(frozen=True)
class ValidationConfig:
    checks: int = 10
    patience: int = 3
    users: int = 1000

    def __post_init__(self) -> None:
        _at_least("validation", self, checks=1, patience=0, users=1)


@dataclass(frozen=True)
class RunConfig:
    seed: int = 1
    device: str = ""
    threads: int = 0
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        _at_least("", self, seed=0, threads=0)
        limits = self.optimizer
        if not (limits.max_epochs or limits.max_steps or limits.max_minutes):
            raise InputError("set at least one of max_epochs, max_steps, max_minutes: nothing would end the training")

    def to_toml(self) -> str:
        """Every setting; what `load_config` reads back as an equal configuration."""
        tables = {name: value for name, value in _plain(self).items() if isinstance(value, dict)}
        lines = [f"{name} = {_toml(value)}" for name, value in _plain(self).items() if name not in tables]
        for table, settings in tables.items():
            nested = {name: value for name, value in settings.items() if isinstance(value, dict)}
            lines += ["", f"[{table}]"]
            lines += [f"{name} = {_toml(value)}" for name, value in settings.items() if name not in nested]
            for name, inner in nested.items():
                lines += ["", f"[{table}.{name}]", *(f"{key} = {_toml(value)}" for key, value in inner.items())]
        return "\n".join(lines) + "\n"


def preset_path(name: str) -> Path:
    """The file of a preset. Raises InputError for a name that is none."""
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if name not in names:
        raise InputError(f"no preset {name!r}; there are {', '.join(names)}", "preset")
    return PRESETS / f"{name}.toml"


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a TOML file; each override is `key=value`, such as `optimizer.max_steps=100`, the value in TOML.

    Raises FileFormatError for a file that is no TOML, InputError naming the key that is unknown or of a wrong type.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(path, None, "no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(path, None, f"not TOML: {error}") from None
    for override in overrides:
        _apply(table, override)
    config: RunConfig = _build(RunConfig, table, "")
    return config


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"{override!r} is not key=value, such as optimizer.max_steps=100", "--set")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *tables, name = key.strip().split(".")
    for part in tables:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"{part!r} of {key!r} is a setting, not a table", "--set")
    table[name] = value


def _build(kind: Any, table: object, path: str) -> Any:
    if not isinstance(table, dict):
        raise InputError(f"a table is needed, not {table!r}", path)
    known = {entry.name for entry in fields(kind)}
    for name in table:
        if name not in known:
            raise InputError(f"unknown setting; there are {', '.join(sorted(known))}", f"{path}{name}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in table.items()})


def _value(hint: Any, value: object, path: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, f"{path}.")
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(f"{value!r} is not one of {', '.join(map(repr, get_args(hint)))}", path)
        return value
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, str) and type(value) is hint:
        return value
    if hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    if hint == Mapping[str, int | float]:
        if isinstance(value, dict) and all(type(part) in (int, float) for part in value.values()):
            return MappingProxyType(value)
        raise InputError(f"a table of numbers is needed, not {value!r}", path)
    wanted = {int: "a whole number", float: "a number", str: "a string"}.get(hint, "a list of strings")
    raise InputError(f"{wanted} is needed, not {value!r}", path)


def _at_least(table: str, config: object, **minima: int) -> None:
    for name, minimum in minima.items():
        value = getattr(config, name)
        if not value >= minimum:
            raise InputError(f"{value} is below {minimum}", f"{table}.{name}".lstrip("."))


def _plain(config: RunConfig) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        plain[entry.name] = dict(vars(value)) if is_dataclass(value) else value
    plain["model"]["settings"] = dict(plain["model"]["settings"])
    return plain


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=True) if isinstance(value, str) else repr(value)
