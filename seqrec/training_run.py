"""What a run directory (`training.engine.run_directory`) says of its run: its state and its curves.

Training writes it. `seqrec runs` and the service, which has no training code, read it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

Entry = dict[str, Any]
"""A line of metrics.jsonl."""


def read_metadata(path: Path) -> dict[str, Any] | None:
    """The run.json of a directory; None if there is none, or it is not that of a run."""
    try:
        metadata = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # Before runs could be resumed, run.json had no state and was written at the end.
    return {"state": "done", **metadata} if isinstance(metadata, dict) and "data_digest" in metadata else None


def run_state(path: Path, metadata: Mapping[str, Any]) -> str:
    """done, running, stopped (can be resumed) or failed; "" where it is not known."""
    state = str(metadata.get("state", ""))
    return "stopped" if state == "running" and not is_running(path) else state


def is_running(path: Path) -> bool:
    """Whether a process is training in this directory."""
    try:
        with (path / "metrics.jsonl").open("rb") as file:
            return not try_lock(file)
    except OSError:
        return False


def try_lock(file: BinaryIO) -> bool:
    """Lock it exclusively, without waiting; whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_metrics(path: Path) -> Iterator[Entry]:
    """The entries of a metrics.jsonl. Stops at a line that is cut off, as a running or killed process may leave it."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def step_of(entry: Entry) -> int:
    """The step of an entry within its stage; the last step for the entry that ends a stage."""
    return int(entry["step"] if "step" in entry else entry.get("steps") or 0)


def validation_ndcg(entry: Entry) -> float:
    """The NDCG@10 of a validation entry with ties broken at random, which selects the weights.

    Version 0.1.0 wrote entries without it for some stages; those have the favourable `ndcg` only.
    """
    return float(entry["ndcg_expected"] if "ndcg_expected" in entry else entry["ndcg"])


@dataclass
class Curve:
    """The points of one stage. Steps are counted over the whole run."""

    stage: str
    begins: int
    ends: int
    loss: list[tuple[int, float]] = field(default_factory=list)
    ndcg: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, float]:
        return max(self.ndcg, key=lambda point: point[1])


def read_curves(metrics: Path) -> list[Curve]:
    """The curves in a metrics.jsonl, by stage."""
    curves: list[Curve] = []
    for entry in read_metrics(metrics):
        stage = entry.get("stage", "training")
        if not curves or curves[-1].stage != stage:
            begins = curves[-1].ends if curves else 0
            curves.append(Curve(stage, begins, begins))
        curve = curves[-1]
        step = curve.begins + step_of(entry)
        curve.ends = max(curve.ends, step)
        if entry["kind"] == "step":
            curve.loss.append((step, entry["loss"]))
        elif entry["kind"] == "validation":
            curve.ndcg.append((step, validation_ndcg(entry)))
    return curves
