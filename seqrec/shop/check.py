"""Checks of the data before training: findings with their figures and the settings to change."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.items import has_visible_text
from seqrec.errors import NotReady
from seqrec.shop.guessing.hints import UNDONE, UNKNOWN, order_state, worth_of
from seqrec.shop.imported import REPORT
from seqrec.shop.project import EventType, Project, toml_key

Level = Literal["stop", "warning", "note"]
EARLY = 631_152_000
"""1990-01-01 in Unix seconds."""
_EACH = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Finding:
    """`stop`: training would fail or learn nothing. `text` has the figure and the way out."""

    level: Level
    text: str


class Data:
    """The imported events, sorted by user and time, and the texts of the items."""

    def __init__(self, project: Project) -> None:
        self.project = project
        path = project.items.parent / REPORT
        if not path.is_file():
            raise NotReady("nothing is imported yet; run `seqrec up --until import`")
        self.report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        table = pq.read_table(project.interactions, columns=["user_id", "item_id", "timestamp"])
        user, item = (_codes(table.column(name)) for name in ("user_id", "item_id"))
        moments = table.column("timestamp").to_numpy()
        order = np.lexsort((moments, user))
        self.user, self.item, self.time = user[order], item[order], moments[order]
        self.counts = np.bincount(self.user)

    @property
    def events(self) -> int:
        return len(self.user)

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """The position after each user's last event."""
        return np.cumsum(self.counts)

    @cached_property
    def texts(self) -> list[str]:
        names = self.project.config.items.texts
        with self.project.items.open(encoding="utf-8") as file:
            return [_text(json.loads(line)["attributes"], names) for line in file]


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes: npt.NDArray[np.int32] = encoded.combine_chunks().indices.to_numpy() if len(column) else np.zeros(0, np.int32)
    return codes


def _text(attributes: dict[str, Any], names: tuple[str, ...]) -> str:
    values = (attributes.get(name, "") for name in names)
    return " | ".join(", ".join(value) if isinstance(value, list) else str(value) for value in values).strip(" |")


def check_data(project: Project) -> list[Finding]:
    """All findings, the most severe first. Raises NotReady if nothing is imported."""
    data = Data(project)
    found = [finding for check in CHECKS for finding in check(data)]
    return sorted(found, key=lambda finding: ("stop", "warning", "note").index(finding.level))


def _few_events(data: Data) -> Iterator[Finding]:
    users, items = len(data.counts), data.report["events"]["items"]
    long = int((data.counts >= 3).sum())
    if not long:
        yield Finding(
            "stop",
            f"no user has 3 events or more (the longest history has {data.counts.max(initial=0)}), so there is nothing "
            "to learn from and to test on. events.user must name a person that comes back, not an order or a visit",
        )
        return
    single = int((data.counts == 1).sum())
    if single > 0.5 * users:
        yield Finding(
            "warning",
            f"{single:,} of {users:,} users ({single / users:.0%}) have one event: nothing follows anything there. If "
            "people come back, choose the column that recognises them (events.user)",
        )
    elif long < 0.5 * users:
        yield Finding(
            "note",
            f"{users - long:,} of {users:,} users ({1 - long / users:.0%}) have fewer than 3 events: not evaluated",
        )
    if data.events < 1000 or data.events < 2 * items:
        yield Finding(
            "warning",
            f"{data.events:,} events of {items:,} items are too few to learn what follows what; expect little more "
            "than popularity and similar texts. Import a longer period",
        )


def _repeats(data: Data) -> Iterator[Finding]:
    pairs = data.user.astype(np.int64) * (int(data.item.max(initial=0)) + 1) + data.item
    repeated = data.events - len(np.unique(pairs))
    share = repeated / max(1, data.events)
    if share > 0.3:
        yield Finding(
            "warning",
            f"{share:.0%} of the events repeat an item that the user had before, so a model is rewarded for repeating. "
            'If people buy again, that is right, else set events.repeats = "first" (or "session")',
        )


