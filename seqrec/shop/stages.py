"""Stages that are skipped while nothing that they depend on has changed.

A stage's output is written atomically, then a digest of its inputs into state.json. The next run skips stages with
unchanged inputs and repeats the others; one that was interrupted continues.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqrec.data.files import write_text
from seqrec.runtime.progress import format_duration

NEEDED_BYTES = 100_000_000
"""Free disk space; a run needs about a tenth, and the old one is kept until a new one is complete."""
STATE = "state.json"


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
    always: bool = False
    """Run each time, because it reads something that has no digest, such as a database."""


def run_stages(stages: Sequence[Stage], state_file: Path, fresh: bool = False) -> None:
    """Runs the stages whose outputs are missing or have other inputs, and records each in `state_file`."""
    done = {} if fresh else read_state(state_file)
    for number, stage in enumerate(stages, 1):
        label = f"[{number}/{len(stages)}] {stage.name}"
        inputs = stage.inputs()
        if not stage.always and is_fresh(stage, done, inputs):
            _print(f"\n{label}: up to date")
            stage.skipped()
            continue
        check_disk(state_file.parent)
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


def is_fresh(stage: Stage, done: dict[str, str], inputs: str) -> bool:
    return done.get(stage.name) == inputs and all(path.exists() for path in stage.outputs)


def check_disk(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < NEEDED_BYTES:
        raise OSError(
            errno.ENOSPC,
            f"only {free // 1_000_000} MB are free and {NEEDED_BYTES // 1_000_000} may be needed; "
            "free some space, or set SEQREC_HOME to a folder on another disk",
            str(path),
        )


def read_state(path: Path) -> dict[str, str]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _print(text: str) -> None:
    print(text, flush=True)
