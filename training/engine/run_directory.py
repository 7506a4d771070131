"""A run directory: what a training was asked for, how far it is, and what came of it.

config.toml     every setting, as resolved
run.json        state (running, failed, done), seed, data digest, versions; when done, how it ended
metrics.jsonl   one line a report: steps, validations, the end of each stage
tensorboard/    the same as event files, where tensorboard is installed
last/state.pt   while it runs: all that a run needs to go on from there
last/checkpoint the weights of a stage's last step
best/           while it runs: the best weights so far
checkpoint/     when it is done: the best weights (seqrec.checkpoint)
curves.png      loss and validation by step, where matplotlib is installed
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from seqrec.data.files import new_directory, write_text
from seqrec.errors import InputError
from training.config.load import dump_config, flat, load_stored_config
from training.config.schema import RunConfig
from training.engine.state import State, load_state, save_state

log = logging.getLogger(__name__)


class RunDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metadata = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.state = path / "last" / "state.pt"
        self.last = path / "last" / "checkpoint"
        self.best = path / "best"
        self.checkpoint = path / "checkpoint"
        self._lock: BinaryIO | None = None

    def check(self, config: RunConfig, overwrite: bool) -> None:
        """Before anything is read or made. Raises InputError where no run can begin or go on."""
        if not self.path.exists() or overwrite:
            return
        choice = "choose another directory, or say --overwrite"
        metadata = read_metadata(self.path)
        if metadata is None or metadata["state"] == "done":
            what = "a finished run" if metadata else "no run"
            raise InputError(f"{self.path} exists already ({what}); {choice}", "--out")
        if metadata["state"] == "failed":
            raise InputError(f"{self.path} is a run that failed: {metadata['error']}; {choice}", "--out")
        before = flat(asdict(load_stored_config(self.config)))
        now = flat(asdict(config))
        changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        if changed:
            said = ", ".join(f"{name} is {now.get(name)!r} and was {before.get(name)!r}" for name in changed)
            raise InputError(
                f"{self.path} is an unfinished run with other settings: {said}; with the same ones it goes on, "
                f"otherwise {choice}",
                "--out",
            )

    def create(self, config: RunConfig, metadata: Mapping[str, Any], overwrite: bool) -> None:
        """Make it; from now on no other process may train in it. Raises InputError where one is."""
        if self.path.exists():
            self._take()
        with new_directory(self.path, replace=overwrite) as directory:
            fresh = RunDirectory(directory)
            fresh.config.write_text(dump_config(config), encoding="utf-8")
            fresh.metrics.touch()
            fresh.write_metadata({**metadata, "state": "running"})
        self._take()

    def resume(self, metadata: Mapping[str, Any]) -> None:
        """Go on with the run in it. Raises InputError where another process is at it, and for other data."""
        self._take()
        before = read_metadata(self.path)
        if before is None or before["data_digest"] != metadata["data_digest"]:
            raise InputError(
                f"{self.path} is an unfinished run on other data; choose another directory, or say --overwrite", "--out"
            )
        for name in ("seqrec", "torch", "device", "threads"):
            if before[name] != metadata[name]:
                log.warning(
                    "%s is %s and was %s when the run began: its weights may differ in the last digits from "
                    "those of an unbroken run",
                    name,
                    metadata[name],
                    before[name],
                )
        self.write_metadata({**metadata, "state": "running"})

    def write_metadata(self, metadata: Mapping[str, Any]) -> None:
        write_text(self.metadata, json.dumps(metadata, indent=1) + "\n")

    def load_state(self) -> State | None:
        """What was saved last; None if the run ended before anything was."""
        return load_state(self.state) if self.state.exists() else None

    def save_state(self, state: State) -> None:
        save_state(self.state, state)

    def cleanup(self) -> None:
        """Take away what only an unfinished run needs."""
        self.state.unlink(missing_ok=True)
        shutil.rmtree(self.best, ignore_errors=True)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take(self) -> None:
        if self.metrics.exists():
            self.close()
            self._lock = self.metrics.open("rb")
            if not _locked(self._lock):
                self.close()
                raise InputError(f"another process is training in {self.path}", "--out")


def read_metadata(path: Path) -> dict[str, Any] | None:
    """run.json of a directory; None where there is none, or none of a run."""
    try:
        metadata = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # Before runs could be resumed, a directory appeared when its run was done.
    return {"state": "done", **metadata} if isinstance(metadata, dict) and "data_digest" in metadata else None


def is_running(path: Path) -> bool:
    """Whether a process is training in it now."""
    try:
        with (path / "metrics.jsonl").open("rb") as file:
            return not _locked(file)
    except OSError:
        return False


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
