"""`seqrec train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from training import run
from training.arguments import add_data
from training.config import PRESETS, load_config, preset_path


def train(argv: list[str]) -> None:
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    parser = argparse.ArgumentParser(
        "seqrec train",
        description="Train a model on items and interactions. The last item of a user is kept for testing, the one "
        "before it for validation. Writes a run directory: config.toml, run.json, metrics.jsonl, checkpoint/.",
    )
    add_data(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with the settings")
    source.add_argument("--preset", metavar="NAME", help=f"settings that come along: {presets}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it is there, once training is done")
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
    arguments = parser.parse_args(argv)
    overrides = list(arguments.overrides)
    if arguments.max_minutes is not None:
        overrides.append(f"optimizer.max_minutes={arguments.max_minutes}")
    config = load_config(arguments.config or preset_path(arguments.preset), overrides)
    fitted = run.train(
        config, arguments.items, arguments.interactions, arguments.out, arguments.on_error, arguments.overwrite
    )
    print(
        f"{arguments.out}: {fitted.ended} after {fitted.steps} steps in {fitted.seconds:.0f} s; "
        f"validation NDCG@10 {fitted.best.ndcg:.4f} (all items) at step {fitted.best_step}"
    )