def _equal_times(data: Data) -> Iterator[Finding]:
    if data.report["events"]["unit"] == "order":
        yield Finding(
            "note",
            "there are no times, only an order: sessions are unknown, and old events count as much as new ones",
        )
        return
    each = _EACH[data.report["events"]["unit"]]
    if data.events > 1 and data.time.min() == data.time.max():
        yield Finding(
            "warning",
            f"all events have one time, {_day(data.time[0], each)}, so the order within a history is that of the file "
            "and nothing can be split by time; choose the column of the event's own time (events.time)",
        )
        return
    early = data.time < EARLY * each
    if early.any():
        yield Finding(
            "warning",
            f"{early.sum():,} of {data.events:,} events are from before 1990, such as {_day(data.time.min(), each)}: "
            "an empty date or another unit? They count as the oldest of a history; check events.time and "
            "events.time_format",
        )
    same = np.diff(data.user) == 0
    equal = int((same & (np.diff(data.time) == 0)).sum())
    share = equal / max(1, int(same.sum()))
    split = data.project.config.evaluate.split
    if share > 0.3 and split != "last-basket":
        yield Finding(
            "warning",
            f"{share:.0%} of the neighbouring events of a user have the same time (baskets), so the order within them "
            'is that of the file; evaluate.split = "last-basket" holds out whole baskets',
        )
    newest = int(data.time.max(initial=0)) / each
    if newest > time.time() + 86_400:
        ahead = (newest - time.time()) / 86_400
        yield Finding(
            "warning",
            f"the newest event is {ahead:,.0f} days in the future, and what users do now would count as older; check "
            "events.time_format and events.zone",
        )


