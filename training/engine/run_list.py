"""Lists training runs: their state, their best validation result, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.progress import format_duration
from seqrec.training_run import read_metadata, read_metrics, run_state, step_of, validation_ndcg
from training.config.load import flat, load_stored_config


@dataclass(frozen=True)
class Run:
    """`state`: done, running, stopped (can be resumed) or failed. `ndcg`: the best validation NDCG@10 of the last
    validated stage, all items, ties broken at random; None before the first validation. `settings`: by dotted name."""

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
    """The runs at and below some folders, best first. Raises InputError for a folder that is missing or has none."""
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a directory", "DIR")
        found = [read_run(path) for path in _directories(folder)]
        if not found:
            raise InputError(f"no runs in {folder}; `seqrec train --out` makes one", "DIR")
        runs |= {Path(run.path).resolve(): run for run in found}
    return sorted(runs.values(), key=lambda run: (0.0 if run.ndcg is None else -run.ndcg, run.path))


def read_run(path: Path) -> Run:
    """Reads a run directory in any state."""
    metadata = read_metadata(path) or {}
    entries = list(read_metrics(path / "metrics.jsonl"))
    stages = tuple(metadata.get("stages", ["joint"]))
    last = entries[-1] if entries else {}
    stage = last.get("stage", stages[0])
    checks = [
        validation_ndcg(entry)
        for entry in entries
        if entry["kind"] == "validation" and entry.get("stage", stage) == stage
    ]
    steps: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for entry in entries:
        name = entry.get("stage", stage)
        steps[name] = step_of(entry)
        seconds[name] = entry["seconds"]
    try:
        settings = flat(asdict(load_stored_config(path / "config.toml")))
    except SeqrecError:  # written by a version with other settings
        settings = {}
    return Run(
        path=str(path),
        state=run_state(path, metadata),
        stages=stages,
        stage=stage,
        steps=sum(steps.values()),
        seconds=round(sum(seconds.values()), 1),
        ndcg=max(checks) if checks else None,
        data_digest=metadata.get("data_digest", ""),
        settings=settings,
    )


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings that differ between runs; runs whose settings cannot be read are ignored."""
    read = [run.settings for run in runs if run.settings]
    names = sorted({name for settings in read for name in settings} - {"stages"})  # which has its own column
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
            format_duration(run.seconds),
            "" if run.ndcg is None else f"{run.ndcg:.4f}",
            run.data_digest[:8],
            *(_format(run.settings.get(name)) for name in changed),
        ]
        for run in runs
    ]
    table = [header + changed, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    if len({run.data_digest for run in runs}) > 1:
        lines.append("The runs used different data: their results cannot be compared.")
    return "\n".join(lines)


def _directories(folder: Path) -> Iterator[Path]:
    if read_metadata(folder) is not None:
        yield folder
    else:
        yield from sorted(path.parent for path in folder.rglob("run.json") if read_metadata(path.parent) is not None)


def _format(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
