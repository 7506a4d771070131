"""A suite as pictures (PNG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.plots import check_pictures
from training.suite.plan import FLOORS, Line, Table
from training.suite.results import Results


def draw(folder: Path, of_table: Mapping[Table, Sequence[Line]], results: Results) -> dict[Table, dict[str, str]]:
    """Write what there is to draw; -> file names and captions by table. Raises InputError without matplotlib."""
    check_pictures()
    import matplotlib as mpl

    drawn: dict[Table, dict[str, str]] = {}
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        for table, lines in of_table.items():
            figure, caption = _figure(table, lines, results)
            if figure is not None:
                name = f"{table.replace('-', '_')}.png"
                figure.savefig(folder / name, dpi=120, metadata={"Software": None})
                drawn[table] = {name: caption}
    return drawn


def _figure(table: Table, lines: Sequence[Line], results: Results) -> tuple[Any, str]:
    if table == "training-data":
        return _by_share(lines, results), "NDCG@10 by the share of users that train"
    if table == "warm-cold":
        return _bars(lines, results, ("warm targets", "cold targets")), "NDCG@10 of warm and cold targets"
    if table == "pretraining-steps":
        return _by_step(lines, results), "NDCG@10 by step of pretraining"
    return _bars(lines, results, ("all targets",)), "NDCG@10 of each method"


def _bars(lines: Sequence[Line], results: Results, groups: Sequence[str]) -> Any:
    """A panel a group; points with the interval over users, or the spread over seeds."""
    lines = [line for line in lines if results.of(line)]
    if not lines or not any(results.value(line, group=groups[-1]) for line in lines):
        return None
    figure = _new(4.8 * len(groups) + 1.6, 1.2 + 0.34 * len(lines))
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, group in zip(panels, groups, strict=True):
        for place, line in enumerate(lines):
            value = results.value(line, group=group)
            if value is not None:
                colour = "C1" if line.method not in FLOORS else "0.45"
                bars = [[bar] for bar in value.bars]
                panel.errorbar(value.mean, place, xerr=bars, fmt="o", color=colour, ms=5, capsize=3, clip_on=False)
        panel.set_yticks(range(len(lines)), [line.label for line in lines])
        panel.set_ylim(len(lines) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.set_xlabel(f"NDCG@10, {group}")
        panel.grid(axis="x", alpha=0.3)
    return figure


def _by_share(lines: Sequence[Line], results: Results) -> Any:
    figure = _new(7.2, 4.6)
    panel = figure.subplots()
    drawn = False
    for number, label in enumerate(dict.fromkeys(line.label for line in lines)):
        own = [line for line in lines if line.label == label]
        points = [(100 * line.share, value) for line in own if (value := results.value(line)) is not None]
        if points:
            drawn = True
            style = ":" if own[0].method in FLOORS else "-"
            panel.errorbar(
                [share for share, _ in points],
                [value.mean for _, value in points],
                yerr=list(zip(*(value.bars for _, value in points), strict=True)),
                fmt=f"o{style}",
                color=f"C{number}",
                ms=4,
                capsize=2,
                label=label,
            )
    if not drawn:
        return None
    shares = list(dict.fromkeys(line.share for line in lines))
    panel.set_xscale("log")
    panel.set_xticks([100 * share for share in shares], [f"{share:.0%}" for share in shares])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.set_xlabel("users that train")
    panel.set_ylabel("NDCG@10, all items")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    return figure


def _by_step(lines: Sequence[Line], results: Results) -> Any:
    steps = results.steps(lines[0].cells[0])
    if not steps:
        return None
    figure = _new(7.2, 4.0)
    panel = figure.subplots()
    panel.plot(*zip(*steps, strict=True), "o-", color="C1", ms=4)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("step of pretraining")
    panel.set_ylabel("NDCG@10, test items")
    panel.grid(alpha=0.3)
    return figure


def _new(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
