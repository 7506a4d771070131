"""Options that several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.config.load import PRESETS, load_config, preset_path
from training.config.schema import RunConfig


def add_data(parser: argparse.ArgumentParser) -> None:
    """--items, --interactions, --on-error: what `training.data.dataset.read_dataset` is called with."""
    parser.add_argument("--items", type=Path, required=True, metavar="FILE", help="JSON Lines, .gz too")
    parser.add_argument(
        "--interactions",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV (.gz too) or Parquet: user_id, item_id, timestamp",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave broken lines, unknown items and items without text out, and count them; default: raise",
    )


def add_run(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--config or --preset (one of them where `required`), --set, --max-minutes, --out, --overwrite."""
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with the settings")
    source.add_argument("--preset", metavar="NAME", help=f"settings that come along: {presets}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it is there")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting, e.g. optimizer.learning_rate=5e-4; may be given several times",
    )
    parser.add_argument(
        "--max-minutes",
        type=float,
        metavar="M",
        help="end after M minutes; the learning rate has decayed by then. Results then depend on the machine's speed",
    )


def run_config(arguments: argparse.Namespace, before: Sequence[str] = (), after: Sequence[str] = ()) -> RunConfig:
    """What the options of `add_run` say, with a command's own overrides `before` and `after` the user's."""
    overrides = [*before, *arguments.overrides, *after]
    if arguments.max_minutes is not None:
        overrides.append(f"optimizer.max_minutes={arguments.max_minutes}")
    return load_config(arguments.config or preset_path(arguments.preset), overrides)
