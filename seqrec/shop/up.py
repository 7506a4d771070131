"""`seqrec up`: imports, trains, evaluates, indexes and serves a shop, as its shop.toml says.

Each stage is a command of the program, called by name, so that this package does not import the others.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seqrec import __version__, cli
from seqrec.data.files import new_directory, sha256_file, write_text
from seqrec.data.tables.open import files_of
from seqrec.data.tables.source_table import FORMATS
from seqrec.data.tables.sql_table import is_url
from seqrec.errors import InputError
from seqrec.registry import load
from seqrec.runtime.listen import listen
from seqrec.runtime.progress import redrawn_every
from seqrec.shop.check import check_data
from seqrec.shop.imported import NEGATIVES, REPORT, Report, import_shop, summary_lines
from seqrec.shop.project import EventsConfig, ItemsConfig, Project
from seqrec.shop.stages import STATE, Stage, digest, run_stages

BEGUN = "training.json"
"""What the run directory is being trained on, so that only the same training is resumed."""


def up(project: Project, fresh: bool = False, until: str | None = None, serve: bool = True) -> None:
    """Runs the stages that are not up to date, up to `until`; then this process becomes the server.

    Raises SeqrecError, before any stage for a bad setting or a used port.
    """
    home = project.home
    serve = serve and until is None
    project.set_environment()
    if serve:
        host, port = _address(project)
    if home.exists() and not home.is_dir():
        raise InputError(f"{home} is a file; home is the folder of what is made", str(project.path))
    home.mkdir(parents=True, exist_ok=True)
    for left in (*home.glob(".tmp-*"), *home.glob(".old-*")):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    stages = stages_of(project, fresh)
    if until is not None:
        stages = stages[: [stage.name for stage in stages].index(until) + 1]
    _print(f"all files are in {home}; Ctrl-C stops, and the next run continues")
    run_stages(stages, home / STATE, fresh)
    if serve:
        _serve(project, host, port)


def stages_of(project: Project, fresh: bool = False) -> list[Stage]:
    """import, train, evaluate, index."""
    home, data = project.home, project.items.parent
    table = home / "evaluation.md"
    paths = ["--items", str(project.items), "--interactions", str(project.interactions), "--on-error", "skip"]

    def import_() -> None:
        with tqdm(desc="reading", unit=" rows", unit_scale=True, mininterval=redrawn_every()) as bar:
            try:
                report = import_shop(project, bar.update)
            except InputError as error:
                raise project.explained(error) from None
        _print("\n".join(summary_lines(report)))
        show_findings(project)

    def train() -> None:
        stops = [finding.text for finding in check_data(project) if finding.level == "stop"]
        if stops:
            raise InputError(stops[0], str(project.path))
        _train(project, paths, trained_from(), fresh)

    def evaluate() -> None:
        shown = str(project.config.evaluate.show_users)
        options = ["--markdown", str(table), "--show-users", shown, *project.evaluate_options()]
        cli.run("evaluate", [str(project.checkpoint), *paths, *options])

    def index() -> None:
        # First, since the build counts the events.
        cli.run("events", ["types", "--home", str(home), *project.event_types()])
        cli.run("index", ["build", "--home", str(home), "--checkpoint", str(project.checkpoint), *paths, "--publish"])
        if (negatives := data / NEGATIVES).exists():
            cli.run("events", ["import", "--home", str(home), "--on-error", "skip", str(negatives)])

    def imported_from() -> str:
        config = project.config
        read = [section.model_dump_json() for section in (config.items, config.events)]
        return digest(__version__, *read, content_digest(project, "items"), content_digest(project, "events"))

    def trained_from() -> str:
        made = read_report(project).digests
        options = project.train_options()
        return digest(__version__, _presets(project), *options, made["texts"], made["interactions"])

    def made_from_checkpoint(*more: str) -> Callable[[], str]:
        def inputs() -> str:
            made = read_report(project).digests
            return digest(
                __version__, sha256_file(project.checkpoint / "digest"), made["items"], made["interactions"], *more
            )

        return inputs

    return [
        Stage(
            "import",
            "read the shop's files as shop.toml says",
            imported_from,
            (project.items, project.interactions, data / REPORT),
            import_,
            lambda: show_findings(project),
            always=is_url(project.config.items.location) or is_url(project.config.events.location),
        ),
        Stage("train", "the model that suits the data", trained_from, (project.checkpoint / "digest",), train),
        Stage(
            "evaluate",
            "rank all items for what each user did last, compared with popularity and item-kNN",
            made_from_checkpoint(*project.evaluate_options()),
            (table,),
            evaluate,
            lambda: _print(table.read_text(encoding="utf-8")),
        ),
        Stage(
            "index",
            "encode the items, build the index, verify and publish it",
            made_from_checkpoint(*project.event_types()),
            (home / "catalogue.sqlite3", home / "snapshots"),
            index,
        ),
    ]


def content_digest(project: Project, what: str) -> str:
    """Of the files that a section names; a database has none."""
    source: ItemsConfig | EventsConfig = project.config.items if what == "items" else project.config.events
    if is_url(source.location):
        return ""
    place = project.base / source.location
    if source.format in FORMATS and place.is_dir():
        found = sorted(path for path in place.iterdir() if path.is_file())
    else:
        found = files_of(source.location, project.base)
    return digest(*(f"{path.name} {sha256_file(path)}" for path in found))


def read_report(project: Project) -> Report:
    return Report(**json.loads((project.items.parent / REPORT).read_text(encoding="utf-8")))


def show_findings(project: Project) -> None:
    for finding in check_data(project):
        _print(f"{finding.level}: {finding.text}")


def _train(project: Project, paths: Sequence[str], begun: str, fresh: bool) -> None:
    run, note = project.run, project.home / BEGUN
    same = not fresh and _read_json(note).get("inputs") == begun
    state = _read_json(run / "run.json").get("state") if same else None
    if state != "done":
        write_text(note, json.dumps({"inputs": begun}) + "\n")
        resumed = [] if state == "running" else ["--overwrite"]
        try:
            cli.run("train", [*paths, *project.train_options(), "--out", str(run), *resumed])
        except InputError as error:
            raise project.explained(error) from None
    # A copy, so that an interrupted training does not change what is served.
    with new_directory(project.checkpoint, replace=True) as directory:
        shutil.copytree(run / "checkpoint", directory, dirs_exist_ok=True)


def _presets(project: Project) -> str:
    """A digest of the preset, or of those that may be chosen by the data."""
    name = project.config.train.preset
    folder = files("training.config") / "presets"
    presets = [path for path in folder.iterdir() if path.name == f"{name}.toml" or (not name and "hybrid" in path.name)]
    return digest(*(path.read_text(encoding="utf-8") for path in sorted(presets, key=lambda path: path.name)))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _address(project: Project) -> tuple[str, int]:
    """Host and port of the service's settings, checked before minutes of training. Raises InputError."""
    try:
        settings = load("service.settings:load_settings")()
    except InputError as error:
        raise project.explained(error) from None
    listen(settings.host, settings.port).close()
    return settings.host, settings.port


