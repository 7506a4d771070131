"""Which runs there are, how they stand, and in which settings they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqrec.errors import InputError, SeqrecError
from training.config.load import flat, load_stored_config
from training.engine.run_directory import is_running, read_about


@dataclass(frozen=True)
class Run:
    """`state`: done, running, stopped (goes on when asked to), failed. `ndcg`: the best NDCG@10 of the last stage that
    was validated, all items; None before that. `settings`: by dotted name, as in config.toml."""

    path: str
    state: str
    stages: tuple[str, ...]
    stage: str
    steps: int
    seconds: float
    ndcg: float | None
    data_digest: str
    settings: dict[str, Any]


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs at and below some folders, best first. Raises InputError for a folder that is not there or has none."""
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a directory", "DIR")
        found = [read_run(path) for path in _directories(folder)]
        if not found:
            raise InputError(f"there is no run in {folder}; `seqrec train --out` makes one", "DIR")
        runs |= {Path(run.path).resolve(): run for run in found}
    return sorted(runs.values(), key=lambda run: (0.0 if run.ndcg is None else -run.ndcg, run.path))


def read_run(path: Path) -> Run:
    """A run directory, however far the run is."""
    about = read_about(path) or {}
    state = about.get("state", "")
    if state == "running" and not is_running(path):
        state = "stopped"
    entries = list(_entries(path / "metrics.jsonl"))
    stages = tuple(about.get("stages", ["joint"]))
    last = entries[-1] if entries else {}
    stage = last.get("stage", stages[0])
    checks = [
        entry["ndcg"] for entry in entries if entry["kind"] == "validation" and entry.get("stage", stage) == stage
    ]
    steps: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for entry in entries:
        name = entry.get("stage", stage)
        steps[name] = entry.get("step", entry.get("steps", 0))
        seconds[name] = entry["seconds"]
    try:
        settings = flat(asdict(load_stored_config(path / "config.toml")))
    except SeqrecError:  # of a version with other settings
        settings = {}
    return Run(
        path=str(path),
        state=state,
        stages=stages,
        stage=stage,
        steps=sum(steps.values()),
        seconds=round(sum(seconds.values()), 1),
        ndcg=max(checks) if checks else None,
        data_digest=about.get("data_digest", ""),
        settings=settings,
    )


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings that are not the same in all runs; runs whose settings cannot be read do not count."""
    read = [run.settings for run in runs if run.settings]
    names = sorted({name for settings in read for name in settings} - {"stages"})  # which has a column of its own
    return [name for name in names if len({repr(settings.get(name)) for settings in read}) > 1]


def as_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [asdict(run) for run in runs]


def text_table(runs: Sequence[Run]) -> str:
    header = ["run", "state", "stages", "steps", "time", "NDCG@10", "data"]
    changed = differing(runs)
    rows = [
        [
            run.path,
            run.state if run.state in ("done", "failed") else f"{run.state} in {run.stage}",
            " ".join(run.stages),
            str(run.steps),
            _duration(run.seconds),
            "" if run.ndcg is None else f"{run.ndcg:.4f}",
            run.data_digest[:8],
            *(_said(run.settings.get(name)) for name in changed),
        ]
        for run in runs
    ]
    table = [header + changed, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if len({run.data_digest for run in runs}) > 1:
        lines.append("Not all were trained on the same data: their results do not compare.")
    return "\n".join(lines)


def _directories(folder: Path) -> Iterator[Path]:
    if read_about(folder) is not None:
        yield folder
    else:
        yield from sorted(path.parent for path in folder.rglob("run.json") if read_about(path.parent) is not None)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl; a run that goes on may be in the middle of the last one."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _said(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
