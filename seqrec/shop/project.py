"""The project file shop.toml: which files a shop has, which column is what, and how to train, evaluate and serve.

`seqrec init` writes it; every command finds it in the current directory. Relative paths in it start from its folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from seqrec.data.durations import parse_duration
from seqrec.data.encoding import read_text
from seqrec.errors import FileFormatError, InputError, did_you_mean

FILE = "shop.toml"
FORMAT = 1

Kind = Literal["id", "text", "list", "number", "stored", "available", "drop"]
OnError = Literal["raise", "skip"]


def seconds_of(value: object) -> object:
    """The seconds of "30min", "24h", "10 s", "7d"; numbers are seconds. Raises ValueError."""
    if isinstance(value, str):
        seconds = parse_duration(value)
        if seconds is None:
            raise ValueError(f'{value!r} is not a duration, such as "30min", "24h" or "7d"')
        return seconds
    return value


Duration = Annotated[float, BeforeValidator(seconds_of), Field(gt=0)]
"""Seconds, written with a unit."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ColumnConfig(Section):
    """`as`: what the column is. `separator`: of a list in one field, or several. `decimal`: "," or "." of numbers.
    `yes`: the values that mean available; without it, the usual words and numbers above 0. Of several columns of kind
    "available" all must say so."""

    kind: Kind = Field(alias="as")
    separator: str | tuple[str, ...] | None = None
    decimal: Literal[".", ","] | None = None
    yes: tuple[str, ...] | None = None


def _column(value: object) -> object:
    return {"as": value} if isinstance(value, str) else value


Column = Annotated[ColumnConfig, BeforeValidator(_column)]


class SourceConfig(Section):
    """Where a table is, and how to read it; what is not given is found out. Of JSON and Parquet, `rows` is the list of
    each record that has a row for each of its elements, such as the lines of an order; fields of nested objects have
    names with dots. `records`: which list of a JSON document is read."""

    path: str
    format: str | None = None
    encoding: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Field(max_length=1)] | None = None
    header: bool | None = None
    sheet: str | None = None
    query: str | None = None
    records: str | None = None
    rows: str | None = None
    on_error: OnError = "raise"

    @property
    def location(self) -> str:
        """The path with environment variables filled in, so that a password need not be in the file."""
        return os.path.expandvars(self.path)


class ItemsConfig(SourceConfig):
    """`columns`: the models read those of kind text and list, in this order. `html`: strip tags and entities.
    `duplicates`: which row of an id counts; with "merge" the first value of each column, and an item is available if
    one of its rows is, as where products have a row for each variant."""

    columns: dict[str, Column]
    html: bool = True
    duplicates: Literal["first", "last", "merge"] = "last"

    @model_validator(mode="after")
    def _one_id(self) -> ItemsConfig:
        ids = [name for name, column in self.columns.items() if column.kind == "id"]
        if len(ids) != 1:
            raise ValueError(f'exactly one column is "id", not {len(ids)}: {", ".join(ids) or "none"}')
        return self

    @property
    def id(self) -> str:
        return next(name for name, column in self.columns.items() if column.kind == "id")

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that models read, in order."""
        return tuple(name for name, column in self.columns.items() if column.kind in ("text", "list"))


LOW_VALUE = "low_value"
"""The type of events that are negative because of their value."""


class EventType(Section):
    """What an event is worth. `history`: it is part of the user's history, with this `weight`. `negative`: the user
    does not want the item. `ignore`: it counts nowhere."""

    history: bool = True
    weight: Annotated[float, Field(ge=0)] = 1.0
    negative: bool = False
    ignore: bool = False

    @property
    def counts(self) -> bool:
        return self.history and self.weight > 0 and not self.negative and not self.ignore


class EventsConfig(SourceConfig):
    """`item_numbers`: 00123, 123 and 123.0 are one item, spelled as in the items. `time_format`: s, ms, us, ns since
    1970; order (a running number); excel (days since 1900); iso; datetime (typed columns); dayfirst or monthfirst (any
    spelling); or a strptime format. `zone`: of times without one. `value` and `min_value`: events of a lower value are
    `low_value`. `item`: a column, or several of which the first that is filled counts. `nobody`: values of `user` that
    name nobody, such as 0 for guests. `session`: where `user` is empty, the user of the session acted, or the session
    itself. `repeats`: the same user and item again: keep all, one a session, the first, or the last; identical events
    are always one."""

    user: str | None = None
    nobody: tuple[str, ...] = ()
    item: str | Annotated[tuple[str, ...], Field(min_length=1)]
    item_numbers: bool = False
    time: str | None = None
    time_format: str = "order"
    zone: str = "UTC"
    type: str | None = None
    types: dict[str, EventType] = Field(default_factory=dict)
    value: str | None = None
    min_value: float | None = None
    low_value: Literal["ignore", "negative"] = "ignore"
    session: str | None = None
    session_gap: Duration = 1800.0
    repeats: Literal["keep", "session", "first", "last"] = "keep"

    @property
    def item_columns(self) -> tuple[str, ...]:
        return (self.item,) if isinstance(self.item, str) else self.item

    @model_validator(mode="after")
    def _somebody(self) -> EventsConfig:
        if self.user is None and self.session is None:
            raise ValueError("user or session is needed: the column that says who acted")
        if self.time is None and self.time_format != "order":
            raise ValueError('time is needed: the column of the event\'s time (without times: time_format = "order")')
        return self


class TrainConfig(Section):
    """`preset` "": chosen by the data. `settings`: of the training, as in its TOML files."""

    preset: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)


class EvaluateConfig(Section):
    split: Literal["leave-one-out", "time", "last-basket"] = "leave-one-out"
    basket_gap: Annotated[float, Field(ge=0)] = 0.0
    show_users: Annotated[int, Field(ge=0)] = 5


class ServeConfig(BaseModel):
    """`example`: a history to try. All others are settings of the service by their lower-case names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    example: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.__pydantic_extra__ or {}


