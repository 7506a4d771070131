"""Which column is what, and why: from the values, supported by names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from seqrec.data.tables.base import Rejects, Table
from seqrec.errors import InputError
from seqrec.shop.guessing.hints import has_hint, worth_of
from seqrec.shop.guessing.profile import ColumnProfile, values_of
from seqrec.shop.times import TimeFormat, find_format
from seqrec.shop.values import id_texts, is_available, number_of


@dataclass(frozen=True)
class ColumnGuess:
    """`setting`: the value in [items.columns]; `order`: where models read it."""

    name: str
    setting: dict[str, Any]
    why: str
    order: float = 9.0


@dataclass
class EventsGuess:
    """`settings` of [events] in order, with `why` of each."""

    settings: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any, why: str) -> None:
        self.settings[name], self.why[name] = value, why


@dataclass(frozen=True)
class Link:
    """The column of the items and that of the events that name the same things. `known`: share of the events' values
    that items have. `numbers`: they are the same as numbers, not as texts."""

    item_id: str
    event_item: str
    known: float
    numbers: bool = False


def find_link(items: Table, item_columns: Sequence[ColumnProfile], events: Sequence[ColumnProfile]) -> Link:
    """Raises InputError if no column of the events has values of a column of the items."""
    ids = sorted((c for c in item_columns if _may_be_id(c)), key=lambda c: -_id_score(c))[:4]
    if not ids:
        names = ", ".join(column.name for column in item_columns)
        raise InputError(f"no column has a different value in every row, as an id has; there are {names}", items.name)
    whole = _all_values(items, [column.name for column in ids])
    best: tuple[float, Link] | None = None
    for column in ids:
        for other in events:
            values = values_of(other)
            if not values or other.distinct < 2:
                continue
            known = len(values & whole[column.name]) / len(values)
            alike = _known_as_numbers(values, whole[column.name]) if known < 1 else 0.0
            numbers = alike > known + 0.05
            known = alike if numbers else known
            score = (
                known
                + 0.2 * has_hint(other.name, "item")
                + 0.1 * _id_score(column)
                - 0.5 * has_hint(other.name, "user")
            )
            score -= 0.3 * has_hint(other.name, "value")
            if known > 0 and (best is None or score > best[0]):
                best = score, Link(column.name, other.name, known, numbers)
    if best is None:
        examples = "; ".join(f"{c.name}: {', '.join(c.examples[:2])}" for c in (*ids[:2], *events[:4]))
        lists = [column.name for column in events if column.is_list]
        rows = f"; {lists[0]} has lists: events need a row for each item" if lists else ""
        raise InputError(
            f"no column of the events has ids of the items ({examples}); are these files of one shop?{rows}", items.name
        )
    link = best[1]
    _check_not_swapped(items, events, item_columns, link)
    return link


def _check_not_swapped(
    items: Table, events: Sequence[ColumnProfile], item_columns: Sequence[ColumnProfile], link: Link
) -> None:
    """Raises InputError if the items repeat what the events have once, and only they say who acted."""
    item_id = next(column for column in item_columns if column.name == link.item_id)
    event_item = next(column for column in events if column.name == link.event_item)
    if item_id.unique > 0.5 or event_item.unique < 1 or event_item.filled < 2:
        return
    names_user = any(has_hint(column.name, "user") for column in item_columns)
    if names_user and not any(has_hint(column.name, "user") for column in events):
        raise InputError(
            f"each {link.item_id} occurs {item_id.filled / max(1, item_id.distinct):.0f} times in it, and once in the "
            "events: the files seem swapped. --items names the products, --events what people did",
            items.name,
        )


def _known_as_numbers(values: set[str], ids: set[str]) -> float:
    """The share of the values that are the same number as one id; 0 if most ids are no numbers of their own."""
    numbers = {number for one in ids if (number := number_of(one)) is not None}
    if len(numbers) < 0.9 * len(ids):
        return 0.0
    return sum(number_of(one) in numbers for one in values) / len(values)


def _may_be_id(column: ColumnProfile) -> bool:
    if pa.types.is_nested(column.type) or pa.types.is_temporal(column.type) or pa.types.is_boolean(column.type):
        return False
    # Where a product has a row for each variant, its id repeats.
    unique = column.unique > 0.5 or (column.unique > 0.05 and has_hint(column.name, "item"))
    return column.filled >= 0.9 * column.rows and unique and column.words < 4 and column.urls < 0.5


def _id_score(column: ColumnProfile) -> float:
    return (
        column.unique + 0.5 * has_hint(column.name, "item") + 0.5 * has_hint(column.name, "code") - 0.3 * column.blanks
    )


def _all_values(table: Table, names: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in names}
    for batch in table.batches(names, Rejects("skip")):
        for place, name in enumerate(names):
            found[name].update(id_texts(batch.column(place)).drop_null().to_pylist())
    return found


def guess_items(columns: Sequence[ColumnProfile], link: Link) -> list[ColumnGuess]:
    """In the order in which models read them; the id first, what they do not read last."""
    guesses = [
        ColumnGuess(
            column.name,
            {"as": "id"},
            f"{link.known:.1%} of the values of {link.event_item} in the events are among its values",
            -1,
        )
        if column.name == link.item_id
        else _guess_column(column)
        for column in columns
    ]
    by_name = {column.name: column for column in columns}
    available = [guess for guess in guesses if guess.setting["as"] == "available"]
    available.sort(key=lambda guess: _decides(by_name[guess.name]), reverse=True)
    for extra in available[1:]:
        guesses[guesses.index(extra)] = ColumnGuess(extra.name, {"as": "stored"}, f"{extra.why}; one column decides")
    return sorted(guesses, key=lambda guess: guess.order)


def _decides(column: ColumnProfile) -> tuple[bool, bool, float]:
    """What makes a column of availability the one that decides: it tells items apart, has words or truth values rather
    than amounts (of which an empty one often means that nobody counts), and is filled."""
    flags = pa.types.is_boolean(column.type) or column.distinct <= 2 or column.letters > 0.5
    return (_available_share(column) or 0.0) < 1.0, flags, column.filled / max(1, column.rows)


def repeats_for_variants(columns: Sequence[ColumnProfile], guesses: Sequence[ColumnGuess]) -> bool:
    """Whether rows that repeat an id leave most of its texts empty, or have a code each, as rows of variants do."""
    by_name = {column.name: column for column in columns}
    item_id = next(by_name[guess.name] for guess in guesses if guess.setting["as"] == "id")
    text = next((by_name[guess.name] for guess in guesses if guess.setting["as"] in ("text", "list")), None)
    repeated = item_id.filled - item_id.distinct
    own_code = any(
        column.distinct == column.rows and (has_hint(column.name, "item") or has_hint(column.name, "code"))
        for column in columns
    )
    if repeated > 0 and own_code:
        return True
    return text is not None and repeated > 0 and text.rows - text.filled >= 0.5 * repeated


def _guess_column(column: ColumnProfile) -> ColumnGuess:
    such = f"such as {column.examples[0]!r}" if column.examples else "it is empty"
    few = _empty(column)
    if not column.examples:
        return ColumnGuess(column.name, {"as": "drop"}, "it is empty in the first rows", 20)
    if has_hint(column.name, "available") and (column.distinct <= 20 or column.numbers > 0.95):
        shares = _available_share(column)
        if shares is not None:
            return ColumnGuess(column.name, {"as": "available"}, f"{shares:.1%} are available by it, {such}", 8)
    if pa.types.is_struct(column.type) or pa.types.is_map(column.type):
        return ColumnGuess(column.name, {"as": "stored"}, "nested values: kept with the item, not read as text", 12)
    if pa.types.is_temporal(column.type) or pa.types.is_boolean(column.type):
        return ColumnGuess(column.name, {"as": "stored"}, f"{_typed(column.type)}{few}", 12)
    if column.urls > 0.5:
        return ColumnGuess(column.name, {"as": "stored"}, "URLs or files: kept with the item, not read as text", 13)
    code = has_hint(column.name, "code") and not has_hint(column.name, "price")
    amounts = column.letters < 0.05 or column.money > 0.95 or has_hint(column.name, "price")  # "Film 2" is none
    if column.numbers > 0.95 and amounts and not code and not column.is_list:
        setting: dict[str, Any] = {"as": "number"}
        if column.decimal:
            setting["decimal"] = ","
        comma = ", with a decimal comma" if column.decimal else ""
        return ColumnGuess(column.name, setting, f"numbers{comma}, {such}{few}", 10)
    if (column.numbers < 0.5 or has_hint(column.name, "time")) and find_format(column.values[:1], list) is not None:
        return ColumnGuess(column.name, {"as": "stored"}, f"times, {such}", 12)
    if column.distinct == 1 and column.rows > 1:
        return ColumnGuess(
            column.name, {"as": "stored"}, f"the same in every row, {such}: no model can learn from it", 14
        )
    if (
        code
        or column.letters < 0.5
        or (column.unique > 0.9 and column.blanks < 0.1 and not has_hint(column.name, "title"))
    ):
        return ColumnGuess(column.name, {"as": "stored"}, f"codes, {such}: kept with the item, not read as text", 12)
    order, what = _text_order(column)
    tags = f"; HTML in {column.html:.0%}, which is stripped" if column.html > 0.01 else ""
    words = f"{what}, {column.words:.1f} words on average{tags}{few}"
    if column.is_list:
        return ColumnGuess(column.name, {"as": "list"}, words, order)
    if column.separator and (has_hint(column.name, "category") or column.separator not in (",", "/")):
        setting = {"as": "list", "separator": column.separator.strip() or column.separator}
        return ColumnGuess(column.name, setting, words, order)
    return ColumnGuess(column.name, {"as": "text"}, words, order)


def _empty(column: ColumnProfile) -> str:
    share = 1 - column.filled / max(1, column.rows)
    return f"; empty in {share:.0%}" if share >= 0.01 else f"; empty in {share:.1%}" if share >= 0.0005 else ""


def _text_order(column: ColumnProfile) -> tuple[float, str]:
    for order, (role, what) in enumerate(
        (("title", "a title"), ("brand", "a brand"), ("category", "a category"), ("description", "a description"))
    ):
        if has_hint(column.name, role):
            return order + min(column.words, 99) / 100, what
    return (2.5 if column.words < 8 else 3.5), "text"


def _typed(kind: pa.DataType) -> str:
    return "truth values" if pa.types.is_boolean(kind) else f"typed {kind}"


def _available_share(column: ColumnProfile) -> float | None:
    values = [value for part in column.values for value in part.to_pylist() if value is not None]
    share = sum(is_available(value, None) for value in values) / max(1, len(values))
    return share if share > 0 else None


def guess_events(table: Table, columns: Sequence[ColumnProfile], link: Link) -> EventsGuess:
    """Raises InputError if no column says who acted."""
    guess = EventsGuess()
    left = {column.name: column for column in columns if column.name != link.event_item}
    guess.set("item", link.event_item, f"{link.known:.1%} of its values are ids of items")
    if link.numbers:
        guess.set(
            "item_numbers", True, "ids are written differently, such as 00123, 123 or 123.0: numbers are compared"
        )
    time, found = _time_column(table, left.values())
    if time is not None:
        del left[time.name]
    _session(left, guess)
    user = _user_column(left.values())
    if user is None and "session" not in guess.settings:
        names = ", ".join(f"{c.name}{'' if c.filled else ' (empty)'}" for c in columns)
        raise InputError(f"no column says who acted; there are {names}", table.name)
    if user is not None:
        del left[user.name]
        empty = _empty(user)
        guess.set("user", user.name, f"{user.filled / max(1, user.distinct):.1f} events each in the first rows{empty}")
        if empty and "session" not in guess.settings:
            _anonymous(left, guess)
    if time is None or found is None:
        guess.set("time_format", "order", "no column has times: the order of the rows is used")
    else:
        guess.set("time", time.name, found.why)
        guess.set("time_format", found.name, found.doubt)
        if "zone" in found.doubt.lower():
            guess.set("zone", "UTC", "of times without one: put in the shop's, such as Europe/Berlin")
    _type_and_value(left, guess)
    guess.unused = list(left)
    return guess


def _time_column(table: Table, columns: Iterable[ColumnProfile]) -> tuple[ColumnProfile | None, TimeFormat | None]:
    best: tuple[float, ColumnProfile, TimeFormat] | None = None
    for column in columns:
        if not column.filled:
            continue

        def rest(name: str = column.name) -> Iterable[pa.Array]:
            return (batch.column(0) for batch in table.batches([name], Rejects("skip")))

        found = find_format(column.values, rest)
        if found is None or (found.name == "order" and not has_hint(column.name, "time")):
            continue
        score = (found.name != "order") + 0.5 * has_hint(column.name, "time") + column.unique * 0.1
        if best is None or score > best[0]:
            best = score, column, found
    return (None, None) if best is None else best[1:]


def _session(left: dict[str, ColumnProfile], guess: EventsGuess) -> None:
    found = next((column for name, column in left.items() if has_hint(name, "session")), None)
    if found is not None:
        del left[found.name]
        guess.set("session", found.name, "where the user is empty: whose session it is, or the session itself")


def _anonymous(left: dict[str, ColumnProfile], guess: EventsGuess) -> None:
    found = next((c for name, c in left.items() if has_hint(name, "anonymous") and c.distinct > 1), None)
    if found is not None:
        del left[found.name]
        guess.set("session", found.name, "where the user is empty: whose device it is, or the device itself")


def _user_column(columns: Iterable[ColumnProfile]) -> ColumnProfile | None:
    def score(column: ColumnProfile) -> float:
        return 2.0 * has_hint(column.name, "user") + (column.unique < 0.9) + 0.5 * (column.distinct > 50)

    able = [
        column
        for column in columns
        if column.distinct > 1
        and not pa.types.is_nested(column.type)
        and not pa.types.is_temporal(column.type)
        and not _has_fractions(column)
        and (has_hint(column.name, "user") or (column.distinct > 20 and not has_hint(column.name, "value")
             and not has_hint(column.name, "price") and not has_hint(column.name, "type")))
    ]  # fmt: skip
    return max(able, key=score, default=None)


def _has_fractions(column: ColumnProfile) -> bool:
    """Ids with nulls are often floats, but whole ones."""
    return pa.types.is_floating(column.type) and any("." in text.removesuffix(".0") for text in column.examples)


def _type_and_value(left: dict[str, ColumnProfile], guess: EventsGuess) -> None:
    kinds = [
        column
        for column in left.values()
        if pa.types.is_string(column.type)
        and column.distinct <= 30
        and column.letters > 0.9
        and (column.distinct > 1 or has_hint(column.name, "type"))
    ]
    known = [
        c for c in kinds if has_hint(c.name, "type") or any("unknown" not in worth_of(one)[1] for one in c.examples)
    ]
    if known:
        found = max(known, key=lambda column: 2 * has_hint(column.name, "type") + has_hint(column.name, "status"))
        del left[found.name]
        guess.set("type", found.name, f"{found.distinct} types in the first rows")
    values = [column for column in left.values() if has_hint(column.name, "value") and column.numbers > 0.9]
    if values:
        found = values[0]
        del left[found.name]
        guess.set(
            "value", found.name, f"numbers, such as {', '.join(found.examples)}; with min_value lower ones do not count"
        )
