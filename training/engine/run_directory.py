"""A run directory: the configuration, state and results of one training run.

config.toml     every setting
run.json        state (running, failed, done), seed, data digest, versions; the result when done
metrics.jsonl   steps, validations and the end of each stage, one line each
tensorboard/    the same as event files for TensorBoard
last/state.pt   while unfinished: everything needed to resume
last/checkpoint the weights of the last step of a stage
best/           while unfinished: the best weights so far
checkpoint/     when done: the best weights (seqrec.checkpoint)
curves.png      loss and validation by step
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from seqrec.data.files import check_output, new_directory, write_text
from seqrec.errors import InputError
from seqrec.training_run import read_metadata, try_lock
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
        """Called before any work. Raises InputError if no run can start or be resumed here."""
        check_output(self.path, "--out")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; choose a directory", "--out")
        if not self.path.exists() or overwrite:
            return
        choice = "choose another directory, or add --overwrite"
        metadata = read_metadata(self.path)
        if metadata is None or metadata["state"] == "done":
            what = "a finished run" if metadata else "not a run"
            raise InputError(f"{self.path} exists already ({what}); {choice}", "--out")
        if metadata["state"] == "failed":
            raise InputError(f"{self.path} is a failed run: {metadata['error']}; {choice}", "--out")
        before = flat(asdict(load_stored_config(self.config)))
        now = flat(asdict(config))
        names = sorted((before.keys() | now.keys()) - {"model.start_required"})  # which changes no result
        changed = [name for name in names if before.get(name) != now.get(name)]
        if changed:
            changes = ", ".join(f"{name} is {now.get(name)!r} and was {before.get(name)!r}" for name in changed)
            raise InputError(
                f"{self.path} is an unfinished run with other settings: {changes}; use the same settings to resume it, "
                f"otherwise {choice}",
                "--out",
            )

    def create(self, config: RunConfig, metadata: Mapping[str, Any], overwrite: bool) -> None:
        """Creates the directory and locks it. Raises InputError if another process trains in it."""
        if self.path.exists():
            self._lock_run()
        with new_directory(self.path, replace=overwrite) as directory:
            fresh = RunDirectory(directory)
            fresh.config.write_text(dump_config(config), encoding="utf-8")
            fresh.metrics.touch()
            fresh.write_metadata({**metadata, "state": "running"})
        self._lock_run()

    def resume(self, metadata: Mapping[str, Any]) -> None:
        """Locks an unfinished run to resume it. Raises InputError if another process has it, and for other data."""
        self._lock_run()
        before = read_metadata(self.path)
        if before is None or before["data_digest"] != metadata["data_digest"]:
            raise InputError(
                f"{self.path} is an unfinished run on other data; choose another directory, or add --overwrite", "--out"
            )
        for name in ("seqrec", "torch", "device", "threads"):
            if before[name] != metadata[name]:
                log.warning(
                    "%s is %s and was %s when the run started: weights may differ in the last digits from those of an "
                    "uninterrupted run",
                    name,
                    metadata[name],
                    before[name],
                )
        self.write_metadata({**metadata, "state": "running"})

    def write_metadata(self, metadata: Mapping[str, Any]) -> None:
        write_text(self.metadata, json.dumps(metadata, indent=1) + "\n")

    def load_state(self) -> State | None:
        """The last saved state; None if there is none."""
        return load_state(self.state) if self.state.exists() else None

    def save_state(self, state: State) -> None:
        save_state(self.state, state)

    def cleanup(self) -> None:
        """Removes what only an unfinished run needs."""
        self.state.unlink(missing_ok=True)
        shutil.rmtree(self.best, ignore_errors=True)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lock_run(self) -> None:
        if self.metrics.exists():
            self.close()
            self._lock = self.metrics.open("rb")
            if not try_lock(self._lock):
                self.close()
                raise InputError(f"another process is training in {self.path}", "--out")