class RetrainConfig(Section):
    """`every`: how often the service starts `seqrec retrain`, in seconds; None: never."""

    every: Duration | None = None


class ShopConfig(Section):
    format: Literal[1]
    home: str = "var"
    items: ItemsConfig
    events: EventsConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    retrain: RetrainConfig = RetrainConfig()


@dataclass(frozen=True)
class Project:
    """A project file that was read. `base`: the folder of relative paths."""

    path: Path
    config: ShopConfig

    @property
    def base(self) -> Path:
        return self.path.absolute().parent

    @property
    def home(self) -> Path:
        """SEQREC_HOME, else `home` of the file."""
        own = os.environ.get("SEQREC_HOME")
        if own:
            return Path(own)
        home = self.base / self.config.home
        return Path(os.path.relpath(home)) if home.is_relative_to(Path.cwd()) else Path(os.path.normpath(home))

    @property
    def items(self) -> Path:
        """The imported items."""
        return self.home / "data" / "items.jsonl"

    @property
    def interactions(self) -> Path:
        """The imported events."""
        return self.home / "data" / "interactions.parquet"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def checkpoint(self) -> Path:
        return self.home / "checkpoint"

    def training(self) -> tuple[str, list[str]]:
        """The preset ("": chosen by the data) and the settings as KEY=VALUE; texts are those of [items.columns]."""
        train, texts = self.config.train, self.config.items.texts
        settings = dict(flat(train.settings))
        if texts:
            settings.setdefault("text.attributes", list(texts))
        if self.config.evaluate.split != "leave-one-out":
            settings.setdefault("data.split", self.config.evaluate.split)
            settings.setdefault("data.basket_gap", self.config.evaluate.basket_gap)
        return train.preset, [f"{name}={toml_value(value)}" for name, value in settings.items()]

    def train_options(self) -> list[str]:
        """The same as options of `seqrec train`."""
        preset, settings = self.training()
        named = ["--preset", preset] if preset else []
        return [*named, *(part for setting in settings for part in ("--set", setting))]

    def event_types(self) -> list[str]:
        """What makes the service treat events as training does, as arguments of `seqrec events types`."""
        config = self.config.events
        types = {name: one for name, one in config.types.items() if one.negative or (one.counts and one.weight != 1)}
        found = [f"{name}={'negative' if one.negative else one.weight}" for name, one in types.items()]
        low = [f"{LOW_VALUE}=negative"] if config.low_value == "negative" else []
        return [*found, *low, "--session-gap", self._session_gap()]

    def _session_gap(self) -> str:
        config = self.config.events
        if config.repeats == "session" and config.time_format != "order":
            return f"{config.session_gap!r}s"
        return "user" if config.repeats in ("session", "first") else "none"

    def evaluate_options(self) -> list[str]:
        config = self.config.evaluate
        if config.split == "leave-one-out":
            return []
        gap = ["--basket-gap", str(config.basket_gap)] if config.split == "last-basket" else []
        return ["--split-by", config.split, *gap]

    def explained(self, error: InputError) -> InputError:
        """An error of a setting of the service, of training or of [events], with its line if the file has it."""
        field = error.field or ""
        name = field.removeprefix("SEQREC_").lower()
        if name in self.config.serve.settings:
            place = ["serve", name]
        elif field in ("events.zone", "events.time_format"):
            place = field.split(".")
        elif field == "preset" and self.config.train.preset:
            place = ["train", "preset"]
        elif field in dict(flat(self.config.train.settings)):
            place = ["train", "settings"]
        else:
            return error
        shown = f"train.settings.{field}" if place[1] == "settings" else ".".join(place)
        return FileFormatError(self.path, _line_of(read_text(self.path), place), f"{shown}: {error.reason}")

    def set_environment(self) -> None:
        """The service's settings from [serve] and [retrain], where the environment does not have them."""
        os.environ.setdefault("SEQREC_HOME", str(self.home))
        for name, value in self.config.serve.settings.items():
            written = str(value).lower() if isinstance(value, bool) else str(value)
            os.environ.setdefault(f"SEQREC_{name.upper()}", written)
        if self.config.retrain.every is not None:
            os.environ.setdefault("SEQREC_RETRAIN_EVERY", f"{self.config.retrain.every:.0f}s")


