"""Plots of an evaluation (PNG): methods with intervals, and NDCG by history length and by popularity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.evaluation.comparison import Evaluation, Row
from training.evaluation.groups import Breakdown
from training.evaluation.ranking import CANDIDATE_MODES

BY_GROUP: tuple[tuple[Breakdown, str], ...] = (
    ("history length", "ndcg_by_history_length.png"),
    ("target popularity", "ndcg_by_target_popularity.png"),
)


def draw(evaluation: Evaluation, folder: Path) -> dict[str, str]:
    """Writes the plots into `folder`. -> file names and captions."""
    import matplotlib as mpl

    captions = {"methods.png": f"NDCG@{evaluation.ks[0]} of each method with its 95 % interval"}
    # Without pyplot: no window system is needed and no global state is left.
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        _save(_methods(evaluation), folder / "methods.png")
        for breakdown, name in BY_GROUP:
            if any(row.breakdown == breakdown for row in evaluation.rows):
                _save(_by_group(evaluation, breakdown), folder / name)
                captions[name] = f"NDCG@{evaluation.ks[0]} by {breakdown}, with 95 % intervals"
    return captions


def _methods(evaluation: Evaluation) -> Any:
    metric = f"NDCG@{evaluation.ks[0]}"
    methods = list(dict.fromkeys(row.method for row in evaluation.rows))
    figure, panels = _panels(len(CANDIDATE_MODES), height=1.4 + 0.4 * len(methods))
    for panel, protocol in zip(panels, CANDIDATE_MODES, strict=True):
        for place, method in enumerate(methods):
            row = evaluation.row(method, protocol)
            if row.users:
                colour = "C1" if method in evaluation.checkpoints else "0.45"
                _point(panel, row, metric, place, colour, sideways=True)
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.set_yticks(range(len(methods)), methods)
        panel.set_xlim(left=0)
        panel.set_xlabel(f"{metric}, {protocol}")
        panel.grid(axis="x", alpha=0.3)
    for panel in panels[1:]:
        panel.tick_params(labelleft=False)
    return figure


def _by_group(evaluation: Evaluation, breakdown: Breakdown) -> Any:
    metric = f"NDCG@{evaluation.ks[0]}"
    methods = list(dict.fromkeys(row.method for row in evaluation.rows))
    figure, panels = _panels(len(CANDIDATE_MODES), height=4.6)
    for panel, protocol in zip(panels, CANDIDATE_MODES, strict=True):
        rows = [row for row in evaluation.rows if row.breakdown == breakdown and row.protocol == protocol]
        groups = list(dict.fromkeys(row.group for row in rows))
        for number, method in enumerate(methods):
            own = [row for row in rows if row.method == method]
            shift = 0.6 * ((number + 0.5) / len(methods) - 0.5)  # so that intervals do not overlap
            for place, row in enumerate(own):
                if row.users:
                    _point(panel, row, metric, place + shift, f"C{number}")
            known = [(place + shift, row.figures[metric].value) for place, row in enumerate(own) if row.users]
            style = "-" if method in evaluation.checkpoints else ":"
            panel.plot([x for x, _ in known], [y for _, y in known], style, color=f"C{number}", label=method)
        users = [next(row.users for row in rows if row.group == group) for group in groups]
        labels = [f"{group.partition(' ')[0]}\n{count:,}" for group, count in zip(groups, users, strict=True)]
        panel.set_xticks(range(len(groups)), labels)
        panel.set_xlabel(f"{breakdown} ({groups[0].rpartition(' ')[2]}), and the number of users below")
        panel.set_title(protocol, fontsize=10)
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_ylim(bottom=0)  # of all panels, once everything is drawn
    panels[0].set_ylabel(metric)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    return figure


def _point(panel: Any, row: Row, metric: str, place: float, colour: str, sideways: bool = False) -> None:
    found = row.figures[metric]
    # With few users a value may lie outside its percentile interval.
    error = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
    if sideways:
        panel.errorbar(found.value, place, xerr=error, fmt="o", color=colour, ms=5, capsize=3)
    else:
        panel.errorbar(place, found.value, yerr=error, fmt="o", color=colour, ms=4, capsize=2, lw=1)


def _panels(count: int, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * count, height), layout="constrained")
    return figure, figure.subplots(1, count, sharey=True)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Software": None})