def _serve(project: Project, host: str, port: int) -> None:
    """Replaces this process by the server, so that the server receives signals directly."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    example = example_history(project)
    body = json.dumps({"history": list(example), "k": 5}, ensure_ascii=False)
    _print(f"\nserving at {url} : open it in a browser, or get recommendations for")
    for item_id, text in example.items():
        _print(f"  {item_id}  {text}")
    _print(
        f"\n  curl -s {url}/recommend -H 'content-type: application/json' -d {shlex.quote(body)}\n\nCtrl-C stops it.\n"
    )
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "seqrec", "serve"])


def example_history(project: Project) -> dict[str, str]:
    """The items of [serve] example, or two of the most frequent user's first ones, with their first text."""
    wanted = project.config.serve.example
    if not wanted:
        import pyarrow.parquet as pq

        with pq.ParquetFile(project.interactions) as file:
            items = next(file.iter_batches(1000, columns=["item_id"])).column(0).to_pylist()
        wanted = tuple(dict.fromkeys(items))[:2]
    name = next(iter(project.config.items.texts), None)
    found: dict[str, str] = {}
    with project.items.open(encoding="utf-8") as file:
        for line in file:
            item = json.loads(line)
            if item["item_id"] in wanted:
                found[item["item_id"]] = str(item["attributes"].get(name, ""))
    return {item_id: found[item_id] for item_id in wanted if item_id in found}


def _print(text: str) -> None:
    print(text, flush=True)
