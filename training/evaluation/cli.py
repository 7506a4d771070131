"""`seqrec evaluate`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from seqrec.data.files import new_directory, write_text
from seqrec.encoder import Encoder, Precision, load_model
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.progress import StageBars
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
from training.evaluation.plots import draw, require_matplotlib

log = logging.getLogger(__name__)


def evaluate(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    rule = _rule(arguments)
    if arguments.out:
        require_matplotlib()
        if arguments.out.exists() and not arguments.overwrite:
            raise InputError(f"{arguments.out} exists already; choose another directory, or say --overwrite", "--out")
    set_threads(arguments.threads)
    precisions: list[Precision] = list(dict.fromkeys(arguments.precision))
    encoders = [load_model(path, arguments.device, p) for path in arguments.checkpoint for p in precisions]
    names = _names(arguments.checkpoint, encoders[:: len(precisions)])
    if len(precisions) > 1:
        names = [f"{name}, {precision}" for name in names for precision in precisions]
    recipes = [_recipe(encoder) for encoder in encoders]
    known = [recipe for recipe in recipes if recipe is not None]
    dataset = read_dataset(arguments.items, arguments.interactions, known, arguments.on_error, rule)
    dataset.cases(arguments.split)  # nothing held out is said before minutes of encoding
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
        write_text(arguments.markdown, report.markdown_summary(evaluation))
    if arguments.out:
        _write(evaluation, arguments.out, arguments.overwrite)
    users = sample_users_evenly(dataset, arguments.split, arguments.show_users)
    answers = _recommendations(models[0], dataset, users, arguments.split) if users else []
    if arguments.json:
        print(json.dumps(report.as_json(evaluation) | _shown_json(users, answers), ensure_ascii=False))
        return
    print(report.text_table(evaluation))
    if users:
        print(format_examples(dataset, recipes[0], users, answers, arguments.split))


class _Moved(argparse.Action):
    """Refuses `--suite NAME`, which earlier versions had."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, values: object, __: str | None = None) -> None:
        parser.error(f"--suite is a command now: seqrec suite {values} DATA --out DIR")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrec evaluate",
        description="Rank the whole catalogue for what is held out of every user: NDCG, Recall and MRR, with and "
        "without the history's items as candidates, beside popularity, the last item and item-kNN; with 95 % "
        "intervals and paired tests. docs/evaluation.md says what each figure means.",
        epilog="See also `seqrec suite paper`, which trains the papers' models and writes their tables.",
    )
    parser.add_argument("--suite", action=_Moved, help=argparse.SUPPRESS)
    parser.add_argument("checkpoint", type=Path, nargs="+", metavar="CKPT", help="checkpoint directories")
    add_data(parser)
    parser.add_argument("--split", choices=get_args(Split), default="test", help="default: test")
    parser.add_argument("--k", type=_positive, nargs="+", default=[10], metavar="K", help="depths; default: 10")
    parser.add_argument("--resamples", type=_positive, default=RESAMPLES, help="of the bootstrap; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and tests; default: 0")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        nargs="+",
        default=["float32"],
        help="of the encoder; several are compared; default: float32",
    )
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to FILE as well")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.md, report.json and pictures to DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace DIR if it is there")
    parser.add_argument("--show-users", type=int, default=0, metavar="N", help="also recommend for N users, readably")
    split = parser.add_argument_group("what is held out", "use what the model was trained with ([data] of its run)")
    split.add_argument("--split-by", choices=get_args(SplitBy), default="leave-one-out", help="default: leave-one-out")
    split.add_argument("--targets", choices=get_args(Targets), default="first", help="time: of a user's later items")
    for name, what in (("valid", "validation"), ("test", "test")):
        split.add_argument(f"--{name}-share", type=float, metavar="SHARE", help=f"time: share of events for {what}")
        split.add_argument(f"--{name}-from", type=float, metavar="TIME", help=f"time: timestamp where {what} begins")
    split.add_argument("--basket-gap", type=float, metavar="GAP", help="last-basket: largest step within a basket")
    return parser


def _rule(arguments: argparse.Namespace) -> SplitConfig:
    given = {
        name: value
        for name in ("valid_share", "test_share", "valid_from", "test_from", "basket_gap")
        if (value := getattr(arguments, name)) is not None
    }
    return build(SplitConfig, {"split": arguments.split_by, "targets": arguments.targets, **given}, "data.")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _recipe(encoder: Encoder) -> Recipe | None:
    item_text = encoder.checkpoint.item_model.item_text
    return None if item_text is None else item_text.recipe


def _names(paths: Sequence[Path], encoders: Sequence[Encoder]) -> list[str]:
    """The kind of model where there is one; otherwise what tells the paths apart, e.g. `a` of `runs/a/checkpoint`."""
    if len(paths) == 1:
        return [encoders[0].checkpoint.model_name]
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError("the same checkpoint is there twice", "CKPT")
    same = {place for place in range(min(map(len, parts))) if len({own[place] for own in parts}) == 1}
    return [
        "/".join(part for place, part in enumerate(own) if place not in same and part != "checkpoint") or own[-1]
        for own in parts
    ]


def _compare_split(path: Path, rule: SplitConfig) -> None:
    """A checkpoint does not know how its data was split; the run directory around it does."""
    config = path.resolve().parent / "config.toml"
    if not config.is_file():
        return
    try:
        trained = load_stored_config(config).data
    except SeqrecError:
        return
    if trained != rule:
        log.warning(
            "%s was trained with the split %s and is evaluated with %s: what is tested here may have trained it",
            path,
            trained,
            rule,
        )


def _write(evaluation: Evaluation, out: Path, overwrite: bool) -> None:
    with new_directory(out, replace=overwrite) as folder:
        pictures = draw(evaluation, folder)
        (folder / "report.md").write_text(report.markdown_report(evaluation, pictures), encoding="utf-8")
        record = json.dumps(report.as_json(evaluation), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(record + "\n", encoding="utf-8")


def _recommendations(model: Model, dataset: Dataset, users: list[str], split: Split) -> list[list[tuple[str, float]]]:
    return top_k(model.encoder, dataset, users, 5, True, split, model.items)


def _shown_json(users: list[str], answers: list[list[tuple[str, float]]]) -> dict[str, object]:
    return {
        "users_shown": [
            {"user_id": user, "items": [{"item_id": item_id, "score": score} for item_id, score in answer]}
            for user, answer in zip(users, answers, strict=True)
        ]
    }
