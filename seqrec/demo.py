"""`seqrec demo`: the whole path on the bundled purchases. Train, evaluate, index, serve.

Everything lies in SEQREC_HOME/demo. A stage's output appears whole or not at all; state.json, written after it, says
what it was made from: the next run skips what is done and does again what was made from something else.

Each stage is a command of the program, called by name: this package imports none of theirs.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from seqrec import __version__, cli
from seqrec.data.files import new_directory, sha256_file, write_text
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.progress import format_duration

DATA = Path(__file__).parents[1] / "data" / "online-retail"
EXAMPLE = {"20725": "Lunch Bag Red Retrospot", "21559": "Strawberry Lunch Box With Cutlery"}
"""A history to try: item ids of the bundled data and their titles."""
NEEDED_BYTES = 100_000_000
"""Of disk; a run leaves about a tenth of it, and a new one exists next to the old until it is complete."""


@dataclass(frozen=True)
class Stage:
    name: str
    says: str
    inputs: Callable[[], str]
    """A digest of all that its output depends on; called when the stages before it are done."""
    outputs: tuple[Path, ...]
    run: Callable[[], None]
    skipped: Callable[[], None] = lambda: None
    """Instead of `run` where the output is there already."""


def main(argv: Sequence[str]) -> None:
    """Run what is not done yet, then become `seqrec serve`. Raises SeqrecError, and InputError if the port is taken."""
    parser = argparse.ArgumentParser(
        prog="seqrec demo",
        description="Train a hybrid model on the bundled purchases, evaluate it, index the items and serve them.",
        epilog="SEQREC_HOME (./var) is where it puts things, in demo/; SEQREC_HOST (127.0.0.1) and SEQREC_PORT (8000) "
        "are where it serves.",
    )
    parser.add_argument("--fresh", action="store_true", help="do every stage again, also those that are done")
    options = parser.parse_args(argv)
    home = Path(os.environ.get("SEQREC_HOME") or "var") / "demo"
    host = os.environ.get("SEQREC_HOST") or "127.0.0.1"
    port = _port(os.environ.get("SEQREC_PORT") or "8000")
    _check_address(host, port)
    _check_data()
    home.mkdir(parents=True, exist_ok=True)
    for left in (*home.glob(".tmp-*"), *home.glob(".old-*")):  # of a run that was killed outright
        shutil.rmtree(left, ignore_errors=True)
    os.environ["SEQREC_HOME"] = str(home)
    _say(f"everything goes to {home}; Ctrl-C stops, and the next run goes on where this one stopped")
    run_stages(_stages(home), home / "state.json", options.fresh)
    _serve(host, port)


def run_stages(stages: Sequence[Stage], state_file: Path, fresh: bool = False) -> None:
    """Run the stages whose outputs are missing or were made from other inputs, and note each one when it is done."""
    done = {} if fresh else _read_state(state_file)
    for number, stage in enumerate(stages, 1):
        label = f"[{number}/{len(stages)}] {stage.name}"
        inputs = stage.inputs()
        if done.get(stage.name) == inputs and all(path.exists() for path in stage.outputs):
            _say(f"\n{label}: done before")
            stage.skipped()
            continue
        _check_disk(state_file.parent)
        _say(f"\n{label}: {stage.says}")
        begun = time.monotonic()
        try:
            stage.run()
        except KeyboardInterrupt:
            print(f"\nstopped in {stage.name}; the next run goes on there", file=sys.stderr)
            raise
        done[stage.name] = inputs
        write_text(state_file, json.dumps(done, indent=1) + "\n")
        _say(f"{label}: done in {format_duration(time.monotonic() - begun)}")


def _stages(home: Path) -> list[Stage]:
    checkpoint, run, table = home / "checkpoint", home / "run", home / "evaluation.md"
    items, interactions = DATA / "items.jsonl.gz", DATA / "interactions.csv.gz"
    data = ["--items", str(items), "--interactions", str(interactions)]

    def train() -> None:
        cli.run("train", [*data, "--preset", "demo", "--out", str(run), "--overwrite"])
        # A copy, so that a training that is broken off leaves alone what is served.
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
            lambda: _say(table.read_text(encoding="utf-8")),
        ),
        Stage(
            "index",
            "encode every item, build the index, verify it, publish it",
            made_from_checkpoint,
            (home / "catalogue.sqlite3", home / "snapshots"),
            index,
        ),
    ]


def _serve(host: str, port: int) -> None:
    """Become the server, so that signals go straight to it."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    body = json.dumps({"history": list(EXAMPLE), "k": 5})
    _say(f"\nserving at {url} : open it in a browser, or ask for what goes with")
    for item_id, title in EXAMPLE.items():
        _say(f"  {item_id}  {title}")
    _say(
        f"\n  curl -s {url}/recommend -H 'content-type: application/json' -d {shlex.quote(body)}\n\nCtrl-C stops it.\n"
    )
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "seqrec", "serve"])


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise InputError(f"{text!r} is no port; say a number from 1 to 65535", "SEQREC_PORT")
    return int(text)


def _check_address(host: str, port: int) -> None:
    """Before minutes of training. Raises InputError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InputError(f"{host!r} is no address to listen on: {error.strerror}", "SEQREC_HOST") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"port {port} of {host} is taken by another program (a demo that still runs?); "
                    f"stop it or choose another, e.g. SEQREC_PORT={port % 65535 + 1}",
                    "SEQREC_PORT",
                ) from None
            if error.errno == errno.EACCES:
                raise InputError(
                    f"port {port} may not be used by this user; say one above 1023", "SEQREC_PORT"
                ) from None
            raise InputError(f"{host!r} is no address of this machine: {error.strerror}", "SEQREC_HOST") from None


def _check_data() -> None:
    for name in ("items.jsonl.gz", "interactions.csv.gz"):
        if not (DATA / name).is_file():
            raise SeqrecError(
                f"{DATA / name} is not there: the demo runs from a clone of the repository, which holds its data. "
                "With data of your own: seqrec train, seqrec index build --publish, seqrec serve"
            )


def _check_disk(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < NEEDED_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"only {free // 1_000_000} MB are free and the demo may need {NEEDED_BYTES // 1_000_000}; "
            "make room, or set SEQREC_HOME to a folder on another disk",
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


def _say(text: str) -> None:
    print(text, flush=True)
