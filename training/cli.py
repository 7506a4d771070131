"""`seqrec train`, `seqrec pretrain` and `seqrec runs`."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from seqrec.runtime.arguments import Parser
from seqrec.shop.project import find_project
from training.config.arguments import add_data, add_run, run_config
from training.config.schema import RunConfig
from training.distributed import leave_processes, rank
from training.engine import run
from training.engine import run_list as runs
from training.engine.loop import StageResult
from training.evaluation.evaluation_set import read_folder
from training.hybrid.recipe import choose_recipe
from training.stages.start import starting_point

log = logging.getLogger(__name__)


def train(argv: list[str]) -> None:
    parser = Parser(
        "seqrec train",
        description="Train a model on items and interactions in the stages of the configuration. Part of every user's "
        "history is held out for validation and test ([data]; by default the last two items). Writes a run directory: "
        "config.toml, run.json, metrics.jsonl, curves.png, checkpoint/. The same command resumes a stopped run. With "
        "several processes: torchrun --nproc-per-node N -m seqrec train ..., or accelerate launch.",
    )
    add_data(parser)
    add_run(parser, required=False)
    arguments = parser.parse_args(argv)
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("training").setLevel(logging.WARNING)  # only rank 0 logs
    try:
        fitted = run.train(
            _config(arguments),
            arguments.items,
            arguments.interactions,
            arguments.out,
            arguments.on_error,
            arguments.overwrite,
        )
        if rank() == 0:
            _print(arguments, fitted, "all items")
    finally:
        leave_processes()


def _config(arguments: argparse.Namespace) -> RunConfig:
    """Of the command's options and, where they name neither, of shop.toml; without --config and --preset the default
    recipe, or what a run begun by it has."""
    project = find_project()
    if project is not None and arguments.config is None:
        preset, settings = project.training()
        arguments.preset = arguments.preset or preset or None
        arguments.overrides = [*settings, *arguments.overrides]
    if arguments.config is not None or arguments.preset is not None:
        return run_config(arguments)
    recipe = choose_recipe(arguments.items, arguments.interactions, arguments.on_error, arguments.overrides)
    if rank() == 0:
        for reason in recipe.reasons:
            log.info("%s", reason)
    arguments.preset = recipe.preset
    return run_config(arguments, before=recipe.overrides)


def pretrain(argv: Sequence[str]) -> None:
    parser = Parser(
        "seqrec pretrain",
        description="Pretrain a model on several data sets, as a start for others: `seqrec train --set "
        "model.start_from=DIR/checkpoint`. A data set is a folder with items.jsonl and interactions.csv (also .gz) or "
        ".parquet; items are held out as in training. Writes a run directory like `seqrec train`.",
    )
    parser.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="a data set; repeatable"
    )
    parser.add_argument(
        "--zero-shot",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a data set for monitoring only: NDCG@10 on its test items at each check, in metrics.jsonl; repeatable",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave out and count broken lines, unknown items and items without text; default: raise",
    )
    add_run(parser)
    arguments = parser.parse_args(argv)
    folder_overrides = [
        f"pretrain.data={_toml_list(arguments.data)}",
        f"pretrain.zero_shot={_toml_list(arguments.zero_shot)}",
    ]
    config = run_config(arguments, before=['stages=["pretrain"]'], after=folder_overrides)
    start = starting_point(config)
    datasets = [read_folder(folder, start.recipe, arguments.on_error, config.data) for folder in arguments.data]
    fitted = run.train_on(start, datasets, arguments.out, arguments.overwrite)
    if rank() == 0:
        _print(arguments, fitted, f"mean of {len(datasets)} data sets")


def list_runs(argv: list[str]) -> None:
    parser = Parser(
        "seqrec runs",
        description="List training runs, the best validation result first, with the settings in which they differ. "
        "Results can only be compared for the same data and validation.",
    )
    project = find_project()
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+" if project is None else "*",
        default=None if project is None else [project.home],
        metavar="DIR",
        help="a run directory, or a folder that contains some; default: those of shop.toml",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    found = runs.find_runs(arguments.folders)
    print(json.dumps(runs.as_json(found), ensure_ascii=False) if arguments.json else runs.text_table(found))


def _print(arguments: argparse.Namespace, fitted: StageResult, of: str) -> None:
    ndcg = fitted.best.ndcg_expected
    if arguments.json:
        facts = {"out": str(arguments.out), "ended": fitted.ended, "steps": fitted.steps, "seconds": fitted.seconds}
        print(json.dumps({**facts, "validation_ndcg@10": ndcg, "best_step": fitted.best_step}))
        return
    print(
        f"{arguments.out}: {fitted.ended} after {fitted.steps} steps in {fitted.seconds:.0f} s; validation NDCG@10 "
        f"{ndcg:.4f} ({of}) at step {fitted.best_step}"
    )


def _toml_list(folders: Sequence[Path]) -> str:
    return json.dumps([str(folder) for folder in folders])