def _day(time: int, each: int) -> str:
    """The date of a time that is counted in `each` parts of a second."""
    return str(np.datetime64(int(time) // each, "s").astype("datetime64[D]"))


def _cold_targets(data: Data) -> Iterator[Finding]:
    """Of leave-one-out: the items that are looked for in the test and occur in no training event."""
    long = np.flatnonzero(data.counts >= 3)
    if not len(long):
        return
    last = data.ends[long] - 1
    held_out = np.zeros(data.events, dtype=np.bool_)
    held_out[last] = held_out[last - 1] = True
    trained = np.zeros(int(data.item.max()) + 1, dtype=np.bool_)
    trained[data.item[~held_out]] = True
    cold = 1 - float(trained[data.item[last]].mean())
    if cold > 0.5:
        yield Finding(
            "warning",
            f"{cold:.0%} of the items to be found in the test occur in no training event: only their texts can find "
            "them. Items that change so fast need good texts ([items.columns]) and frequent training",
        )
    elif cold > 0.1:
        yield Finding("note", f"{cold:.0%} of the items to be found in the test occur in no training event")


def _texts(data: Data) -> Iterator[Finding]:
    texts = data.texts
    if not data.project.config.items.texts:
        yield Finding(
            "warning",
            'no column is read as text, so an item without events cannot be recommended; see "text" in [items.columns]',
        )
        return
    missing = sum(not has_visible_text(text) for text in texts)
    if missing == len(texts):
        names = ", ".join(data.project.config.items.texts)
        yield Finding("stop", f"no item has text in {names}; choose other columns in [items.columns]")
        return
    if missing:
        level: Level = "warning" if missing > 0.05 * len(texts) else "note"
        yield Finding(
            level,
            f"{missing:,} of {len(texts):,} items ({missing / len(texts):.1%}) have no text: they are not recommended",
        )
    counts = Counter(text for text in texts if text)
    equal = sum(count for count in counts.values() if count > 1)
    if equal > 0.1 * len(texts):
        text, most = counts.most_common(1)[0]
        yield Finding(
            "warning",
            f"{equal / len(texts):.0%} of the items have the same text as another ({most:,} times {text[:60]!r}), so "
            "texts cannot tell them apart; add a column (colour, size) to the texts, or make variants one item",
        )


def _coverage(data: Data) -> Iterator[Finding]:
    items, events = data.report["items"], data.report["events"]
    silent = items["kept"] - events["items"]
    if silent > 0.5 * items["kept"]:
        yield Finding(
            "note",
            f"{silent:,} of {items['kept']:,} items ({silent / items['kept']:.0%}) have no event: only their texts can "
            "bring them up",
        )
    for name, count in events["left_out"].items():
        if count > 0.1 * events["read"] and not name.startswith(
            ("repeated", "identical", "of type", "with ", "without ")
        ):
            yield Finding(
                "warning",
                f"{count:,} of {events['read']:,} events ({count / events['read']:.0%}) were left out: {name}",
            )


def _concentration(data: Data) -> Iterator[Finding]:
    largest = np.bincount(data.item).max(initial=0) / max(1, data.events)
    if largest > 0.1:
        yield Finding(
            "warning",
            f"one item has {largest:.0%} of all events: shipping, a voucher, a gift? Leave it out of the items, or it "
            "is recommended to everybody",
        )
    busiest = int(data.counts.max(initial=0))
    if busiest > 0.05 * data.events and busiest > 50 * np.median(data.counts):
        yield Finding(
            "warning",
            f"one user has {busiest:,} of {data.events:,} events ({busiest / data.events:.0%}): a robot, a till or a "
            "guest account? Leave it out of the events",
        )


def _types(data: Data) -> Iterator[Finding]:
    config = data.project.config.events
    counts: dict[str, int] = {name: count for name, count in data.report["events"]["types"].items() if name}
    rules = {name: config.types.get(name, EventType()) for name in counts}
    states = {name: state for name in counts if (state := order_state(name))}
    for name, state in states.items():
        if state == UNDONE and rules[name].counts:
            yield Finding(
                "warning",
                f"{counts[name]:,} events of type {name} were taken back, and count like purchases; set "
                f"{toml_key(name)} = "
                "{ negative = true } in [events.types], or { ignore = true } if they do not show what users dislike",
            )
    if len(counts) > 1 and len(states) == len(counts):
        yield Finding("note", _what_states_do(config.type, counts, rules))
        return
    for name, count in counts.items():
        if len(counts) > 1 and rules[name] == EventType() and worth_of(name)[1] == UNKNOWN:
            yield Finding(
                "note",
                f"{count:,} events of type {name}, an unknown word, are in the histories; if they are no choice of "
                f"the item, set {toml_key(name)} = {{ ignore = true }} in [events.types]",
            )
    counting = {name: count for name, count in counts.items() if name in config.types and rules[name].counts}
    total = sum(counting.values())
    if len(counting) > 1 and total:
        name, most = max(counting.items(), key=lambda pair: pair[1])
        if most > 0.9 * total:
            yield Finding(
                "note",
                f"{most / total:.0%} of the events that count are {name}, so that is what is learned and tested; with "
                f"{toml_key(name)} = {{ history = false }} in [events.types] the rarer ones are",
            )


def _what_states_do(column: str | None, counts: Mapping[str, int], rules: Mapping[str, EventType]) -> str:
    groups: dict[str, list[str]] = {"make history": [], "are negative (not recommended again)": [], "are left out": []}
    made, negative, out = groups.values()
    for name, count in counts.items():
        group = negative if rules[name].negative else made if rules[name].counts else out
        group.append(f"{name} ({count:,})")
    does = "; ".join(f"{', '.join(names)} {what}" for what, names in groups.items() if names)
    return (
        f"{column} has states of orders, not actions: {does}. A change is a line in [events.types]: "
        "{ ignore = true } leaves a state out, as for what was cancelled because it was sold out"
    )


CHECKS: tuple[Callable[[Data], Iterator[Finding]], ...] = (
    _few_events,
    _repeats,
    _equal_times,
    _cold_targets,
    _texts,
    _coverage,
    _concentration,
    _types,
)
