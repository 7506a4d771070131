"""`seqrec init`, `seqrec up`, `seqrec check` and `seqrec status`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import closing, nullcontext, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seqrec.data.files import check_output, write_text
from seqrec.data.tables.base import TableOptions
from seqrec.data.tables.sql_table import is_url
from seqrec.errors import InputError
from seqrec.registry import load
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import redrawn_every
from seqrec.shop.check import check_data
from seqrec.shop.guessing.draft import checked, draft_project, find_data_set, preview, render
from seqrec.shop.guessing.links import Input
from seqrec.shop.project import FILE, Project, require_project
from seqrec.shop.stages import STATE, is_fresh, read_state
from seqrec.shop.up import stages_of
from seqrec.shop.up import up as run_up


def init(argv: list[str]) -> None:
    parser = Parser(
        "seqrec init",
        description="Look at a shop's items and events and write shop.toml: which column is what, and why. CSV, TSV, "
        "JSON Lines, JSON, Parquet, Excel, folders or patterns of them, and databases by SQLAlchemy URL. Nothing else "
        "is written. Then: seqrec up.",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="a data set of MovieLens, RecBole or Amazon"
    )
    parser.add_argument("--items", metavar="PATH", help="the items: a file, folder, pattern or URL")
    parser.add_argument("--events", metavar="PATH", help="the events: a file, folder, pattern or URL")
    parser.add_argument("--items-query", metavar="SQL", help="of a database")
    parser.add_argument("--events-query", metavar="SQL", help="of a database")
    parser.add_argument("--out", type=Path, default=Path(FILE), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    arguments = parser.parse_args(argv)
    items, events = _inputs(arguments, parser)
    out: Path = arguments.out / FILE if arguments.out.is_dir() else arguments.out
    check_output(out, "--out")
    if out.exists() and not arguments.overwrite:
        raise InputError(f"{out} exists already; add --overwrite to replace it", "--out")
    with tqdm(desc="reading", unit=" rows", unit_scale=True, mininterval=redrawn_every()) as bar:
        draft = draft_project(items, events, bar.update)
    text = render(draft, out)
    checked(text, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print("\n".join(preview(draft)))
    print(f"\nwrote {out}: look at it and change what is wrong. Then: seqrec up{'' if out.name == FILE else f' {out}'}")


def _inputs(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[Input, Input]:
    if arguments.folder is not None:
        if arguments.items or arguments.events:
            parser.error("DIR or --items and --events, not both")
        found = find_data_set(arguments.folder)
        if found is None:
            raise InputError(
                f"{arguments.folder} is not a folder of MovieLens, RecBole or Amazon; name the files with --items and "
                "--events",
                "DIR",
            )
        return found
    if not arguments.items or not arguments.events:
        parser.error("--items and --events are needed, or the folder of a data set")
    inputs = []
    for path, query in ((arguments.items, arguments.items_query), (arguments.events, arguments.events_query)):
        found = None if is_url(path) or not Path(path).is_dir() else find_data_set(Path(path))
        options = TableOptions(query=query) if found is None else found[0].options
        inputs.append(Input(path, options))
    return inputs[0], inputs[1]


def up(argv: list[str]) -> None:
    parser = Parser(
        "seqrec up",
        description="Import, train, evaluate, index and serve a shop as its shop.toml says. A stage is skipped while "
        "nothing that it depends on has changed; Ctrl-C stops, and the next run continues.",
    )
    _add_project(parser)
    parser.add_argument("--fresh", action="store_true", help="repeat all stages, also those that are up to date")
    parser.add_argument("--until", choices=("import", "train", "evaluate", "index"), help="stop after this stage")
    arguments = parser.parse_args(argv)
    run_up(require_project(arguments.project), arguments.fresh, arguments.until)


def check(argv: list[str]) -> None:
    parser = Parser(
        "seqrec check",
        description="Import what has changed and print what stands out in the data, with figures and the setting to "
        "change. Exit code 1 if a training would learn nothing.",
    )
    _add_project(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args(argv)
    project = require_project(arguments.project)
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        run_up(project, until="import")
    findings = check_data(project)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    stops = [finding.text for finding in findings if finding.level == "stop"]
    if stops:
        raise InputError(stops[0], str(project.path))


def status(argv: list[str]) -> None:
    parser = Parser("seqrec status", description="Show what is up to date, what is served, and how good the model is.")
    _add_project(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    project = require_project(arguments.project)
    found = _status(project)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else "\n".join(_status_lines(project, found)))


def _add_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("project", nargs="?", type=Path, metavar="FILE", help=f"default: {FILE} in this directory")


def _status(project: Project) -> dict[str, Any]:
    done = read_state(project.home / STATE)
    stages = []
    stale = False
    for stage in stages_of(project):
        try:
            fresh = not stale and is_fresh(stage, done, stage.inputs())
        except OSError:
            fresh = False
        state = "up to date" if fresh else "never run" if stage.name not in done else "stale"
        stale = stale or not fresh
        stages.append({"name": stage.name, "state": state, "made": _when(stage.outputs[-1])})
    return {"project": str(project.path), "home": str(project.home), "stages": stages, **_served(project)}


def _status_lines(project: Project, found: Mapping[str, Any]) -> list[str]:
    lines = [f"{found['project']}: files in {found['home']}"]
    for stage in found["stages"]:
        state = "stale: `seqrec up` repeats it" if stage["state"] == "stale" else stage["state"]
        made = f" (made {stage['made']})" if stage["made"] else ""
        lines.append(f"  {stage['name']:<9} {state}{made}")
    lines.append(f"published: {found['published']}" if found["published"] else "nothing is published yet")
    if found["url"] is not None:
        if found["served"] is None:
            lines.append(f"no service answers at {found['url']}; `seqrec up` starts it")
        else:
            lines.append(f"served at {found['url']}: {found['served'].get('snapshot') or found['served']}")
    return [*lines, *_quality(project)]


def _when(path: Path) -> str | None:
    if not path.exists():
        return None
    return f"{datetime.datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%d %H:%M}"


def _served(project: Project) -> dict[str, Any]:
    """What is published, and what the service at `url` answers at /readyz: None where none does."""
    if not (project.home / "catalogue.sqlite3").is_file():
        return {"published": None, "url": None, "served": None}
    project.set_environment()
    with closing(load("index.catalogue.open:open_catalogue")(project.home)) as catalogue:
        publications = catalogue.publications()
    host, port = os.environ.get("SEQREC_HOST", "127.0.0.1"), os.environ.get("SEQREC_PORT", "8000")
    url = f"http://{host}:{port}"
    served = None
    with suppress(OSError, ValueError), urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:
        served = json.loads(answer.read())
    return {"published": publications[0].snapshot_id if publications else None, "url": url, "served": served}


def _quality(project: Project) -> list[str]:
    table = project.home / "evaluation.md"
    return ["", table.read_text(encoding="utf-8").rstrip()] if table.is_file() else []
