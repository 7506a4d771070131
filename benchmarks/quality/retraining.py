"""Ten days of a shop: a frozen model, one that is retrained each night, and one that somebody trains anew each day.

    seqrec bench retraining                                   # the bundled shop, some 30 minutes on 2 idle cores
    seqrec bench retraining --items I --interactions E --days 10 --share 0.1
    seqrec bench retraining --drawn-from record.json --picture retraining.svg       # of an earlier --json

The newest `--share` of the events are the days, equal parts of it by time. A model is trained on the events before them
and serves. Each day, recommendations are compared with what users have on that day; then the day's events are stored.
Events count in co-occurrence as soon as they are stored, as in the service, also for the frozen model; `nothing new` is
a frozen model whose counts are frozen too.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.tools.report import picture_path
from index.build.reindex import Request, make_snapshot
from index.catalogue.open import open_catalogue, open_histories
from index.events.import_events import import_interactions
from index.snapshot.checkpoints import checkpoint_path
from index.snapshot.publication import published
from index.snapshot.snapshot import SnapshotStore, read_manifest
from retraining.comparison import FIGURE
from retraining.retrain import Options, retrain
from seqrec.data.items import Interactions, read_interactions, read_items
from seqrec.encoder import Encoder, load_model
from seqrec.hybrid.scoring import HybridScorer
from seqrec.runtime.arguments import Parser
from training.config.load import load_config, preset_path
from training.config.schema import RunConfig
from training.data.dataset import Dataset, join
from training.data.splits import SplitConfig
from training.engine.run import train
from training.evaluation.evaluate import EncodedItems, encode_cases, hybrid_scorer, known_counts, model_scorer
from training.evaluation.ranking import case_ranks
from training.evaluation.significance import interval, resampled_means
from training.hybrid.recipe import recipe_for

DATA = Path(__file__).parents[2] / "data" / "online-retail"
NOTHING, FROZEN, NIGHTLY, BY_HAND = "nothing new", "frozen model", "retrained nightly", "trained anew by hand"
METHODS = (NOTHING, FROZEN, NIGHTLY, BY_HAND)
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """begin, end: timestamps; the day has the events from begin on, before end."""

    begin: float
    end: float


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="seqrec bench retraining", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.1, help="of all events, that the days are cut from")
    parser.add_argument("--preset", help="default: the recipe that `seqrec train` chooses")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--no-hand", dest="by_hand", action="store_false", help="leave the training by hand out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written anew after each day")
    parser.add_argument("--picture", type=picture_path, metavar="FILE", help="a plot, .png, .svg or .pdf")
    parser.add_argument("--drawn-from", type=Path, metavar="FILE", help="draw --picture from an earlier --json instead")
    options = parser.parse_args(argv)
    if options.drawn_from is not None:
        draw(json.loads(options.drawn_from.read_text(encoding="utf-8")), options.picture)
        return
    items, events = read_items(options.items), read_interactions(options.interactions)
    config = _config(options, items, len(events))
    with tempfile.TemporaryDirectory() as name:
        simulation = _Simulation(Path(name), options.items, items, events, config)
        days = days_of(events, options.days, options.share)
        simulation.begin(days[0])
        rows: list[dict[str, Any]] = []
        record: dict[str, Any] = {"items": len(items), "events": len(events), "stages": config.stages}
        for number, day in enumerate(days, 1):
            rows.append(simulation.day(number, day, options.by_hand and number < len(days)))
            print(_line(rows[-1]), flush=True)
            record["summary"] = summarize(rows)
            record["days"] = [{**row, "values": {m: float(v.mean()) for m, v in row["values"].items()}} for row in rows]
            if options.json is not None:
                options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for method, figures in record["summary"].items():
        print(f"{method:<22} {_format(figures)}")
    if options.picture is not None:
        draw(record, options.picture)


def _config(options: argparse.Namespace, items: Sequence[Any], events: int) -> RunConfig:
    if options.preset:
        return load_config(preset_path(options.preset), options.overrides)
    chosen = recipe_for(items, events, options.overrides)
    return load_config(preset_path(chosen.preset), [*chosen.overrides, *options.overrides])


def days_of(events: Interactions, days: int, share: float) -> list[Day]:
    """Days of equally many events, the last ones of all."""
    rising = np.sort(events.timestamps)
    first = round(len(rising) * (1 - share))
    begins = [float(rising[place]) for place in np.linspace(first, len(rising), days, endpoint=False).astype(int)]
    ends = [*begins[1:], float(rising[-1]) + 1]
    return [Day(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]


class _Simulation:
    def __init__(
        self, folder: Path, items_file: Path, items: Sequence[Any], events: Interactions, config: RunConfig
    ) -> None:
        self.folder, self.items_file, self.items, self.events, self.config = folder, items_file, items, events, config
        self.home = folder / "home"
        self.first = folder / "first"
        self.hand = self.first  # the checkpoint that somebody made last
        self.began = 0.0

    def begin(self, first: Day) -> None:
        """Train on what is before the first day, and serve it."""
        before = self._write(self._rows(-np.inf, first.begin), "before.csv")
        train(self.config, self.items_file, before, self.first)
        make_snapshot(self.home, Request(self.first / "checkpoint", self.items, interactions=before, on_error="skip"))
        self.began = first.begin

    def day(self, number: int, day: Day, by_hand: bool) -> dict[str, Any]:
        """Serve a day, then store its events and retrain."""
        dataset = self._dataset(day)
        with closing(open_catalogue(self.home)) as catalogue:
            served = published(catalogue)
        assert served is not None
        manifest = read_manifest(SnapshotStore(self.home).path_of(served))
        checkpoints = {
            FROZEN: self.first / "checkpoint",
            NIGHTLY: checkpoint_path(self.home, manifest),
            BY_HAND: self.hand / "checkpoint",
        }
        encoders = {name: load_model(path, "cpu") for name, path in checkpoints.items()}
        values = {name: self._ndcg(encoder, dataset, None) for name, encoder in encoders.items()}
        values[NOTHING] = self._ndcg(encoders[FROZEN], dataset, self._dataset(Day(self.began, day.end)))
        added = self._write(self._rows(day.begin, day.end), "day.csv")
        with closing(open_histories(self.home)) as histories:
            import_interactions(histories, read_interactions(added))
        begin = time.monotonic()
        outcome = retrain(self.home, self.home, Options())
        seconds = time.monotonic() - begin
        if by_hand:
            self.hand = self.folder / f"hand-{number}"
            train(self.config, self.items_file, self._write(self._rows(-np.inf, day.end), "all.csv"), self.hand)
        return {
            "day": number,
            "users": len(values[FROZEN]),
            "values": values,
            "result": outcome.result,
            "reason": outcome.reason,
            "seconds": round(seconds, 1),
        }

    def _ndcg(self, encoder: Encoder, dataset: Dataset, counted: Dataset | None) -> Values:
        """[users] NDCG@10 of the day's items, as the service ranks by default. `counted`: events to count, if not
        all before the day."""
        cases = dataset.cases("test")
        encoded = EncodedItems.of(encoder, dataset)
        scorer = model_scorer(encoder, encoded, dataset, cases, "test")
        settings = encoder.hybrid
        if counted is not None and settings is not None:
            counts = known_counts(settings.cooccurrence, counted, "test")
            hybrid = HybridScorer.of(settings, counts, encoder.term_vectors(list(encoded.tokens)))
            scorer = hybrid_scorer(hybrid, encoded, encode_cases(encoder, encoded.tokens, dataset, cases), cases)
        ranks = case_ranks(scorer, cases, len(dataset.items), ("all items",))
        values: Values = ranks["all items"].figures([10])[FIGURE]
        return values

    def _dataset(self, day: Day) -> Dataset:
        """Everything up to the end of a day, with the day held out."""
        known = {item.item_id for item in self.items}
        rows = [row for row in self._rows(-np.inf, day.end) if self.events.item_ids[row] in known]
        events = Interactions(
            [self.events.user_ids[row] for row in rows],
            [self.events.item_ids[row] for row in rows],
            self.events.timestamps[rows],
        )
        before = float(np.nextafter(day.begin, -np.inf))
        rule = SplitConfig(split="time", targets="all", valid_from=before, test_from=day.begin)
        return replace(join(self.items, events), rule=rule)

    def _rows(self, begin: float, end: float) -> list[int]:
        times = self.events.timestamps
        rows: list[int] = np.flatnonzero((times >= begin) & (times < end)).tolist()
        return rows

    def _write(self, rows: Sequence[int], name: str) -> Path:
        path = self.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "item_id", "timestamp"])
            writer.writerows(
                (self.events.user_ids[row], self.events.item_ids[row], self.events.timestamps[row]) for row in rows
            )
        return path


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Over the users of all days: the mean, its 95 % interval, and the same of the difference to the frozen model."""
    values = np.stack([np.concatenate([row["values"][method] for row in rows]) for method in METHODS], axis=1)
    drawn = resampled_means(values, [np.ones(len(values), np.bool_)], 1000, seed=0)[0]
    summary = {}
    for place, method in enumerate(METHODS):
        low, high = interval(drawn[:, place])
        less, more = interval(drawn[:, place] - drawn[:, 1])
        summary[method] = {
            "ndcg": float(values[:, place].mean()),
            "low": float(low),
            "high": float(high),
            "difference": float((values[:, place] - values[:, 1]).mean()),
            "difference_low": float(less),
            "difference_high": float(more),
        }
    return summary


