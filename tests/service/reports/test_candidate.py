"""The estimate for a candidate snapshot, from random places of a log, against what the candidate would have done."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from index.catalogue.base import Catalogue
from index.catalogue.histories import Event, HistoryStore
from index.catalogue.open import open_catalogue, open_histories
from index.catalogue.outcomes import Attribution, Slot
from seqrec.errors import InputError, PlacementNotFound
from seqrec.text.item_text import TokenizedHistory
from service.live.loader import Loader
from service.live.search import SearchSpec, search
from service.reports.cli import report
from service.settings import Settings
from tests.conftest import TINY
from tests.service.side.models import second_snapshot

pytestmark = pytest.mark.slow

ITEMS = [item_id for item_id, _ in TINY]
RULES = {"exclude_seen": False, "explore": {"share": 1.0, "random": len(ITEMS)}}


@pytest.fixture
def candidate(home: Path) -> str:
    return second_snapshot(home)


@pytest.fixture
def catalogue(home: Path) -> Iterator[Catalogue]:
    with closing(open_catalogue(home)) as catalogue:
        catalogue.set_placement("home", json.dumps(RULES))
        yield catalogue


@pytest.fixture
def histories(home: Path) -> Iterator[HistoryStore]:
    with closing(open_histories(home)) as histories:
        yield histories


def first_choice(home: Path, catalogue: Catalogue, snapshot_id: str, item_id: str) -> str:
    """What a snapshot has first for a history of this item."""
    view = Loader(Settings(home=home), catalogue)(snapshot_id, None).view
    tokens = view.towers.encoder.tokenize_items([dict(TINY)[item_id]])
    [vector] = view.towers.encode_histories([TokenizedHistory(list(tokens))])
    [[best, *_]] = search(view, vector[None], [SearchSpec(1)])
    return view.item_id(best.position)


def log(histories: HistoryStore, choices: dict[str, str], answers: int, propensity: float = 1 / len(ITEMS)) -> float:
    """Answers with one random place each; half of the candidate's choices are clicked, a tenth of the others.

    -> the share of clicks of the candidate's choices that were drawn.
    """
    draw = random.Random(5)
    events, clicks = [], []
    slot = Slot("home", 1, model="m", snapshot="s")
    now = int(time.time())
    for number in range(answers):
        user, last = f"u{number}", draw.choice(ITEMS)
        events.append(Event(user, last, now - 100.0))
        item = draw.choice(ITEMS)
        wanted = choices[last] == item
        clicked = draw.random() < (0.5 if wanted else 0.1)
        if wanted:
            clicks.append(clicked)
        of = Attribution((now - 50).to_bytes(4) + os.urandom(8), slot, 1, "model", False, propensity)
        events.append(Event(user, item, now - 40.0, type="shown", attribution=of))
        if clicked:
            events.append(Event(user, item, now - 30.0, type="clicked", attribution=of))
    histories.add(events)
    return sum(clicks) / max(1, len(clicks))


def estimated(capsys: pytest.CaptureFixture[str], home: Path, snapshot: str, *more: str) -> dict[str, Any]:
    capsys.readouterr()
    report(["--home", str(home), "--candidate", snapshot, "--placement", "home", "--json", *more])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_estimate_is_what_the_candidate_s_choices_got(
    home: Path, catalogue: Catalogue, histories: HistoryStore, candidate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = {item_id: first_choice(home, catalogue, candidate, item_id) for item_id in ITEMS}
    truth = log(histories, choices, 1200)
    found = estimated(capsys, home, candidate)
    assert (found["answers"], found["places"], found["users"]) == (1200, 1200, 1200)
    clicks, purchases = found["metrics"]
    assert clicks["metric"] == "click-through"
    assert clicks["candidate"]["estimate"] == pytest.approx(truth)
    low, high = clicks["candidate"]["interval"]
    assert low < 0.5 < high
    assert clicks["logged"] < low
    assert clicks["candidate"]["effective"] > 100
    assert clicks["candidate"]["support"] == pytest.approx(1.0, abs=0.3)
    assert (purchases["candidate"]["estimate"], purchases["candidate"]["interval"]) == (0, None)
    assert [one for one in found["warnings"] if "older than the snapshot" not in one] == []

    report(["--home", str(home), "--candidate", candidate, "--placement", "home"])
    out = capsys.readouterr().out
    assert "1,200 random places of 1,200 answers to 1,200 users" in out
    assert "click-through" in out


def test_items_that_were_posted_since_and_hidden_ones_are_taken_into_account(
    home: Path, catalogue: Catalogue, histories: HistoryStore, candidate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is hidden by now can be no choice of the candidate."""
    choices = {item_id: first_choice(home, catalogue, candidate, item_id) for item_id in ITEMS}
    log(histories, choices, 200)
    before = estimated(capsys, home, candidate)["metrics"][0]["candidate"]["effective"]
    catalogue.delete([item_id for item_id in ITEMS if item_id != "lamp-1"])
    after = estimated(capsys, home, candidate)["metrics"][0]["candidate"]
    assert after["effective"] != before
    shown = sum(e.item_id == "lamp-1" and e.type == "shown" for e in histories.scan())
    assert after["effective"] == pytest.approx(shown)


def test_too_small_a_log_and_no_exploration_are_said_plainly(
    home: Path, catalogue: Catalogue, histories: HistoryStore, candidate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    none = estimated(capsys, home, candidate)
    assert (none["places"], none["metrics"]) == (0, [])
    assert 'no place was filled at random: give the placement "explore"' in none["warnings"][0]
    log(histories, dict.fromkeys(ITEMS, "nothing"), 20)
    few = estimated(capsys, home, candidate)
    assert "the log is too small to tell: its 20 random places are worth" in few["warnings"][0]
    assert all(one["candidate"] is None or one["candidate"]["interval"] is None for one in few["metrics"])
    with pytest.raises(InputError, match="there is no snapshot 'x'"):
        report(["--home", str(home), "--candidate", "x", "--placement", "home"])
    with pytest.raises(InputError, match="--placement"):
        report(["--home", str(home), "--candidate", candidate])
    with pytest.raises(PlacementNotFound):
        report(["--home", str(home), "--candidate", candidate, "--placement", "cart"])


def test_a_place_counts_after_the_items_before_it(
    home: Path, catalogue: Catalogue, histories: HistoryStore, candidate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The candidate's own first item is on the first place; its second choice is what it would put on the second."""
    last = ITEMS[0]
    view = Loader(Settings(home=home), catalogue)(candidate, None).view
    tokens = list(view.towers.encoder.tokenize_items([dict(TINY)[last]]))
    vector = view.towers.encode_histories([TokenizedHistory(tokens)])
    [ranking] = search(view, vector, [SearchSpec(3)])
    ids = [view.item_id(hit.position) for hit in ranking]
    now = int(time.time())
    events = []
    for number in range(40):
        of = Attribution((now - 50).to_bytes(4) + os.urandom(8), Slot("home", 1), 1, "model", False)
        second = Attribution(of.recommendation, of.slot, 2, "model", False, 0.5)
        events += [
            Event(f"u{number}", last, now - 100.0),
            Event(f"u{number}", ids[0], now - 40.0, type="shown", attribution=of),
            Event(f"u{number}", ids[1 + number % 2], now - 40.0, type="shown", attribution=second),
        ]
    histories.add(events)
    found = estimated(capsys, home, candidate)["metrics"][0]["candidate"]
    assert found["effective"] == pytest.approx(20)
    assert found["support"] == pytest.approx(1.0)