def find_project(folder: Path = Path()) -> Project | None:
    """The project of a folder, by default the current one. Raises FileFormatError for a broken file."""
    path = folder / FILE
    return read_project(path) if path.is_file() else None


def use_project() -> None:
    """Settings of the service from the project of the current directory, where the environment does not have them."""
    project = find_project()
    if project is not None:
        project.set_environment()


def read_project(path: Path) -> Project:
    """Raises FileFormatError, which names the line and the key."""
    if path.is_dir():
        path = path / FILE
    if not path.exists():
        raise FileFormatError(path, None, "no such file; `seqrec init --items FILE --events FILE` writes one")
    text = read_text(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise FileFormatError(path, int(line[1]) if line else None, f"not TOML: {error}") from None
    if table.get("format") != FORMAT:
        reason = f"format is {table.get('format')!r}; this version of seqrec reads format = {FORMAT}"
        raise FileFormatError(path, _line_of(text, ("format",)), reason)
    try:
        return Project(path, ShopConfig.model_validate(table))
    except ValidationError as error:
        # A misspelled key is unknown, and another is missing: the former is the cause.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        loc = tuple(str(part) for part in first["loc"])
        key = ".".join(loc)
        raise FileFormatError(path, _line_of(text, loc), f"{key}: {_reason(first)}") from None


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return values


def toml_value(value: Any) -> str:
    """A string, number, truth value or list as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(part) for part in value)}]"
    return toml_string(str(value))


def toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def toml_key(name: str) -> str:
    bare = name.isascii() and name and all(letter.isalnum() or letter in "-_" for letter in name)
    return name if bare else toml_string(name)


_SECTIONS = (ShopConfig, ItemsConfig, EventsConfig, EventType, TrainConfig, EvaluateConfig, RetrainConfig)
_SETTINGS = sorted({name for section in _SECTIONS for name in section.model_fields})


def _reason(error: Any) -> str:
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"no such setting{did_you_mean(str(error['loc'][-1]), _SETTINGS)}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"a table such as {{ weight = 0.5 }} or a section is needed, not {str(value)[:100]!r}"
    if kind == "missing":
        return "this setting is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if kind == "value_error" else f"{message}, not {str(value)[:100]!r}"


def _line_of(text: str, loc: Sequence[str]) -> int | None:
    """The line of a key, or of the nearest table or key around it."""
    best: tuple[int, int] = (0, 0)
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        header = re.match(r"\[([^\[\]]+)\]\s*(?:#.*)?$", content)
        if header:
            table = _keys(header[1])
            path = table
        else:
            key = re.match(r"""((?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w.-]+)(?:\s*\.\s*(?:"[^"]*"|[\w-]+))*)\s*=""", content)
            if not key:
                continue
            path = [*table, *_keys(key[1])]
        if path == list(loc[: len(path)]) and len(path) > best[0]:
            best = (len(path), number)
    return best[1] or None


def _keys(dotted: str) -> list[str]:
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([\w-]+)', dotted)
    return ["".join(parts) for parts in found]


def require_project(path: Path | None) -> Project:
    """The named project, or that of the current directory. Raises InputError if there is none."""
    if path is not None:
        return read_project(path)
    found = find_project()
    if found is None:
        raise InputError(f"there is no {FILE} here; `seqrec init --items FILE --events FILE` writes one")
    return found
