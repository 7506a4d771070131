"""curves.png: loss and validation NDCG@10 by step."""

from __future__ import annotations

from pathlib import Path

from seqrec.training_run import read_curves

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")


def draw(run: Path) -> None:
    """Writes curves.png into a run directory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = [curve for curve in read_curves(run / "metrics.jsonl") if curve.loss]
    if not curves:
        return
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        above.plot(*zip(*curve.loss, strict=True), color=colour, label=curve.stage)
        for axes in (above, below):
            axes.axvspan(curve.begins, curve.ends, color=colour, alpha=0.06, linewidth=0)
        if curve.ndcg:
            below.plot(*zip(*curve.ndcg, strict=True), color=colour, marker="o", markersize=4, label=curve.stage)
            step, best = curve.best
            below.plot([step], [best], color=colour, marker="*", markersize=14)
            below.annotate(f"{best:.4f}", (step, best), textcoords="offset points", xytext=(0, 9), ha="center")
    above.set_ylabel("training loss")
    below.set_ylabel("validation NDCG@10, all items")
    below.set_xlabel("step")
    below.margins(y=0.2)
    above.legend(loc="upper right")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.set_title(run.absolute().name)
    figure.savefig(run / "curves.png", dpi=110)
