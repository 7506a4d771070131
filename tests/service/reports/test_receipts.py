"""Ids of recommendations say what was recommended, and nobody else can make one."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import replace

import pytest

from index.catalogue.outcomes import Slot
from seqrec.errors import InputError
from service.reports.receipts import MAX_CHARACTERS, MAX_ITEMS, SOURCES, Listed, make_receipt, read_receipt

SECRET = bytes(range(32))
SLOT = Slot("home", 8116, "prices", "b", "5f2a9c0e5f2a9c0e", "20261129T110203-1a2b3c")
LONG = Slot("p" * 64, 2**53 - 1, "e" * 64, "v" * 64, "m" * 16, "20261129T110203-1a2b3c")


def listed(count: int, source: str = "model") -> list[Listed]:
    return [Listed(f"ä/item {n}", source, n % 2 == 1) for n in range(count)]


def test_an_id_says_what_was_recommended() -> None:
    now = time.time()
    for source in SOURCES:
        receipt = read_receipt(SECRET, make_receipt(SECRET, SLOT, 20, listed(10, source), now), 60, "f")
        assert receipt.slot == SLOT
        assert receipt.time == int(now)
        of = receipt.attribution("ä/item 3", "f")
        assert (of.position, of.source, of.cold, of.slot) == (24, source, True, SLOT)
        assert of.day == int(now // 86_400)
        assert not receipt.attribution("ä/item 4", "f").cold
        with pytest.raises(InputError, match="'other' is not among the items"):
            receipt.attribution("other", "f")


def test_a_source_of_a_later_version_counts_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.reports.receipts.SOURCES", (*SOURCES, "collected"))
    text = make_receipt(SECRET, SLOT, 0, listed(2, "collected"))
    monkeypatch.undo()
    of = read_receipt(SECRET, text, 60, "f").attribution("ä/item 1", "f")
    assert (of.source, of.position, of.cold, of.slot) == ("unknown", 2, True, SLOT)


def test_what_a_later_version_adds_to_what_made_an_answer_is_ignored() -> None:
    items = [Listed("a", "explored", False, 0.25)]
    text = make_receipt(SECRET, replace(SLOT, snapshot=f"{SLOT.snapshot}|region=eu"), 0, items)
    receipt = read_receipt(SECRET, text, 60, "f")
    assert (receipt.slot, receipt.propensity("a")) == (SLOT, 0.25)


def test_an_id_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.reports.receipts._FORMAT", 2)
    text = make_receipt(SECRET, SLOT, 0, listed(2))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"an id of format 2, .*; this one reads format 1\. Run the same version"):
        read_receipt(SECRET, text, 60, "f")


def test_two_answers_differ() -> None:
    ids = [make_receipt(SECRET, SLOT, 0, listed(1), 1.8e9) for _ in range(2)]
    assert ids[0] != ids[1]


def test_an_id_is_bounded() -> None:
    assert len(make_receipt(SECRET, SLOT, 0, listed(10))) < 270
    longest = make_receipt(SECRET, LONG, 10_000, listed(2 * MAX_ITEMS))
    assert len(longest) <= MAX_CHARACTERS
    assert read_receipt(SECRET, longest, 60, "f").attribution(f"ä/item {MAX_ITEMS - 1}", "f").position == 11_000
    assert read_receipt(SECRET, make_receipt(SECRET, SLOT, 0, []), 60, "f").items == b""


def test_forged_ids_are_refused() -> None:
    """Every changed byte, every cut, another secret, and noise."""
    good = make_receipt(SECRET, SLOT, 0, listed(3))
    packed = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    chance = random.Random(1)
    forged = [packed[:n] for n in range(len(packed))]
    forged += [packed[:n] + bytes([packed[n] ^ 1 << chance.randrange(8)]) + packed[n + 1 :] for n in range(len(packed))]
    forged += [chance.randbytes(chance.randrange(200)) for _ in range(200)]
    texts = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in forged]
    for text in [*texts, good[:-1], good + "A", "", "é", "=", "A" * 7500, make_receipt(b"x" * 32, SLOT, 0, listed(3))]:
        with pytest.raises(InputError, match="not an id of this service"):
            read_receipt(SECRET, text, 60, "f")


def test_ids_expire() -> None:
    good = make_receipt(SECRET, SLOT, 0, listed(1), 1_800_000_000)
    assert read_receipt(SECRET, good, 86_400, "f", 1_800_000_000 + 86_400).slot == SLOT
    with pytest.raises(InputError, match=r"1\.5 days old; events count for 1 days"):
        read_receipt(SECRET, good, 86_400, "f", 1_800_000_000 + 1.5 * 86_400)
    with pytest.raises(InputError, match="clocks"):
        read_receipt(SECRET, good, 86_400, "f", 1_800_000_000 - 3600)


def test_an_id_says_how_likely_random_places_were() -> None:
    chances = [0.9 + 0.1 / 7, None, 0.1 / 7, 0.9, 0.1 / 7]
    items = [Listed(f"i{n}", "explored", n == 2, chance) for n, chance in enumerate(chances)]
    text = make_receipt(SECRET, LONG, 3, items)
    receipt = read_receipt(SECRET, text, 60, "f")
    assert receipt.slot == LONG
    assert [receipt.propensity(f"i{n}") for n in range(5)] == [None if c is None else pytest.approx(c) for c in chances]
    assert [receipt.attribution(f"i{n}", "f").position for n in range(5)] == [4, 5, 6, 7, 8]
    assert [receipt.attribution(f"i{n}", "f").cold for n in (1, 2)] == [False, True]
    assert {receipt.attribution(f"i{n}", "f").source for n in range(5)} == {"explored"}
    with pytest.raises(InputError, match="'other' is not among the items"):
        receipt.propensity("other")
    many = make_receipt(SECRET, LONG, 0, [Listed(f"i{n}", "model", True, chances[n % 4]) for n in range(MAX_ITEMS)])
    assert len(many) <= MAX_CHARACTERS
    assert len(make_receipt(SECRET, SLOT, 0, [Listed(f"i{n}", "model", True, chances[n % 4]) for n in range(10)])) < 310
