"""`seqrec pretrain`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from training.arguments import add_run, run_config
from training.engine import run
from training.engine.distributed import rank
from training.evaluation.evaluation_set import read_folder
from training.stages.start import starting_point


def pretrain(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec pretrain",
        description="Train a model on several data sets at once, to start others from: `seqrec train --set "
        "model.start_from=DIR/checkpoint`. A data set is a folder with items.jsonl (.gz too) and interactions.csv (.gz "
        "too) or .parquet; its last items are held out as in training. Writes a run directory, as `seqrec train` does.",
    )
    parser.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="a data set; give it once for each"
    )
    parser.add_argument(
        "--zero-shot",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a data set that is not trained on and decides nothing: NDCG@10 on its test items at each check, in "
        "metrics.jsonl; may be given several times",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave broken lines, unknown items and items without text out, and count them; default: raise",
    )
    add_run(parser)
    arguments = parser.parse_args(argv)
    folders_given = [f"pretrain.data={_listed(arguments.data)}", f"pretrain.zero_shot={_listed(arguments.zero_shot)}"]
    config = run_config(arguments, before=['stages=["pretrain"]'], after=folders_given)
    start = starting_point(config)
    datasets = [read_folder(folder, start.recipe, arguments.on_error, config.data) for folder in arguments.data]
    fitted = run.train_on(start, datasets, arguments.out, arguments.overwrite)
    if rank() == 0:
        print(
            f"{arguments.out}: {fitted.ended} after {fitted.steps} steps in {fitted.seconds:.0f} s; validation NDCG@10 "
            f"{fitted.best.ndcg:.4f} (mean of {len(datasets)} data sets) at step {fitted.best_step}"
        )


def _listed(folders: Sequence[Path]) -> str:
    return json.dumps([str(folder) for folder in folders])
