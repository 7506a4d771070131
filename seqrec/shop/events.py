"""Events of any table as compact columns: who did what to which item when, and what that is worth.

Ids become numbers while the table is read, so 10 million events take some 250 MB and their ids as much as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seqrec.data.items import check_item_id, check_user_id
from seqrec.data.sessions import merge_equal, session_numbers
from seqrec.data.tables.base import Rejects, Table
from seqrec.errors import InputError
from seqrec.shop.project import LOW_VALUE, EventsConfig, EventType
from seqrec.shop.times import NULL, TimeReader, coarsest
from seqrec.shop.values import TOTALS, TOTALS_ROWS, id_texts, number_of, parse_amount, take

Codes = npt.NDArray[np.int32]
UNTYPED = ""
"""The type of events without one."""


class Ids:
    """Numbers the ids of a column. Broken ids get -2, missing ones -1."""

    def __init__(self, check: Callable[[object], str]) -> None:
        self.names: list[str] = []
        self._code: dict[str, int] = {}
        self._check = check
        self.broken: dict[str, str] = {}  # reason by id

    def encode(self, column: pa.Array) -> Codes:
        encoded = id_texts(column).dictionary_encode()
        codes = np.array([*(self._code_of(text) for text in encoded.dictionary.to_pylist()), -1], dtype=np.int32)
        return take(codes, encoded.indices)

    def _code_of(self, text: str) -> int:
        code = self._code.get(text)
        if code is not None:
            return code
        try:
            name = self._check(text)
        except InputError as error:
            self.broken.setdefault(text, str(error))
            return -2
        own = self._code.setdefault(name, len(self.names))
        if own == len(self.names):
            self.names.append(name)
        self._code[text] = own
        return own


@dataclass(eq=False)
class Events:
    """n events in the order of the file. user, item: numbers of `users`, `items`; time: in `unit`; type: number of
    `types`; weight: what an event counts; value [n] or None."""

    users: list[str]
    items: list[str]
    types: list[str]
    user: Codes
    item: Codes
    time: npt.NDArray[np.int64]
    unit: str
    type: npt.NDArray[np.int16]
    value: npt.NDArray[np.float32] | None
    read: int
    dropped: dict[str, int] = field(default_factory=dict)
    type_counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def keep(self, mask: npt.NDArray[np.bool_], reason: str | None = None) -> None:
        """Drops the others, counted under `reason`."""
        lost = len(mask) - int(mask.sum())
        if not lost:
            return
        for name in ("user", "item", "time", "type"):
            setattr(self, name, getattr(self, name)[mask])
        if self.value is not None:
            self.value = self.value[mask]
        if reason is not None:
            self.dropped[reason] = self.dropped.get(reason, 0) + lost


def read_events(table: Table, config: EventsConfig, rejects: Rejects, progress: Callable[[int], object]) -> Events:
    """Reads all events. Rows without a user, an item or a time, and with ids or times that cannot be read, are
    rejected. `progress` gets the number of rows of each batch. Raises FileFormatError with "raise" in `rejects`."""
    names = [config.user, config.session, *config.item_columns, config.time, config.type, config.value]
    wanted = list(dict.fromkeys(name for name in names if name is not None))
    reader = _Reader(table, config, rejects)
    for batch in table.batches(wanted, rejects):
        reader.add({name: batch.column(place) for place, name in enumerate(wanted)}, len(batch))
        progress(len(batch))
    return reader.events()


class _Reader:
    """Collects the columns of the rows that can be read."""

    def __init__(self, table: Table, config: EventsConfig, rejects: Rejects) -> None:
        self.table, self.config, self.rejects = table, config, rejects
        self.actors, self.items = Actors(config), Ids(check_item_id)
        self.times = TimeReader(config.time_format, config.zone)
        self.types: dict[str, int] = {}
        self.parts: list[tuple[npt.NDArray[np.generic], ...]] = [_NO_ROWS]
        self.read = self.rejected = 0

    def add(self, column: dict[str, pa.Array], rows: int) -> None:
        config = self.config
        item_column = pc.coalesce(*(id_texts(column[name]) for name in config.item_columns))
        user, item = self.actors.encode(column), self.items.encode(item_column)
        if config.time is None:
            time = np.arange(self.read, self.read + rows, dtype=np.int64)
        else:
            time = self.times.read(column[config.time])
        good = (user >= 0) & (item >= 0) & (time != NULL)
        if not good.all():
            ids = self.actors.ids, self.items
            shown = {**column, config.item_columns[0]: item_column}
            _reject(self.table, config, shown, (user, item, time), self.read, self.rejects, ids)
            self.rejected += int((~good).sum())
        kind = np.zeros(rows, dtype=np.int16) if config.type is None else _types(column[config.type], self.types)
        value = np.zeros(0, np.float32) if config.value is None else numbers(column[config.value])[good]
        self.parts.append((user[good], item[good], time[good], kind[good], value))
        self.read += rows

    def events(self) -> Events:
        user, item, time, kind, value = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        self.parts.clear()
        order = self.config.time is None or self.config.time_format == "order"
        unit, time = ("order", time) if order else coarsest(time)
        types = list(self.types) or [UNTYPED]
        counts = np.bincount(kind, minlength=len(types)).tolist()
        return Events(
            self.actors.ids.names,
            self.items.names,
            types,
            self.actors.resolved(user),
            item,
            time,
            unit,
            kind,
            None if self.config.value is None else value,
            self.read + self.rejects.count + sum(self.rejects.passed.values()) - self.rejected,
            type_counts=dict(zip(types, counts, strict=True)),
        )


_NOTHING = "without user, item and time, as sums and blank rows are"
_NO_ROWS = tuple(np.zeros(0, kind) for kind in (np.int32, np.int32, np.int64, np.int16, np.float32))


@dataclass(eq=False)
class Worth:
    """Events that make histories, with their weights (None: all 1), and those that say what a user does not want."""

    events: Events
    weights: npt.NDArray[np.float32] | None
    negatives: Events


def weigh(events: Events, config: EventsConfig, known_items: Collection[str] | None) -> Worth:
    """Applies event types, values, unknown items, duplicates and repeats, in this order; counts go into `dropped`."""
    if known_items is not None:
        if config.item_numbers:
            _spell_as(events, known_items)
        known = np.array([name in known_items for name in events.items], dtype=np.bool_)
        events.keep(known[events.item], "items that are not in the catalogue")
    low = np.zeros(len(events), dtype=np.bool_)
    if config.min_value is not None and events.value is not None:
        low = events.value < config.min_value
    rules = [config.types.get(name, EventType()) for name in events.types]
    negative = np.array([rule.negative for rule in rules])[events.type] | (low & (config.low_value == "negative"))
    counts = np.array([rule.counts for rule in rules])[events.type] & ~low
    ignored = ~counts & ~negative
    for number, name in enumerate(events.types):
        lost = int((ignored & ~low & (events.type == number)).sum())
        if lost:
            events.dropped[f"of type {name}"] = lost
    if (low & ignored).any():
        events.dropped[f"with {config.value} below {config.min_value:g}"] = int((low & ignored).sum())
    negatives = _subset(events, negative)
    _name_low_values(negatives, rules)
    events.keep(counts)
    # The service keeps weights to 1/1024, so that its sums are exact; training counts alike.
    weight = np.array([round(1024 * rule.weight) / 1024 for rule in rules], dtype=np.float32)[events.type]
    weight = _collapse(events, config, weight)
    return Worth(events, None if (weight == 1).all() else weight, negatives)


def _spell_as(events: Events, known_items: Collection[str]) -> None:
    """Gives items the id of the one item that is the same number."""
    spelled: dict[str, str | None] = {}
    for name in known_items:
        number = number_of(name)
        if number is not None:
            spelled[number] = None if number in spelled else name
    names = [name if name in known_items else spelled.get(number_of(name) or "") or name for name in events.items]
    codes: dict[str, int] = {}
    own = np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int32)
    events.items, events.item = list(codes), own[events.item]


def _name_low_values(negatives: Events, rules: Sequence[EventType]) -> None:
    """Those whose own type is not negative become events of the type LOW_VALUE, which is."""
    low = ~np.array([rule.negative for rule in rules])[negatives.type]
    negatives.types = [*negatives.types, LOW_VALUE]
    negatives.type = np.where(low, len(rules), negatives.type).astype(negatives.type.dtype)


def _subset(events: Events, mask: npt.NDArray[np.bool_]) -> Events:
    value = None if events.value is None else events.value[mask]
    columns = (events.user[mask], events.item[mask], events.time[mask])
    return Events(events.users, events.items, events.types, *columns, events.unit, events.type[mask], value, 0)


def _collapse(events: Events, config: EventsConfig, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """One event for several of a user and an item: of the same time; and of a session or at all, as configured.

    The first one stays (with "last" the last one), with the largest of their weights and the type of that."""
    weight = _one_each(events, (events.time,), weight, False, "identical: same user, item and time")
    if config.repeats == "keep":
        return weight
    if config.repeats == "session":
        return _one_each(events, (_sessions(events, config.session_gap),), weight, False, "repeated within a session")
    return _one_each(events, (), weight, config.repeats == "last", "repeated")


def _one_each(
    events: Events,
    keys: tuple[npt.NDArray[np.int64], ...],
    weight: npt.NDArray[np.float32],
    last: bool,
    reason: str,
) -> npt.NDArray[np.float32]:
    merged = merge_equal((events.user, events.item, *keys), events.time, weight, last)
    if len(merged.kept) == len(events):
        return weight
    mask = np.zeros(len(events), dtype=np.bool_)
    mask[merged.kept] = True
    events.type[merged.kept] = events.type[merged.strongest]
    events.keep(mask, reason)
    return weight[merged.strongest]


def _sessions(events: Events, gap: float) -> npt.NDArray[np.int64]:
    if events.unit == "order":
        return np.zeros(len(events), dtype=np.int64)
    each = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[events.unit]
    return session_numbers(events.user, events.time, gap * each)


class Actors:
    """Who acted: the user; where it is empty, the user whose session it is, or else the session."""

    def __init__(self, config: EventsConfig) -> None:
        self._user, self._session = config.user or config.session or "", config.session if config.user else None
        self._nobody = pa.array(config.nobody, pa.string())
        self.ids = Ids(check_user_id)
        self._sessions = Ids(check_user_id)
        self._owner: dict[int, int] = {}  # user by session
        self._anonymous: dict[int, int] = {}  # session by the user that stands for it

    def encode(self, column: dict[str, pa.Array]) -> Codes:
        codes = self.ids.encode(self._named(column[self._user]))
        if self._session is None:
            return codes
        sessions = self._sessions.encode(self._named(column[self._session]))
        named = (codes >= 0) & (sessions >= 0)
        for pair in np.unique(np.stack([sessions[named], codes[named]]), axis=1).T.tolist():
            self._owner.setdefault(*pair)
        nameless = (codes == -1) & (sessions >= 0)
        if nameless.any():
            distinct = np.unique(sessions[nameless])
            names = pa.array([f"session-{self._sessions.names[session]}" for session in distinct])
            users = self.ids.encode(names)
            self._anonymous.update(zip(users.tolist(), distinct.tolist(), strict=True))
            codes = codes.copy()
            codes[nameless] = users[np.searchsorted(distinct, sessions[nameless])]
        return codes

    def _named(self, column: pa.Array) -> pa.Array:
        """Without the values that name nobody."""
        texts = id_texts(column)
        return pc.if_else(pc.is_in(texts, self._nobody), None, texts) if len(self._nobody) else texts

    def resolved(self, codes: Codes) -> Codes:
        """The same when all events are read: sessions that have an owner somewhere are theirs."""
        if not self._anonymous:
            return codes
        actor = np.arange(len(self.ids.names), dtype=np.int32)
        for code, session in self._anonymous.items():
            actor[code] = self._owner.get(session, code)
        return actor[codes]


def _types(column: pa.Array, known: dict[str, int]) -> npt.NDArray[np.int16]:
    encoded = id_texts(column).dictionary_encode()
    codes = [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()]
    if encoded.indices.null_count:
        codes.append(known.setdefault(UNTYPED, len(known)))
    if len(known) > 1000:
        raise InputError(
            f"more than 1,000 types, such as {list(known)[:3]}; another column has the type", "events.type"
        )
    return take(np.array(codes or [0], dtype=np.int16), encoded.indices)


def numbers(column: pa.Array) -> npt.NDArray[np.float32]:
    """Values as numbers; NaN where there is none. [n]"""
    if pa.types.is_string(column.type):
        encoded = column.dictionary_encode()
        read = [parse_amount(text, None) for text in encoded.dictionary.to_pylist()]
        values = np.array([np.nan if one is None else one for one in [*read, None]], dtype=np.float32)
        return take(values, encoded.indices)
    try:
        filled = pc.fill_null(column.cast(pa.float32(), safe=False), np.nan)
        return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return np.full(len(column), np.nan, dtype=np.float32)


def _reject(
    table: Table,
    config: EventsConfig,
    column: dict[str, pa.Array],
    read: tuple[Codes, Codes, npt.NDArray[np.int64]],
    before: int,
    rejects: Rejects,
    ids: tuple[Ids, Ids],
) -> None:
    """Counts the rejected rows of a batch by reason, with the place of the first."""
    user, item, time = read
    user_column, item_column = config.user or config.session or "", config.item_columns[0]
    way_out = 'on_error = "skip" in [events] leaves such rows out'
    left = np.ones(len(user), dtype=np.bool_)

    def count(mask: npt.NDArray[np.bool_], reason: str, message: Callable[[int], str]) -> None:
        nonlocal left
        mask = mask & left
        found = int(mask.sum())
        if found:
            place = int(np.flatnonzero(mask)[0])
            example = rejects.wants_example(reason)
            error = table.error(before + place, f"{message(place)}; {way_out}") if example else None
            rejects.add(reason, error, found)
            left &= ~mask

    if config.rows is not None:
        # A record without the list, such as a page view, and a line of something that is no product of the shop.
        without = item == -1
        if without.any():
            rejects.pass_over(f"without {item_column}", int(without.sum()))
            left &= ~without
    names = [name for name in (config.user, config.session, item_column, config.time) if name is not None]
    missing = np.stack([_is_null(column[name]) for name in names])
    totals = np.stack([_names_total(column[name]) for name in names]).any(axis=0) & missing.any(axis=0)
    for mask, reason in ((totals, TOTALS_ROWS), (missing.all(axis=0), _NOTHING)):
        # The sums and blank rows at the end of a report.
        if (mask := mask & left).any():
            rejects.pass_over(reason, int(mask.sum()))
            left &= ~mask
    count(user == -1, f"no {user_column}", lambda place: f"{user_column} is empty, so nobody did this")
    count(item == -1, f"no {item_column}", lambda place: f"{item_column} is empty")
    for codes, own, broken in ((user, user_column, ids[0].broken), (item, item_column, ids[1].broken)):

        def why(place: int, own: str = own, broken: dict[str, str] = broken) -> str:
            return f"{own} {_shown(column, own, place)}: {_why(broken, column, own, place)}"

        count(codes == -2, f"{own} is not an id", why)
    if config.time is not None:
        name = config.time
        texts = column[name]
        missing = texts.is_null().to_numpy(zero_copy_only=False)
        count(missing, f"no {name}", lambda place: f"{name} is empty")
        kind = f"time_format = {config.time_format!r}"
        count(
            time == NULL,
            f"{name} cannot be read",
            lambda place: f"{name} {_shown(column, name, place)} does not fit {kind}",
        )


def _is_null(column: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return found


def _names_total(column: pa.Array) -> npt.NDArray[np.bool_]:
    if not pa.types.is_string(column.type):
        return np.zeros(len(column), dtype=np.bool_)
    words = pc.utf8_rtrim(pc.utf8_lower(pc.utf8_trim_whitespace(column)), ": ")
    found: npt.NDArray[np.bool_] = pc.fill_null(pc.is_in(words, pa.array(TOTALS)), False).to_numpy(zero_copy_only=False)
    return found


def _shown(column: dict[str, pa.Array], name: str, place: int) -> str:
    value = str(column[name][place].as_py())
    return repr(value if len(value) <= 60 else f"{value[:60]}...")


def _why(broken: dict[str, str], column: dict[str, pa.Array], name: str, place: int) -> str:
    value = id_texts(column[name].slice(place, 1))[0].as_py()
    return broken.get(value, "not an id")
