"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from seqrec.shop.project import find_project
from training.config.load import PRESETS, load_config, preset_path
from training.config.schema import RunConfig


def add_data(parser: argparse.ArgumentParser) -> None:
    """--items, --interactions, --on-error: the arguments of `training.data.dataset.read_dataset`.

    In a folder with a shop.toml, they are by default what `seqrec up` imported.
    """
    project = find_project()
    parser.add_argument(
        "--items",
        type=Path,
        required=project is None,
        default=None if project is None else project.items,
        metavar="FILE",
        help="JSON Lines, also .gz; default: the imported items of shop.toml",
    )
    parser.add_argument(
        "--interactions",
        type=Path,
        required=project is None,
        default=None if project is None else project.interactions,
        metavar="FILE",
        help="CSV (also .gz) or Parquet: user_id, item_id, timestamp; default: the imported events of shop.toml",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise" if project is None else "skip",
        help="skip: leave out and count broken lines, unknown items and items without text; default: raise, and skip "
        "with shop.toml, whose import has counted them",
    )


def add_run(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--config or --preset (one of them where `required`), --set, --max-minutes, --out, --overwrite."""
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with the settings")
    source.add_argument("--preset", metavar="NAME", help=f"built-in settings: {presets}")
    project = None if required else find_project()
    parser.add_argument(
        "--out",
        type=Path,
        required=project is None,
        default=None if project is None else project.run,
        metavar="DIR",
        help="the run directory to write" + ("" if required else "; default: that of shop.toml"),
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting, e.g. optimizer.learning_rate=5e-4; repeatable",
    )
    parser.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help="end after M minutes; the learning rate has decayed by then. Quality then depends on the machine's speed",
    )


def run_config(arguments: argparse.Namespace, before: Sequence[str] = (), after: Sequence[str] = ()) -> RunConfig:
    """The configuration from the options of `add_run`, with overrides `before` and `after` those of the user."""
    overrides = [*before, *arguments.overrides, *after]
    if arguments.max_minutes is not None:
        overrides.append(f"optimizer.max_minutes={arguments.max_minutes}")
    return load_config(arguments.config or preset_path(arguments.preset), overrides)
