"""Trains RecBole's models on a data set that `seqrec export recbole` wrote, for comparison with ours.

    seqrec export recbole --items S/items.jsonl.gz --interactions S/interactions.csv.gz --out atomic/scientific
    seqrec bench recbole-trained atomic/scientific sasrec gru4rec bert4rec fdsa    # in a separate environment

The environment is that of `seqrec bench recbole-parity`. RecBole's defaults, except for the length of histories and the
split; its early stopping, on NDCG@10. The last item is the test, the last but one the validation, and all items are
ranked, including those of the history: the mode "all items" of `seqrec evaluate`. Minutes are those of the
processor, for training and validation.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seqrec.runtime.arguments import Parser

MODELS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "bert4rec": "BERT4Rec", "fdsa": "FDSA"}
METRICS = ("ndcg@10", "recall@10", "mrr@10")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    sys.argv = sys.argv[:1]  # RecBole parses it as well
    warnings.simplefilter("ignore", FutureWarning)  # from its use of pandas
    torch.set_num_threads(arguments.threads)
    # RecBole's checkpoints have more than weights, which torch.load rejects by default.
    load = torch.load
    torch.load = lambda *args, **more: load(*args, **{"weights_only": False} | more)
    results = []
    print("model       NDCG@10  Recall@10  MRR@10  epochs    best  minutes  stopped by", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = with_words(arguments.data, Path(folder) / "data", arguments.words)
        for name in arguments.models:
            one = trained(MODELS[name], data, Path(folder), arguments)
            results.append({"model": name} | one)
            ndcg, recall, mrr = (one[metric] for metric in METRICS)
            line = f"{name:10} {ndcg:8.4f} {recall:10.4f} {mrr:7.4f} {one['epochs']:7} {one['best_epoch']:7}"
            print(f"{line} {one['seconds'] / 60:8.1f}  {one['stopped_by']}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def with_words(source: Path, target: Path, words: Sequence[str]) -> Path:
    """A copy of the atomic files in which these attributes are sequences of words, for FDSA, instead of one token."""
    folder = target / source.name
    folder.mkdir(parents=True)
    for path in source.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".item":
            head, rest = text.split("\n", 1)
            columns = [f"{c}_seq" if c in {f"{word}:token" for word in words} else c for c in head.split("\t")]
            text = "\t".join(columns) + "\n" + rest
        (folder / path.name).write_text(text, encoding="utf-8")
    return folder


class _TimeIsUp(Exception):
    pass


def trained(model: str, data: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The test metrics of the epoch that is best on validation."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    exported = json.loads((data / f"{data.name}.yaml").read_text(encoding="utf-8"))
    config = Config(
        model=model,
        dataset=data.name,
        config_dict=exported
        | {
            "data_path": str(data.parent),
            "checkpoint_dir": str(folder / "saved"),
            "MAX_ITEM_LIST_LENGTH": arguments.max_length,
            "epochs": arguments.epochs,
            "stopping_step": 10,
            "train_batch_size": arguments.batch_size,
            "eval_batch_size": 512,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "metrics": ["NDCG", "Recall", "MRR"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "selected_features": list(arguments.words),
            "use_gpu": False,
            "show_progress": False,
            "seed": arguments.seed,
        },
    )
    init_seed(config["seed"], True)
    init_logger(config)
    logging.getLogger().setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    net = get_model(model)(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, net)
    scores: list[float] = []
    begin = time.process_time()

    def validated(epoch: int, score: float) -> None:  # RecBole has saved the weights by then, if they are the best
        scores.append(score)
        if time.process_time() - begin > 60 * arguments.minutes:
            raise _TimeIsUp

    stopped_by = "validation"
    try:
        trainer.fit(train, valid, saved=True, show_progress=False, callback_fn=validated)
    except _TimeIsUp:
        stopped_by = "time"
    seconds = time.process_time() - begin
    found = trainer.evaluate(test, load_best_model=True, show_progress=False)
    epochs = len(trainer.train_loss_dict)
    if epochs == arguments.epochs:
        stopped_by = "epochs"
    best = max(scores)
    return {
        "validation": best,
        "epochs": epochs,
        "best_epoch": scores.index(best) + 1,
        "seconds": seconds,
        "stopped_by": stopped_by,
    } | {metric: found[metric] for metric in METRICS}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench recbole-trained", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder that `seqrec export recbole` wrote")
    parser.add_argument("models", nargs="+", choices=MODELS)
    words = ["title", "category"]
    parser.add_argument("--words", nargs="*", default=words, help="attributes that FDSA reads as single words")
    parser.add_argument("--max-length", type=int, default=50, help="maximum items of a history")
    parser.add_argument("--batch-size", type=int, default=2048, help="of training; RecBole's default")
    parser.add_argument("--epochs", type=int, default=300, help="maximum number of epochs")
    help_minutes = "processor time after which no further epoch begins (default: no limit)"
    parser.add_argument("--minutes", type=float, default=math.inf, help=help_minutes)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--verbose", action="store_true", help="also print RecBole's log")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to FILE")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
