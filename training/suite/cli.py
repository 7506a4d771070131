"""`seqrec suite`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from seqrec.errors import SeqrecError
from training.evaluation.plots import check_pictures
from training.suite.plan import TABLES
from training.suite.recipes import MODELS
from training.suite.runner import Suite, SuiteConfig

log = logging.getLogger(__name__)


def suite(argv: list[str]) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.seeds < 0:
        parser.error(f"argument --seeds: {arguments.seeds} is below 0")
    check_pictures()
    seeds = range(1, 1 + (arguments.seeds or (1 if arguments.quick else 3)))
    requested = Suite(
        SuiteConfig(
            data=arguments.data,
            out=arguments.out,
            models=[model for model in MODELS if model in arguments.models],
            tables=arguments.only,
            seeds=list(seeds),
            pretrain_data=arguments.pretrain_data,
            text_encoder=arguments.text_encoder,
            quick=arguments.quick,
            changes=arguments.changes,
            threads=arguments.threads,
            device=arguments.device,
            on_error=arguments.on_error,
        )
    )
    estimate = requested.estimate()
    said = estimate.text(requested.lines, requested.cells)
    if arguments.estimate:
        print(said)
        return
    log.info("%s", said)
    failed = requested.run(estimate)
    name = "report.json" if arguments.json else "report.md"
    print((arguments.out / name).read_text(encoding="utf-8"), end="")
    if failed:
        names = ", ".join(failed)
        raise SeqrecError(f"{len(failed)} of {len(requested.cells)} experiments failed: {names}; see {name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrec suite",
        description="Train the models that the papers compare, each on the same data, and write the Recformer paper's "
        "tables as report.md, report.json and pictures. What is made stays: the same command goes on where it was "
        "stopped. A time estimate comes first.",
    )
    parser.add_argument("suite", choices=["paper"], help="which tables: paper, those of the Recformer paper")
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="a folder with items.jsonl and interactions.csv (.gz too)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where cells and report lie")
    parser.add_argument(
        "--pretrain-data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="such a folder to pretrain text models on, give it once for each; without one they are pretrained on DATA",
    )
    parser.add_argument(
        "--text-encoder", type=Path, metavar="DIR", help="of a text encoder to start from; default: random weights"
    )
    parser.add_argument("--quick", action="store_true", help="2,000 users, 256 tokens, a small encoder: about an hour")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL", help="default: all")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="trainings a cell; default: 3, 1 with --quick"
    )
    parser.add_argument("--estimate", action="store_true", help="print the time estimate, and no more")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="[MODEL:]KEY=VALUE",
        help="change one setting of all trainings, or of those of one model, e.g. sasrec:optimizer.max_epochs=50",
    )
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="as for `seqrec train`")
    parser.add_argument("--device", default="", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
