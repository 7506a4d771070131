"""Reports of a simulated month, as the service answers them, for pages that should have something to show."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from index.catalogue.base import Placement
from index.catalogue.histories import Event
from index.catalogue.outcomes import DAY, Attribution, Dimension, Slot
from index.catalogue.sqlite.histories import SqliteHistories
from service.reports.report import make_report
from tests.e2e.console.conftest import Console
from tests.e2e.console.test_views import intercept

TODAY = 20_400
BY: tuple[Dimension, ...] = ("placement", "variant", "model", "position", "cold", "source")
REQUESTS, USERS, SHOWN = 4000, 2500, 8
CLICKS = {"plain": 0.30, "boosted": 0.39, "holdout": 0.28}  # of the first place
EXPERIMENT = {"name": "margin-boost", "holdout": 0.2, "variants": [{"name": name} for name in ("plain", "boosted")]}
HOSTILE = "<img src=x onerror=alert(1)>"
MANY_TIMES = 6


def with_reports(console: Console, readings: int = MANY_TIMES) -> None:
    """Pages that are opened from now on get these reports."""
    answers: dict[str, list[object]] = {}
    for by, placement in product(BY, ("", "product-page")):
        path = f"reports?by={by}&days=30" + (f"&placement={placement}" if placement else "")
        answers[path] = [{"status": 200, **report(by, placement or None)}] * readings
    intercept(console, answers)


def report(by: Dimension, placement: str | None = None) -> dict[str, Any]:
    """As the service answers; not to be changed."""
    return _reports()[by, placement]


@cache
def _reports() -> dict[tuple[Dimension, str | None], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        histories = _simulated(Path(folder) / "h.sqlite3")
        stored = {"product-page": Placement(3, json.dumps({"experiment": EXPERIMENT}))}
        made = {
            (by, placement): asdict(make_report(histories, stored, by, 30, placement, now=TODAY * DAY))
            for by, placement in product(BY, (None, "product-page"))
        }
        histories.close()
    return {of: json.loads(json.dumps(one)) for of, one in made.items()}


def _simulated(path: Path) -> SqliteHistories:
    """A placement with an experiment, and requests without one."""
    chance = random.Random(5)
    events: list[Event] = []
    for number in range(REQUESTS):
        variant = chance.choices(list(CLICKS), (4, 4, 1))[0]
        slot = Slot("product-page", 3, "margin-boost", variant, "6c1d2f90ab34e871", "s1")
        if number % 6 == 0:
            slot = Slot("/recommend", 0, "", "", "6c1d2f90ab34e871", "s1")
        recommendation = ((TODAY - number % 30) * DAY).to_bytes(4) + number.to_bytes(8)
        for position in range(1, SHOWN + 1):
            cold = chance.random() < 0.1
            source = "popular" if variant == "holdout" else chance.choices(("model", "explored"), (9, 1))[0]
            of = Attribution(recommendation, slot, position, source, cold)
            for type in _done(chance, CLICKS.get(slot.variant, 0.25) / position**0.8):
                value = round(chance.lognormvariate(2, 0.7), 2) if type == "purchase" else None
                events.append(Event(f"u{number % USERS}", f"i{position}", 1.7e9, None, type, value, of))
    histories = SqliteHistories(path)
    histories.add(events)
    return histories


def _done(chance: random.Random, rate: float) -> list[str]:
    if chance.random() > rate:
        return ["shown"]
    return ["shown", "clicked", "purchase"] if chance.random() < 0.15 else ["shown", "clicked"]