def draw(record: Mapping[str, Any], path: Path) -> None:
    """NDCG@10 of each method by day, and over all days with its interval if the record has a summary."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    days, summary = record["days"], record.get("summary")
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "seqrec"}):
        figure = Figure(figsize=(9 if summary else 7, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2 if summary else 1, width_ratios=(3, 1)[: 2 if summary else 1], squeeze=False)[0]
        for place, method in enumerate(METHODS):
            values = [day["values"][method] for day in days]
            panels[0].plot([day["day"] for day in days], values, "o-", color=f"C{place}", ms=4, label=method)
            if summary:
                found = summary[method]
                error = [[found["ndcg"] - found["low"]], [found["high"] - found["ndcg"]]]
                panels[1].errorbar(place, found["ndcg"], yerr=error, fmt="o", color=f"C{place}", ms=6, capsize=4)
        panels[0].set(xlabel="day", ylabel="NDCG@10 of the day's items", xticks=[day["day"] for day in days], ylim=0)
        panels[0].legend(frameon=False, fontsize=8)
        if summary:
            panels[1].set(title="all days, 95 % interval", xticks=[], ylim=panels[0].get_ylim())
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)


def _line(row: Mapping[str, Any]) -> str:
    means = ", ".join(f"{method} {values.mean():.4f}" for method, values in row["values"].items())
    night = f"{row['result']} in {row['seconds']:.0f} s: {row['reason']}"
    return f"day {row['day']} ({row['users']} users): {means}; night: {night}"


def _format(figures: Mapping[str, float]) -> str:
    return (
        f"NDCG@10 {figures['ndcg']:.4f} [{figures['low']:.4f}, {figures['high']:.4f}], against the frozen model "
        f"{figures['difference']:+.4f} [{figures['difference_low']:+.4f}, {figures['difference_high']:+.4f}]"
    )


if __name__ == "__main__":
    main()
