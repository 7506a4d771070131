"""Which column is what, and why: from the values, supported by names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.tables.base import Rejects, Table
from seqrec.errors import InputError
from seqrec.shop.guessing.hints import UNKNOWN, has_hint, is_late, words_of, worth_of
from seqrec.shop.guessing.links import Link, Side
from seqrec.shop.guessing.profile import ColumnProfile
from seqrec.shop.times import TimeFormat, find_format
from seqrec.shop.values import id_texts, is_available

_UNNAMED = re.compile(r"column \d+|unnamed(: ?\d+)?|index|idx|row(_?(id|num|number))?|rownum|level_0|#", re.IGNORECASE)
"""Names of a column that a tool adds for the number of the row."""


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


def guess_items(side: Side, link: Link) -> list[ColumnGuess]:
    """In the order in which models read them; the id first, what they do not read last."""
    columns = side.columns
    if side.rows is not None and side.own(link.item_id):
        # What a record has itself is repeated in each of its rows.
        records = next(column.distinct for column in columns if column.name == link.item_id)
        columns = [
            replace(column, rows=records, filled=min(column.filled, records)) if side.own(column.name) else column
            for column in columns
        ]
    decimals = [column.decimal for column in columns]
    decimal = "," if decimals.count(",") > decimals.count(".") else None  # of numbers such as 7,635
    guesses = [
        ColumnGuess(
            column.name,
            {"as": "id"},
            f"{link.known:.1%} of the values of {link.event_item} in the events are among its values",
            -1,
        )
        if column.name == link.item_id
        else _guess_column(column, decimal)
        for column in columns
    ]
    if side.own(link.item_id):  # the rows of an item are its variants
        guesses = [guess if side.own(guess.name) else _of_variant(guess) for guess in guesses]
    by_name = {column.name: column for column in side.columns}
    available = [guess for guess in guesses if guess.setting["as"] == "available"]
    available.sort(key=lambda guess: _decides(by_name[guess.name]), reverse=True)
    for extra in available[1:]:
        column = by_name[extra.name]
        tells_apart, flags, _ = _decides(column)
        amounts = column.numbers > 0.5 and not {*column.examples} <= {"0", "1", "-1"}
        if not (tells_apart and flags) or amounts:  # published and in stock both count, not how many there are
            guesses[guesses.index(extra)] = ColumnGuess(extra.name, {"as": "stored"}, f"{extra.why}; another decides")
    return _with_title(sorted(guesses, key=lambda guess: guess.order), by_name)


def _with_title(guesses: list[ColumnGuess], columns: Mapping[str, ColumnProfile]) -> list[ColumnGuess]:
    """Where no column is a title, a short description of its own for each item is read as one."""
    texts = [guess for guess in guesses if guess.setting["as"] == "text"]
    for guess in texts:
        column = columns[guess.name]
        if 3 <= guess.order < 4 and column.words < 12 and column.unique > 0.5 and texts[0].order >= 1:
            title = replace(guess, why=f"{guess.why}; the only title there is", order=0)
            return sorted([title if one is guess else one for one in guesses], key=lambda one: one.order)
    return guesses


def _of_variant(guess: ColumnGuess) -> ColumnGuess:
    if guess.setting["as"] not in ("text", "list"):
        return guess
    return ColumnGuess(guess.name, {"as": "stored"}, f"{guess.why}; of the first of several in a record", 12)


def _decides(column: ColumnProfile) -> tuple[bool, bool, float]:
    """What makes a column of availability the one that decides: it tells items apart, has words or truth values rather
    than amounts (of which an empty one often means that nobody counts), and is filled."""
    flags = pa.types.is_boolean(column.type) or column.distinct <= 2 or column.letters > 0.5
    return (_available_share(column) or 0.0) < 1.0, flags, column.filled / max(1, column.rows)


def repeats_for_variants(side: Side, link: Link, guesses: Sequence[ColumnGuess]) -> bool:
    """Whether rows that repeat an id leave most of its texts empty, or have a code each, as rows of variants do."""
    if side.rows is not None and side.own(link.item_id):
        return True
    columns = side.columns
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


def _guess_column(column: ColumnProfile, decimal: str | None) -> ColumnGuess:
    such = f"such as {column.examples[0]!r}" if column.examples else "it is empty"
    few = _empty(column)
    if not column.examples:
        return ColumnGuess(column.name, {"as": "drop"}, "it is empty in the first rows", 20)
    if _UNNAMED.fullmatch(column.name) and column.counts_rows:
        return ColumnGuess(column.name, {"as": "drop"}, "it counts the rows", 20)
    if has_hint(column.name, "available") and (column.distinct <= 20 or column.numbers > 0.95):
        shares = _available_share(column)
        if shares is not None:
            return ColumnGuess(column.name, {"as": "available"}, f"{shares:.1%} are available by it, {such}", 8)
    if pa.types.is_struct(column.type) or pa.types.is_map(column.type):
        return ColumnGuess(column.name, {"as": "stored"}, "nested values: kept with the item, not read as text", 12)
    if column.is_list and all(text.startswith("{") for text in column.examples):
        return ColumnGuess(column.name, {"as": "stored"}, "objects without a name: kept, not read as text", 15)
    if pa.types.is_temporal(column.type) or pa.types.is_boolean(column.type):
        return ColumnGuess(column.name, {"as": "stored"}, f"{_typed(column.type)}{few}", 12)
    if column.urls > 0.5:
        return ColumnGuess(column.name, {"as": "stored"}, "URLs or files: kept with the item, not read as text", 13)
    code = has_hint(column.name, "code") and not has_hint(column.name, "price")
    amounts = column.letters < 0.05 or column.money > 0.95 or has_hint(column.name, "price")  # "Film 2" is none
    if column.numbers > 0.95 and amounts and not code and not column.is_list:
        setting: dict[str, Any] = {"as": "number"}
        comma = ""
        if (column.decimal or decimal) == "," and column.has_separators:
            setting["decimal"] = ","
            comma = ", with a decimal comma" if column.decimal else ", with a decimal comma as in the other columns"
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
    named = has_hint(column.name, "category") or _are_pairs(column)
    if column.separators and (named or column.separators[-1] not in (",", "/")):
        signs = column.separators
        setting = {"as": "list", "separator": signs[0] if len(signs) == 1 else list(signs)}
        return ColumnGuess(column.name, setting, words, order)
    return ColumnGuess(column.name, {"as": "text"}, words, order)


def _are_pairs(column: ColumnProfile) -> bool:
    """Whether a field has several attributes, such as color=red,size=XL."""
    return all(
        "=" in part for text in column.examples for sign in column.separators[:1] for part in text.split(sign)[:-1]
    ) and all("=" in text for text in column.examples)


def _empty(column: ColumnProfile) -> str:
    share = 1 - column.filled / max(1, column.rows)
    return f"; empty in {share:.0%}" if share >= 0.01 else f"; empty in {share:.1%}" if share >= 0.0005 else ""


def _text_order(column: ColumnProfile) -> tuple[float, str]:
    roles = (("title", "a title"), ("brand", "a brand"), ("category", "a category"), ("description", "a description"))
    found = [(order, what) for order, (role, what) in enumerate(roles) if has_hint(column.name, role)]
    if len(found) > 1 and found[0][0] == 0 and has_hint(column.name, "brand"):  # manufacturer_name
        del found[0]
    for order, what in found[:1]:
        return order + min(column.words, 99) / 100, what
    return (2.5 if column.words < 8 else 3.5), "text"


def _typed(kind: pa.DataType) -> str:
    return "truth values" if pa.types.is_boolean(kind) else f"typed {kind}"


def _available_share(column: ColumnProfile) -> float | None:
    values = [value for part in column.values for value in part.to_pylist() if value is not None]
    share = sum(is_available(value, None) for value in values) / max(1, len(values))
    return share if share > 0 else None


def guess_events(side: Side, link: Link) -> EventsGuess:
    """Raises InputError if no column says who acted."""
    guess, table, columns = EventsGuess(), side.table, side.columns
    left = {column.name: column for column in columns if column.name not in (link.event_item, *link.others)}
    item = [link.event_item, *link.others] if link.others else link.event_item
    first = "; the first that is filled counts" if link.others else ""
    guess.set("item", item, f"{link.known:.1%} of its values are ids of items{first}")
    if link.numbers:
        guess.set(
            "item_numbers", True, "ids are written differently, such as 00123, 123 or 123.0: numbers are compared"
        )
    time, found = _time_column(table, left.values(), side.rows or "")
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
        if nobody := _nobody(user):
            guess.set("nobody", nobody, "these values of user name nobody: guests")
        if (empty or nobody) and "session" not in guess.settings:
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


def _time_column(
    table: Table, columns: Iterable[ColumnProfile], rows: str
) -> tuple[ColumnProfile | None, TimeFormat | None]:
    best: tuple[float, ColumnProfile, TimeFormat] | None = None
    for column in columns:
        if not column.filled:
            continue

        def rest(name: str = column.name) -> Iterable[pa.Array]:
            return (batch.column(0) for batch in table.batches([name], Rejects("skip")))

        found = find_format(column.values, rest)
        if found is None or (found.name == "order" and not has_hint(column.name, "time")):
            continue
        score = (
            (found.name != "order")
            + 0.5 * has_hint(column.name, "time")
            + 0.1 * column.unique
            + 0.3 * column.filled / column.rows
            - 0.1 * column.name.count(".")
            + 0.2 * (column.name.startswith(f"{rows}.") and has_hint(column.name, "time"))
            - 0.3 * is_late(column.name)
            + 0.05 * any(word in words_of(column.name) for word in ("gmt", "utc"))
        )
        if best is None or score > best[0]:
            best = score, column, found
    return (None, None) if best is None else best[1:]


def _session(left: dict[str, ColumnProfile], guess: EventsGuess) -> None:
    found = next((column for name, column in left.items() if has_hint(name, "session") and _recurs(column)), None)
    if found is not None:
        del left[found.name]
        guess.set("session", found.name, "where the user is empty: whose session it is, or the session itself")


def _recurs(column: ColumnProfile) -> bool:
    """Whether several rows share values: what differs in every row is the id of an event, and joins nothing."""
    return column.filled < 20 or column.unique < 0.99


def _anonymous(left: dict[str, ColumnProfile], guess: EventsGuess) -> None:
    found = next((c for name, c in left.items() if has_hint(name, "anonymous") and c.distinct > 1 and _recurs(c)), None)
    if found is not None:
        del left[found.name]
        guess.set("session", found.name, "where the user is empty: whose device it is, or the device itself")
        return
    mail = next(
        (c for name, c in left.items() if c.distinct > 1 and _recurs(c) and any("@" in one for one in c.examples)), None
    )
    if mail is not None:
        del left[mail.name]
        guess.set("session", mail.name, "where the user is empty: whose address it is, or the address itself")


_NOBODY = frozenset(["guest", "gast", "null", "none", "nan", "n/a", "na", "-", "-1", "anonymous", "undefined",
                     "unknown", "(not set)", "(none)", "00000000-0000-0000-0000-000000000000"])  # fmt: skip


def _nobody(column: ColumnProfile) -> list[str]:
    """Values that stand for guests: words for nobody, and a 0 that is far more frequent than others."""
    counts = Counter[str]()
    for part in column.values:
        counted = pc.value_counts(id_texts(part).drop_null())
        counts.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
    often = max(0.02 * column.filled, 10 * column.filled / max(1, len(counts)))
    return [
        value
        for value, count in counts.most_common(1000)
        if value.lower() in _NOBODY or (value == "0" and count > often)
    ]


def _user_column(columns: Iterable[ColumnProfile]) -> ColumnProfile | None:
    def score(column: ColumnProfile) -> float:
        return (
            2.0 * has_hint(column.name, "user")
            + (column.unique < 0.9)
            + 0.5 * (column.distinct > 50)
            + 0.2 * ("id" in words_of(column.name))
            - 0.6 * has_hint(column.name, "anonymous")
            - 0.1 * column.name.count(".")
        )

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
    known = [c for c in kinds if has_hint(c.name, "type") or any(worth_of(one)[1] != UNKNOWN for one in c.examples)]
    if known:
        found = max(
            known,
            key=lambda column: (
                2 * has_hint(column.name, "type") + has_hint(column.name, "status"),
                sum(worth_of(one)[1] != UNKNOWN for one in column.examples) / len(column.examples),
                round(column.filled / column.rows, 1),
            ),
        )
        del left[found.name]
        guess.set("type", found.name, f"{found.distinct} types in the first rows")
    values = [column for column in left.values() if has_hint(column.name, "value") and column.numbers > 0.9]
    if values:
        found = values[0]
        del left[found.name]
        guess.set(
            "value", found.name, f"numbers, such as {', '.join(found.examples)}; with min_value lower ones do not count"
        )
