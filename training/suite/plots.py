"""The plots of a suite (PNG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.suite.plan import BASELINES, Table, TableRow
from training.suite.results import Results


def draw(folder: Path, of_table: Mapping[Table, Sequence[TableRow]], results: Results) -> dict[Table, dict[str, str]]:
    """Writes the plots. -> file names and captions by table."""
    import matplotlib as mpl

    drawn: dict[Table, dict[str, str]] = {}
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        for table, rows in of_table.items():
            figure, caption = _figure(table, rows, results)
            if figure is not None:
                name = f"{table.replace('-', '_')}.png"
                figure.savefig(folder / name, dpi=120, metadata={"Software": None})
                drawn[table] = {name: caption}
    return drawn


def _figure(table: Table, rows: Sequence[TableRow], results: Results) -> tuple[Any, str]:
    if table == "training-data":
        return _by_share(rows, results), "NDCG@10 by the share of users in training"
    if table == "warm-cold":
        return _bars(rows, results, ("warm targets", "cold targets")), "NDCG@10 of warm and cold targets"
    if table == "pretraining-steps":
        return _by_step(rows, results), "NDCG@10 by pretraining step"
    return _bars(rows, results, ("all targets",)), "NDCG@10 of each method"


def _bars(rows: Sequence[TableRow], results: Results, groups: Sequence[str]) -> Any:
    """One panel per group; points with the interval over users or the deviation over seeds."""
    rows = [row for row in rows if results.of(row)]
    if not rows or not any(results.value(row, group=groups[-1]) for row in rows):
        return None
    figure = _new(4.8 * len(groups) + 1.6, 1.2 + 0.34 * len(rows))
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, group in zip(panels, groups, strict=True):
        for place, row in enumerate(rows):
            value = results.value(row, group=group)
            if value is not None:
                colour = "C1" if row.method not in BASELINES else "0.45"
                bars = [[bar] for bar in value.bars]
                panel.errorbar(value.mean, place, xerr=bars, fmt="o", color=colour, ms=5, capsize=3, clip_on=False)
        panel.set_yticks(range(len(rows)), [row.label for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.set_xlabel(f"NDCG@10, {group}")
        panel.grid(axis="x", alpha=0.3)
    return figure


def _by_share(rows: Sequence[TableRow], results: Results) -> Any:
    figure = _new(7.2, 4.6)
    panel = figure.subplots()
    drawn = False
    for number, label in enumerate(dict.fromkeys(row.label for row in rows)):
        own = [row for row in rows if row.label == label]
        points = [(100 * row.share, value) for row in own if (value := results.value(row)) is not None]
        if points:
            drawn = True
            style = ":" if own[0].method in BASELINES else "-"
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
    shares = list(dict.fromkeys(row.share for row in rows))
    panel.set_xscale("log")
    panel.set_xticks([100 * share for share in shares], [f"{share:.0%}" for share in shares])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.set_xlabel("share of users in training")
    panel.set_ylabel("NDCG@10, all items")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    return figure


def _by_step(rows: Sequence[TableRow], results: Results) -> Any:
    steps = results.steps(rows[0].experiments[0])
    if not steps:
        return None
    figure = _new(7.2, 4.0)
    panel = figure.subplots()
    panel.plot(*zip(*steps, strict=True), "o-", color="C1", ms=4)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("pretraining step")
    panel.set_ylabel("NDCG@10, test items")
    panel.grid(alpha=0.3)
    return figure


def _new(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
