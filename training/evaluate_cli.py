"""`seqrec evaluate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import get_args

from seqrec.encoder import load_model
from seqrec.files import write_text
from seqrec.progress import StageBars
from training import report, run
from training.arguments import add_data
from training.data import Split, read_dataset
from training.evaluation import EncodedItems, top_k
from training.evaluation import evaluate as measure


def evaluate(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec evaluate",
        description="Rank the whole catalogue for the held-out item of every user: NDCG@10, Recall@10 and MRR, with "
        "and without the history's items as candidates, beside popularity, the last item and item-kNN.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="the checkpoint directory")
    add_data(parser)
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


def _shown_json(users: list[str], answers: list[list[tuple[str, float]]]) -> dict[str, object]:
    return {
        "users_shown": [
            {"user_id": user, "items": [{"item_id": item_id, "score": score} for item_id, score in answer]}
            for user, answer in zip(users, answers, strict=True)
        ]
    }
