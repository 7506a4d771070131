"""The command `seqrec retrain`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from index.arguments import add_common
from index.build.reindex import JobFile
from index.catalogue.open import location_of
from index.snapshot.publication import KEEP
from retraining.comparison import TOLERANCE
from retraining.retrain import Options, Outcome, retrain
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import StageBars
from seqrec.runtime.threads import choose, use

NOT_PUBLISHED = 3
"""Exit code where a candidate was not good enough, or the data not fit to train on."""


def retrain_command(argv: list[str]) -> None:
    parser = Parser(
        "seqrec retrain",
        description="Train a candidate on the catalogue and the events of the service, with the recipe of the model "
        "that is served; compare both on the newest events, which neither was trained on; publish the candidate if it "
        "is not worse. The model before stays for `seqrec index rollback`. A report is written to HOME/retrain. The "
        "service may run. Exit code: 0 published or nothing new, 3 not published, 1 an error.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="another recipe than the served model's: a TOML file"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change a setting of the recipe; repeatable",
    )
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=TOLERANCE,
        metavar="SHARE",
        help="how much worse the candidate may be, at the lower end of the 95 %% interval of the difference, as a "
        f"share of the served model's NDCG@10; default: {TOLERANCE}",
    )
    parser.add_argument("--no-publish", dest="publish", action="store_false", help="compare, and keep the candidate")
    parser.add_argument("--force", action="store_true", help="also if there is no event since the last retraining")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    parser.add_argument("--job", type=Path, metavar="FILE", help="write progress to this JSON file")
    add_common(parser)
    arguments = parser.parse_args(argv)
    options = Options(
        config=arguments.config,
        overrides=arguments.overrides,
        tolerance=arguments.tolerance,
        publish=arguments.publish,
        force=arguments.force,
        device=arguments.device,
        keep=KEEP,
    )
    use(choose())
    with JobFile(arguments.job) as job, StageBars(unit="") as bars:

        def progress(stage: str, done: int, total: int) -> None:
            bars(stage, done, total)
            job.progress(stage, done, total)

        outcome = retrain(arguments.home, location_of(arguments.home), options, progress)
        job.end(snapshot=outcome.snapshot, result=outcome.result, reason=outcome.reason)
    _print(outcome, arguments.json)
    if outcome.result in ("not published", "refused"):
        sys.exit(NOT_PUBLISHED)


def _print(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        report = None if outcome.report is None else str(outcome.report)
        print(json.dumps(asdict(outcome) | {"report": report}, ensure_ascii=False))
        return
    served = f": snapshot {outcome.snapshot} is served from now on" if outcome.snapshot else ""
    print(f"{outcome.result}{served}; {outcome.reason}")
    if outcome.report is not None:
        print(f"report: {outcome.report / 'report.md'}")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a share from 0 to 1, not {text!r}")
    return value
