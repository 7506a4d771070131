"""The result of a benchmark: a table of values and ratios, the same as JSON, and a plot of the ratios.

A line is one contestant in one part of the benchmark. Its ratio compares it with the baseline of that part in each
round; a rate alone means little, because machines are noisy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch

from benchmarks.tools.turns import BUSY, Others, Turns
from seqrec.runtime.threads import cores

_OUTPUT = ("json", "picture")


@dataclass(frozen=True)
class Spread:
    """The distribution of a value that was measured several times."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Line:
    """`value` is a median, in `unit`; `ratio` is relative to the line that `against` names."""

    part: str
    name: str
    value: float
    unit: str
    ratio: Spread | None = None
    against: str = ""


@dataclass
class Report:
    """Create it before measuring: from then on it counts the processor time of other processes."""

    benchmark: str
    title: str
    settings: Mapping[str, Any]
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """Written to the JSON only, next to the lines."""
    others: Others = field(default_factory=Others)

    def add(self, line: Line) -> None:
        self.lines.append(line)

    def add_turns(self, part: str, turns: Turns, count: float, unit: str) -> None:
        """Adds a line per contestant, relative to the first one. Each turn processed `count` units."""
        first = next(iter(turns.seconds))
        for name in turns.seconds:
            ratio = None if name == first else Spread.of(turns.ratios(name, first))
            self.add(Line(part, name, count / turns.median(name), unit, ratio, first if ratio else ""))

    def finish(self, json_file: Path | None, picture: Path | None) -> None:
        """Prints the table, warns if the machine was busy, and writes the requested files."""
        taken = self.others.warn()
        print(self.table())
        if json_file is not None:
            json_file.write_text(json.dumps(self.record(taken), indent=1) + "\n", encoding="utf-8")
        if picture is not None:
            draw(self, picture, taken)

    def table(self) -> str:
        rows = [("", "", "", "ratio", "min - max", "against")]
        part = None
        for line in self.lines:
            ratio = line.ratio
            rows.append(
                (
                    "" if line.part == part else line.part,
                    line.name,
                    f"{number(line.value)} {line.unit}",
                    "" if ratio is None else number(ratio.median),
                    ""
                    if ratio is None or ratio.least == ratio.most
                    else f"{number(ratio.least)} - {number(ratio.most)}",
                    line.against,
                )
            )
            part = line.part
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        aligned = ("<", "<", ">", ">", ">", "<")
        texts = [
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(["", self.title, "", *texts, *(["", *self.notes] if self.notes else [])])

    def record(self, taken: float) -> dict[str, Any]:
        """Everything, for JSON. `taken`: the cores that other processes used during the run."""
        return {
            "benchmark": self.benchmark,
            "title": self.title,
            "settings": {name: _plain(value) for name, value in self.settings.items() if name not in _OUTPUT},
            "machine": machine(),
            "load_at_start": self.others.load,
            "cores_taken_by_others": taken,
            "lines": [asdict(line) for line in self.lines],
            "notes": self.notes,
            **self.more,
        }


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `--json` and `--picture`. A plot that cannot be drawn is an error before anything is measured."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to FILE")
    parser.add_argument("--picture", type=picture_path, metavar="FILE.png", help="also plot the ratios")


def machine() -> dict[str, Any]:
    """When and on what this was measured: the processor model, but no name of the machine."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "processor": processor(),
        "cores": cores(),
        "logical_cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def number(value: float) -> str:
    """Three significant digits, or all digits before the decimal point."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def draw(report: Report, path: Path, taken: float) -> None:
    """Bars of the ratios with their ranges, or of the values if there is no ratio."""
    # Unlike pyplot, the plain object needs no display and has no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [line for line in report.lines if line.ratio is not None] or report.lines
    figure = Figure(figsize=(9, 1.6 + 0.32 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = range(len(lines))
    parts = list(dict.fromkeys(line.part for line in lines))
    colours = [f"C{parts.index(line.part) % 10}" for line in lines]
    middle = [line.value if line.ratio is None else line.ratio.median for line in lines]
    axes.barh(places, middle, color=colours)
    for place, line in zip(places, lines, strict=True):
        if line.ratio is not None:
            axes.plot([line.ratio.least, line.ratio.most], [place, place], color="black", linewidth=1.5)
    if any(line.ratio for line in lines):
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set_xlabel("ratio: median, minimum and maximum")
    else:
        axes.set_xlabel(lines[0].unit if lines else "")
    said = [f"{line.name} / {line.against}" if line.against else line.name for line in lines]
    axes.set_yticks(list(places), [f"{line.part}: {text}" for line, text in zip(lines, said, strict=True)], fontsize=8)
    axes.invert_yaxis()
    here = machine()
    busy = f"\nNOT TO BE TRUSTED: other processes took {taken:.2f} cores" if taken > BUSY else ""
    title = f"{report.title}\n{here['processor']}, {here['threads']} threads, {here['date']}{busy}"
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=150)


def log(text: str) -> None:
    """Progress, on standard error: standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def require(module: str, what: str) -> None:
    """Ends the program with installation advice if an optional library is missing."""
    if importlib.util.find_spec(module) is None:
        sys.exit(f"{what} needs {module}, which is not installed: pip install -c constraints.txt {module}")


def picture_path(name: str) -> Path:
    """For options; ends the program where matplotlib is missing."""
    path = Path(name)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{name} does not end in .png, .svg or .pdf")
    require("matplotlib", "--picture")
    return path


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    models = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _plain(value: object) -> Any:
    """For JSON. Of a path, the last two names: the rest is specific to the machine."""
    if isinstance(value, Path):
        return "/".join(value.absolute().parts[-2:])
    return list(value) if isinstance(value, tuple) else value
