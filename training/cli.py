"""`seqrec train` and `seqrec evaluate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import get_args

from seqrec.encoder import load_model
from seqrec.files import write_text
from seqrec.progress import StageBars
from training import report, run
from training.config import PRESETS, load_config, preset_path
from training.data import Split, read_dataset
from training.evaluation import EncodedItems, top_k
from training.evaluation import evaluate as measure


def train(argv: list[str]) -> None:
    presets = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    parser = argparse.ArgumentParser(
        "seqrec train",
        description="Train a model on items and interactions. The last item of a user is kept for testing, the one "
        "before it for validation. Writes a run directory: config.toml, run.json, metrics.jsonl, checkpoint/.",
    )
    _add_data(parser)
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


def evaluate(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec evaluate",
        description="Rank the whole catalogue for the held-out item of every user: NDCG@10, Recall@10 and MRR, with "
        "and without the history's items as candidates, beside popularity, the last item and item-kNN.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="the checkpoint directory")
    _add_data(parser)
    parser.add_argument("--split", choices=get_args(Split), default="test", help="default: test")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to FILE as well")
    parser.add_argument("--show-users", type=int, default=0, metavar="N", help="also recommend for N users, readably")
    arguments = parser.parse_args(argv)
    run.set_threads(arguments.threads)
    encoder = load_model(arguments.checkpoint, arguments.device)
    item_text = encoder.checkpoint.item_model.item_text
    recipe = None if item_text is None else item_text.recipe
    dataset = read_dataset(arguments.items, arguments.interactions, recipe, arguments.on_error)
    with StageBars(prefix="encoding ") as progress:
        encoded = EncodedItems.of(encoder, dataset, progress)
        evaluation = measure(encoder, dataset, arguments.split, progress, encoded)
    if arguments.markdown:
        write_text(arguments.markdown, report.markdown_table(evaluation))
    users = report.spread_users(dataset, arguments.split, arguments.show_users)
    answers = top_k(encoder, dataset, users, 5, True, arguments.split, encoded) if users else []
    if arguments.json:
        print(json.dumps(report.as_json(evaluation) | _shown_json(users, answers), ensure_ascii=False))
        return
    print(report.text_table(evaluation))
    if users:
        print(report.shown_users(dataset, recipe, users, answers, arguments.split))


def _add_data(parser: argparse.ArgumentParser) -> None:
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


def _shown_json(users: list[str], answers: list[list[tuple[str, float]]]) -> dict[str, object]:
    return {
        "users_shown": [
            {"user_id": user, "items": [{"item_id": item_id, "score": score} for item_id, score in answer]}
            for user, answer in zip(users, answers, strict=True)
        ]
    }
