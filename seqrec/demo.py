"""`seqrec demo`: trains, evaluates, indexes and serves the bundled purchases.

All files are in SEQREC_HOME/demo. A stage's output is written atomically, then a digest of its inputs to state.json.
The next run skips stages with unchanged inputs and repeats the others.

Each stage is a command of the program, called by name, so that this package does not import the others.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from seqrec import __version__, cli
from seqrec.data.files import check_output, new_directory, sha256_file, write_text
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.listen import listen
from seqrec.runtime.progress import format_duration

DATA = Path(__file__).parents[1] / "data" / "online-retail"
EXAMPLE = {"20725": "Lunch Bag Red Retrospot", "21559": "Strawberry Lunch Box With Cutlery"}
"""A history to try: item ids of the bundled data and their titles."""
NEEDED_BYTES = 100_000_000
"""Free disk space; a run needs about a tenth, and the old one is kept until a new one is complete."""


@dataclass(frozen=True)
class Stage:
    name: str
    description: str
    inputs: Callable[[], str]
    """A digest of everything that the output depends on; called when the previous stages are done."""
    outputs: tuple[Path, ...]
    run: Callable[[], None]
    skipped: Callable[[], None] = lambda: None
    """Called instead of `run` if the output is up to date."""


def main(argv: Sequence[str]) -> None:
    """Runs the stages that are not up to date, then `seqrec serve`. Raises SeqrecError; InputError for a used port."""
    parser = argparse.ArgumentParser(
        prog="seqrec demo",
        description="Train a hybrid model on the bundled purchases, evaluate it, index the items and serve them.",
        epilog="Environment variables: SEQREC_HOME (./var): files are in its folder demo; SEQREC_HOST (127.0.0.1) and "
        "SEQREC_PORT (8000): the address of the service.",
    )
    parser.add_argument("--fresh", action="store_true", help="repeat all stages, also those that are up to date")
    options = parser.parse_args(argv)
    home = Path(os.environ.get("SEQREC_HOME") or "var") / "demo"
    host = os.environ.get("SEQREC_HOST") or "127.0.0.1"
    port = _port(os.environ.get("SEQREC_PORT") or "8000")
    listen(host, port).close()  # before minutes of training
    _check_data()
    check_output(home, "SEQREC_HOME")
    home.mkdir(parents=True, exist_ok=True)
    for left in (*home.glob(".tmp-*"), *home.glob(".old-*")):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    os.environ["SEQREC_HOME"] = str(home)
    _print(f"all files are in {home}; Ctrl-C stops the demo, and the next run continues")
    run_stages(_stages(home), home / "state.json", options.fresh)
    _serve(host, port)


def run_stages(stages: Sequence[Stage], state_file: Path, fresh: bool = False) -> None:
    """Runs the stages whose outputs are missing or have other inputs, and records each in `state_file`."""
    done = {} if fresh else _read_state(state_file)
    for number, stage in enumerate(stages, 1):
        label = f"[{number}/{len(stages)}] {stage.name}"
        inputs = stage.inputs()
        if done.get(stage.name) == inputs and all(path.exists() for path in stage.outputs):
            _print(f"\n{label}: up to date")
            stage.skipped()
            continue
        _check_disk(state_file.parent)
        _print(f"\n{label}: {stage.description}")
        begun = time.monotonic()
        try:
            stage.run()
        except KeyboardInterrupt:
            print(f"\nstopped in {stage.name}; the next run continues there", file=sys.stderr)
            raise
        done[stage.name] = inputs
        write_text(state_file, json.dumps(done, indent=1) + "\n")
        _print(f"{label}: done in {format_duration(time.monotonic() - begun)}")


def _stages(home: Path) -> list[Stage]:
    checkpoint, run, table = home / "checkpoint", home / "run", home / "evaluation.md"
    items, interactions = DATA / "items.jsonl.gz", DATA / "interactions.csv.gz"
    data = ["--items", str(items), "--interactions", str(interactions)]

    def train() -> None:
        cli.run("train", [*data, "--preset", "demo", "--out", str(run), "--overwrite"])
        # A copy, so that an interrupted training does not change what is served.
        with new_directory(checkpoint, replace=True) as directory:
            shutil.copytree(run / "checkpoint", directory, dirs_exist_ok=True)

    def evaluate() -> None:
        cli.run("evaluate", [str(checkpoint), *data, "--markdown", str(table), "--show-users", "5"])

    def index() -> None:
        cli.run("index", ["build", "--checkpoint", str(checkpoint), *data, "--publish"])

    def trained_from() -> str:
        preset = (files("training.config") / "presets" / "demo.toml").read_text(encoding="utf-8")
        return _digest(__version__, preset, sha256_file(items), sha256_file(interactions))

    def made_from_checkpoint() -> str:
        return _digest(__version__, sha256_file(checkpoint / "digest"), sha256_file(items), sha256_file(interactions))

    return [
        Stage(
            "train",
            "co-occurrence, words and a compact Recformer, on purchases of 4,074 customers; about a minute on 2 cores",
            trained_from,
            (checkpoint / "digest",),
            train,
        ),
        Stage(
            "evaluate",
            "rank all items for each customer's last purchase, compared with popularity and item-kNN",
            made_from_checkpoint,
            (table,),
            evaluate,
            lambda: _print(table.read_text(encoding="utf-8")),
        ),
        Stage(
            "index",
            "encode the items, build the index, verify and publish it",
            made_from_checkpoint,
            (home / "catalogue.sqlite3", home / "snapshots"),
            index,
        ),
    ]


def _serve(host: str, port: int) -> None:
    """Replaces this process by the server, so that the server receives signals directly."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    body = json.dumps({"history": list(EXAMPLE), "k": 5})
    _print(f"\nserving at {url} : open it in a browser, or get recommendations for")
    for item_id, title in EXAMPLE.items():
        _print(f"  {item_id}  {title}")
    _print(
        f"\n  curl -s {url}/recommend -H 'content-type: application/json' -d {shlex.quote(body)}\n\nCtrl-C stops it.\n"
    )
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "seqrec", "serve"])


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise InputError(f"{text!r} is not a port; set a number from 1 to 65535", "SEQREC_PORT")
    return int(text)


def _check_data() -> None:
    for name in ("items.jsonl.gz", "interactions.csv.gz"):
        if not (DATA / name).is_file():
            raise SeqrecError(
                f"{DATA / name} does not exist: the demo needs a clone of the repository, which contains its data. "
                "For your own data: seqrec train, seqrec index build --publish, seqrec serve"
            )


def _check_disk(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < NEEDED_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"only {free // 1_000_000} MB are free and the demo may need {NEEDED_BYTES // 1_000_000}; "
            "free some space, or set SEQREC_HOME to a folder on another disk",
            str(path),
        )


def _read_state(path: Path) -> dict[str, str]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _print(text: str) -> None:
    print(text, flush=True)
