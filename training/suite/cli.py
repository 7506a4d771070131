"""`seqrec suite`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from seqrec.data.files import check_output
from seqrec.errors import SeqrecError
from seqrec.runtime.arguments import Parser
from training.suite.plan import TABLES
from training.suite.recipes import MODELS
from training.suite.runner import Suite, SuiteConfig

log = logging.getLogger(__name__)


def suite(argv: list[str]) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.seeds < 0:
        parser.error(f"argument --seeds: {arguments.seeds} is below 0")
    check_output(arguments.out / "report.md", "--out")
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
    if arguments.estimate:
        print(requested.estimate())
        return
    log.info("%s", requested.estimate())
    failed = requested.run()
    name = "report.json" if arguments.json else "report.md"
    print((arguments.out / name).read_text(encoding="utf-8"), end="")
    if failed:
        names = ", ".join(failed)
        raise SeqrecError(f"{len(failed)} of {len(requested.experiments)} experiments failed: {names}; see {name}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "seqrec suite",
        description="Train the models that the papers compare on the same data, and write the tables of the Recformer "
        "paper as report.md, report.json and plots. Finished experiments are kept: the same command resumes where it "
        "was stopped.",
    )
    parser.add_argument("suite", choices=["paper"], help="which tables: paper, those of the Recformer paper")
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="a folder with items.jsonl and interactions.csv (or .gz)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for experiments and report")
    parser.add_argument(
        "--pretrain-data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder to pretrain text models on; repeatable. Default: text models are pretrained on DATA",
    )
    parser.add_argument(
        "--text-encoder", type=Path, metavar="DIR", help="a text encoder to start from; default: random weights"
    )
    parser.add_argument(
        "--quick", action="store_true", help="2,000 users, 256 tokens, a small encoder, time limits: about an hour"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL", help="default: all")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="trainings per model; default: 3, or 1 with --quick"
    )
    parser.add_argument("--estimate", action="store_true", help="print what is to do and its time limits, and exit")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="[MODEL:]KEY=VALUE",
        help="change a setting of all trainings, or of one model, e.g. sasrec:optimizer.max_epochs=50; repeatable",
    )
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="as for `seqrec train`")
    parser.add_argument("--device", default="", help="cpu or cuda; default: a GPU if there is one")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
