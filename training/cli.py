"""`seqrec train` and `seqrec runs`."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

from training.arguments import add_data, add_run, run_config
from training.engine import run
from training.engine import run_list as runs
from training.engine.distributed import rank
from training.engine.parallel import leave_processes


def train(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec train",
        description="Train a model on items and interactions, in the stages that the configuration names. Of every "
        "user something is kept for testing and for validation ([data]; the last item and the one before it). Writes a "
        "run directory: config.toml, run.json, metrics.jsonl, curves.png, checkpoint/. A run that was stopped goes on "
        "where it stood when the same command is given again. With several processes: torchrun --nproc-per-node N -m "
        "seqrec train ..., or accelerate launch.",
    )
    add_data(parser)
    add_run(parser)
    arguments = parser.parse_args(argv)
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("training").setLevel(logging.WARNING)  # one process tells
    try:
        fitted = run.train(
            run_config(arguments),
            arguments.items,
            arguments.interactions,
            arguments.out,
            arguments.on_error,
            arguments.overwrite,
        )
        if rank() == 0:
            print(
                f"{arguments.out}: {fitted.ended} after {fitted.steps} steps in {fitted.seconds:.0f} s; "
                f"validation NDCG@10 {fitted.best.ndcg:.4f} (all items) at step {fitted.best_step}"
            )
    finally:
        leave_processes()


def list_runs(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec runs",
        description="List training runs and compare them: the best validation result first, and the settings in which "
        "they differ. Results compare only where the data and the validation are the same.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="a run directory, or a folder with some, at any depth"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    found = runs.find_runs(arguments.folders)
    print(json.dumps(runs.as_json(found), ensure_ascii=False) if arguments.json else runs.text_table(found))
