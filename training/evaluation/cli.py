"""`seqrec evaluate`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from seqrec.data.files import check_output, new_directory, write_text
from seqrec.encoder import Encoder, Precision, load_model
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import StageBars
from seqrec.shop.project import find_project
from seqrec.text.item_text import Recipe
from training.config.arguments import add_data
from training.config.load import load_stored_config
from training.config.validation import build
from training.data.dataset import Dataset, Split, read_dataset
from training.data.splits import SplitBy, SplitConfig, Targets
from training.distributed import set_threads
from training.evaluation import report
from training.evaluation.comparison import RESAMPLES, Evaluation, Model
from training.evaluation.comparison import evaluate as measure
from training.evaluation.evaluate import EncodedItems, top_k
from training.evaluation.examples import format_examples, sample_users_evenly
from training.evaluation.plots import draw

log = logging.getLogger(__name__)


def evaluate(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    rule = _split_rule(arguments)
    if arguments.markdown:
        check_output(arguments.markdown, "--markdown")
        if arguments.markdown.is_dir():
            raise InputError(f"{arguments.markdown} is a directory; name a file", "--markdown")
    if arguments.out:
        check_output(arguments.out, "--out")
        if arguments.out.exists() and not arguments.out.is_dir():
            raise InputError(f"{arguments.out} is a file; choose a directory", "--out")
        if arguments.out.exists() and not arguments.overwrite:
            raise InputError(f"{arguments.out} exists already; choose another directory, or add --overwrite", "--out")
    set_threads(arguments.threads)
    precisions: list[Precision] = list(dict.fromkeys(arguments.precision))
    encoders = [load_model(path, arguments.device, p) for path in arguments.checkpoint for p in precisions]
    names = _names(arguments.checkpoint, encoders[:: len(precisions)])
    if len(precisions) > 1:
        names = [f"{name}, {precision}" for name in names for precision in precisions]
    recipes = [_recipe(encoder) for encoder in encoders]
    known = [recipe for recipe in recipes if recipe is not None]
    dataset = read_dataset(arguments.items, arguments.interactions, known, arguments.on_error, rule)
    dataset.cases(arguments.split)  # raises if nothing is held out, before minutes of encoding
    for path in arguments.checkpoint:
        _compare_split(path, rule)
    with StageBars(prefix="evaluating: ") as progress:
        models = [
            Model(name, encoder, EncodedItems.of(encoder, dataset, progress))
            for name, encoder in zip(names, encoders, strict=True)
        ]
        evaluation = measure(
            models, dataset, arguments.split, arguments.k, arguments.resamples, arguments.seed, progress
        )
    if arguments.markdown:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.markdown, report.markdown_summary(evaluation))
    if arguments.out:
        _write(evaluation, arguments.out, arguments.overwrite)
    users = sample_users_evenly(dataset, arguments.split, arguments.show_users)
    answers = _recommendations(models[0], dataset, users, arguments.split) if users else []
    if arguments.json:
        print(json.dumps(report.as_json(evaluation) | _examples_json(users, answers), ensure_ascii=False))
        return
    print(report.text_table(evaluation))
    if users:
        print(format_examples(dataset, recipes[0], users, answers, arguments.split))


class _Moved(argparse.Action):
    """Refuses `--suite NAME`, which earlier versions had."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: object, __: str | None = None) -> None:
        parser.error(f"--suite is a command now: seqrec suite {values} DATA --out DIR")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "seqrec evaluate",
        description="Rank the whole catalogue for the held-out items of every user and report NDCG, Recall and MRR, "
        "with and without items of the history as candidates, next to the baselines popularity, last item and "
        "item-kNN, with 95 % intervals and paired tests. docs/evaluation.md explains each figure.",
        epilog="See also `seqrec suite paper`, which trains the papers' models and writes their tables.",
    )
    parser.add_argument("--suite", action=_Moved, help=argparse.SUPPRESS)
    project = find_project()
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="+" if project is None else "*",
        default=None if project is None else [project.checkpoint],
        metavar="CKPT",
        help="checkpoint directories; default: that of shop.toml",
    )
    add_data(parser)
    parser.add_argument("--split", choices=get_args(Split), default="test", help="default: test")
    parser.add_argument("--k", type=_positive, nargs="+", default=[10], metavar="K", help="cutoffs; default: 10")
    parser.add_argument("--resamples", type=_positive, default=RESAMPLES, help="of the bootstrap; default: %(default)s")
    parser.add_argument("--seed", type=_count, default=0, help="of the bootstrap and the tests; default: 0")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        nargs="+",
        default=["float32"],
        help="of the encoder; several are compared; default: float32",
    )
    parser.add_argument(
        "--threads", type=_count, default=0, help="CPU threads of torch; default: one per physical core"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to FILE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.md, report.json and plots to DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    parser.add_argument(
        "--show-users", type=_count, default=0, metavar="N", help="also print recommendations for N users"
    )
    split = parser.add_argument_group("split", "use the split that the model was trained with ([data] of its run)")
    split_by = "leave-one-out" if project is None else project.config.evaluate.split
    split.add_argument("--split-by", choices=get_args(SplitBy), default=split_by, help=f"default: {split_by}")
    split.add_argument("--targets", choices=get_args(Targets), default="first", help="time: which later items to find")
    for name, part in (("valid", "validation"), ("test", "test")):
        split.add_argument(f"--{name}-share", type=float, metavar="SHARE", help=f"time: share of events in {part}")
        split.add_argument(f"--{name}-from", type=float, metavar="TIME", help=f"time: timestamp at which {part} begins")
    split.add_argument("--basket-gap", type=float, metavar="GAP", help="last-basket: largest time step within a basket")
    split.add_argument(
        "--withheld", type=float, metavar="SHARE", help="leave-one-out: share of items without events, cold in test"
    )
    return parser


def _split_rule(arguments: argparse.Namespace) -> SplitConfig:
    given = {
        name: value
        for name in ("valid_share", "test_share", "valid_from", "test_from", "basket_gap", "withheld")
        if (value := getattr(arguments, name)) is not None
    }
    return build(SplitConfig, {"split": arguments.split_by, "targets": arguments.targets, **given}, "data.")


def _positive(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _recipe(encoder: Encoder) -> Recipe | None:
    item_text = encoder.checkpoint.item_model.item_text
    return None if item_text is None else item_text.recipe


def _names(paths: Sequence[Path], encoders: Sequence[Encoder]) -> list[str]:
    """The model name for a single checkpoint; otherwise the part of the path that differs, e.g. `a` of
    `runs/a/checkpoint`."""
    if len(paths) == 1:
        return [encoders[0].checkpoint.model_name]
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError("the same checkpoint is listed twice", "CKPT")
    same = {place for place in range(min(map(len, parts))) if len({own[place] for own in parts}) == 1}
    return [
        "/".join(part for place, part in enumerate(own) if place not in same and part != "checkpoint") or own[-1]
        for own in parts
    ]


def _compare_split(path: Path, rule: SplitConfig) -> None:
    """Warns if the run directory around a checkpoint has another split than this evaluation."""
    config = path.resolve().parent / "config.toml"
    if not config.is_file():
        return
    try:
        trained = load_stored_config(config).data
    except SeqrecError:
        return
    if trained != rule:
        log.warning(
            "%s was trained with the split %s and is evaluated with %s: test items may have been in training",
            path,
            trained,
            rule,
        )


def _write(evaluation: Evaluation, out: Path, overwrite: bool) -> None:
    with new_directory(out, replace=overwrite) as folder:
        plots = draw(evaluation, folder)
        (folder / "report.md").write_text(report.markdown_report(evaluation, plots), encoding="utf-8")
        record = json.dumps(report.as_json(evaluation), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(record + "\n", encoding="utf-8")


def _recommendations(model: Model, dataset: Dataset, users: list[str], split: Split) -> list[list[tuple[str, float]]]:
    return top_k(model.encoder, dataset, users, 5, True, split, model.items)


def _examples_json(users: list[str], answers: list[list[tuple[str, float]]]) -> dict[str, object]:
    return {
        "users_shown": [
            {"user_id": user, "items": [{"item_id": item_id, "score": score} for item_id, score in answer]}
            for user, answer in zip(users, answers, strict=True)
        ]
    }
