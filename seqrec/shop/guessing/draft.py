"""A first shop.toml: guessed from the data, tried on all of it, and written with the reason of every line."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seqrec.data.items import Item, attribute_text
from seqrec.data.tables.base import Rejects, Table, TableOptions
from seqrec.data.tables.source_table import recognize
from seqrec.data.tables.sql_table import is_url
from seqrec.errors import InputError
from seqrec.shop.events import UNTYPED, Events, Worth, read_events, weigh
from seqrec.shop.guessing.columns import (
    ColumnGuess,
    EventsGuess,
    guess_events,
    guess_items,
    repeats_for_variants,
)
from seqrec.shop.guessing.hints import worth_of
from seqrec.shop.guessing.links import Input, find_sides
from seqrec.shop.imported import Report, events_summary, items_summary, summary_lines
from seqrec.shop.items import ItemCounts, read_shop_items
from seqrec.shop.project import (
    EventsConfig,
    EventType,
    ItemsConfig,
    Project,
    ShopConfig,
    toml_key,
    toml_string,
    toml_value,
)

MAX_REJECTED = 0.5
"""Share of the rows that may be unreadable; with more, the guesses are wrong or the file is not a table."""
SHOWN_ITEMS, SHOWN_EVENTS = 5, 8
_SHOWN_UNUSED = 40


@dataclass(eq=False)
class Draft:
    """Everything that goes into the file, and what is shown of the data."""

    items: Input
    events: Input
    tables: tuple[Table, Table]
    columns: Sequence[ColumnGuess]
    guess: EventsGuess
    report: Report = field(default_factory=Report)
    types: dict[str, tuple[EventType, str]] = field(default_factory=dict)
    duplicates: Literal["last", "merge"] = "last"
    rejects: dict[str, Rejects] = field(default_factory=dict)
    first_items: list[Item] = field(default_factory=list)
    history: list[str] = field(default_factory=list)


def draft_project(items: Input, events: Input, progress: Callable[[int], object] = lambda rows: None) -> Draft:
    """Reads both tables twice: their first rows to guess, all rows to count. Raises FileFormatError or InputError."""
    shop, log, link = find_sides(items, events)
    columns = guess_items(shop, link)
    draft = Draft(shop.source, log.source, (shop.table, log.table), columns, guess_events(log, link))
    draft.duplicates = "merge" if repeats_for_variants(shop, link, columns) else "last"
    _try(draft, progress)
    return draft


def find_data_set(folder: Path) -> tuple[Input, Input] | None:
    """A folder of MovieLens, RecBole or Amazon as items and events."""
    name = recognize(folder)
    if name is None:
        return None
    one = Input(str(folder), TableOptions(format=name))
    return one, one


def _try(draft: Draft, progress: Callable[[int], object]) -> None:
    """An import of everything that writes nothing."""
    items_table, events_table = draft.tables
    items_config = ItemsConfig.model_validate(
        {
            "path": draft.items.path,
            "columns": {guess.name: guess.setting for guess in draft.columns},
            "duplicates": draft.duplicates,
            "rows": draft.items.options.rows,
        }
    )
    rejects, counts, known = Rejects(), ItemCounts(), {}
    for item in read_shop_items(items_table, items_config, rejects, counts, progress):
        if len(draft.first_items) < SHOWN_ITEMS:
            draft.first_items.append(item)
        known[item.item_id] = _shown_text(item, items_config.texts[:1])
    _check_rejected(items_table, rejects, counts.read)
    draft.rejects["items"] = rejects
    draft.report.items = items_summary(counts, rejects)
    events_config = EventsConfig.model_validate(
        {"path": draft.events.path, "rows": draft.events.options.rows, **draft.guess.settings}
    )
    rejects = Rejects()
    events = read_events(events_table, events_config, rejects, progress)
    _check_rejected(events_table, rejects, events.read)
    draft.rejects["events"] = rejects
    names = [name for name in events.types if name != UNTYPED]
    draft.types = {name: worth_of(name) for name in names}
    if names and not any(rule.counts for rule, _ in draft.types.values()):
        draft.types = {name: (EventType(), "no type is known: check it") for name in names}
    if len(names) > 1:
        draft.guess.set(
            "repeats", "session", "the same item again within session_gap is one event, of the strongest type"
        )
    types = {name: rule for name, (rule, _) in draft.types.items()}
    settings = {**draft.guess.settings, "types": types}
    worth = weigh(events, EventsConfig.model_validate({"path": draft.events.path, **settings}), known)
    draft.report.events = events_summary(worth, rejects)
    draft.history = _history(worth, known)


def _check_rejected(table: Table, rejects: Rejects, read: int) -> None:
    broken = {name: count for name, count in rejects.counts.items() if not name.startswith("no ")}
    if sum(broken.values()) > MAX_REJECTED * max(1, read):
        reasons = ", ".join(f"{count:,} {name}" for name, count in broken.items())
        example = f"; {rejects.examples[0]}" if rejects.examples else ""
        raise InputError(f"{sum(broken.values()):,} of {read:,} rows cannot be read ({reasons}){example}", table.name)


def _shown_text(item: Item, names: Sequence[str]) -> str:
    return "; ".join(attribute_text(item.attributes[name])[:70] for name in names if name in item.attributes)


def _history(worth: Worth, titles: Mapping[str, str]) -> list[str]:
    """The newest events of a user with a typical number of events."""
    events = worth.events
    if not len(events):
        return []
    counts = np.bincount(events.user)
    users = np.flatnonzero(counts >= min(3, counts.max()))
    user = int(users[np.argsort(counts[users], kind="stable")[len(users) // 2]])
    rows = np.flatnonzero(events.user == user)
    rows = rows[np.argsort(events.time[rows], kind="stable")]
    lines = [f"user {events.users[user]}: {len(rows)} events, oldest first"]
    for row in rows[-SHOWN_EVENTS:]:
        item_id, kind = events.items[events.item[row]], events.types[events.type[row]]
        title = titles.get(item_id, "")
        lines.append(f"  {_shown_time(events, int(events.time[row]))}  {kind + '  ' if kind else ''}{item_id}  {title}")
    return lines


def _shown_time(events: Events, time: int) -> str:
    if events.unit == "order":
        return f"#{time}"
    moment = np.array([time]).astype(f"datetime64[{events.unit}]").astype("datetime64[s]")
    return str(moment[0]).replace("T", " ")


def preview(draft: Draft) -> list[str]:
    """The first items and one history as the models read them, and what was left out."""
    texts = [guess.name for guess in draft.columns if guess.setting["as"] in ("text", "list")]
    lines = [
        *summary_lines(draft.report),
        "",
        f"the first items, as the models read them ({', '.join(texts) or 'ids alone'}):",
    ]
    for item in draft.first_items:
        read = " | ".join(
            f"{name}: {attribute_text(item.attributes[name])[:60]}" for name in texts if name in item.attributes
        )
        stored = ", ".join(name for name in item.attributes if name not in texts)
        lines.append(f"  {item.item_id}  {read or 'no text'}" + (f"   (stored: {stored})" if stored else ""))
    if draft.history:
        lines += ["", "one history:", *(f"  {line}" for line in draft.history)]
    return lines


def render(draft: Draft, out: Path) -> str:
    """The text of shop.toml. Paths in it start from its folder."""
    base = out.absolute().parent
    today = datetime.date.today().isoformat()
    report = draft.report
    lines = [
        f"# Written by `seqrec init` on {today}. Every line is a guess with its reason: change what is wrong, then run",
        "# `seqrec up`. Paths start from the folder of this file.",
        "format = 1",
        'home = "var"  # the folder of everything that is made: imported data, model, index. SEQREC_HOME overrides it',
        "",
        "[items]",
        *_source(draft.items, draft.tables[0], draft.rejects["items"], report.items, base),
        *_duplicates(report.items, draft.duplicates),
        "",
        "[items.columns]  # id; text and list: words are read of all, a text model reads the first 3; number;",
        "                 # stored: kept, not read; available: sold or not; drop",
        *(_commented(f"{toml_key(guess.name)} = {_inline(guess.setting)}", guess.why) for guess in draft.columns),
        "",
        "[events]",
        *_source(draft.events, draft.tables[1], draft.rejects["events"], report.events, base),
        *(
            _commented(f"{name} = {toml_value(value)}", draft.guess.why[name])
            for name, value in draft.guess.settings.items()
        ),
        *_repeats(draft),
    ]
    if draft.guess.unused:
        more = len(draft.guess.unused) - _SHOWN_UNUSED
        names = ", ".join(_shown_name(name) for name in draft.guess.unused[:_SHOWN_UNUSED])
        lines.append(f"# not used: {names}{f' and {more:,} more' if more > 0 else ''}")
    lines += _types(draft)
    lines += [
        "",
        "[train]",
        'preset = ""  # chosen by the data; or the name of a file in training/config/presets',
        "# settings = { optimizer = { max_steps = 1000 } }",
        "",
        "[evaluate]",
        'split = "leave-one-out"  # the last event of every user; or "time", "last-basket"',
        "",
        "[serve]",
        'host = "127.0.0.1"',
        "port = 8000",
        "",
        "[retrain]",
        '# every = "24h"  # by the service itself; what is worse is not published',
        "",
    ]
    return "\n".join(lines)


def _source(source: Input, table: Table, rejects: Rejects, summary: Mapping[str, Any], base: Path) -> list[str]:
    path = source.path
    if not is_url(path):
        path = os.path.relpath(Path(path).absolute(), base) if not Path(path).is_absolute() else path
    lines = [_commented(f"path = {toml_string(path)}", f"{summary['read']:,} rows")]
    notes = table.notes
    if notes["format"] not in ("csv", "jsonl", "json", "parquet", "excel", "sql"):
        lines.append(f"format = {toml_string(notes['format'])}")
    encoding, dialect = notes.get("encoding"), notes.get("dialect")
    if encoding is not None and encoding.name != "utf-8":
        lines.append(_commented(f"encoding = {toml_string(encoding.name)}", encoding.why))
    if dialect is not None:
        if dialect.delimiter != ",":
            lines.append(f"delimiter = {toml_string(dialect.delimiter)}")
        if dialect.skip:
            lines.append(f"# the lines before line {dialect.skip + 1} are no part of the table and are not read")
        if not dialect.quote:
            lines.append(_commented('quote = ""', "quotes are ordinary characters here"))
        if not dialect.header:
            lines.append(_commented("header = false", f"no names in the first row: {', '.join(dialect.columns)}"))
    if source.options.query is not None:
        lines.append(f"query = {toml_string(source.options.query)}")
    if "of" in notes:
        lines.append(_commented(f"records = {toml_string(notes['records'])}", f"of its lists {notes['of']}"))
    if source.options.rows is not None:
        why = "a row for each element of this list, with the fields of its record"
        lines.append(_commented(f"rows = {toml_string(source.options.rows)}", why))
    if source.options.sheet is not None:
        lines.append(f"sheet = {toml_string(source.options.sheet)}")
    if rejects.count:
        left = ", ".join(f"{count:,} {name}" for name, count in rejects.counts.items())
        lines.append(_commented('on_error = "skip"', f'"raise" stops at the first; left out: {left}'))
    return lines


def _duplicates(summary: Mapping[str, Any], rule: str) -> list[str]:
    count = summary["left_out"].get("repeated ids", 0)
    why = {"last": "the last one counts", "merge": "they are variants: the first value counts"}
    return [_commented(f'duplicates = "{rule}"', f"{count:,} rows repeat an id; {why[rule]}")] if count else []


def _repeats(draft: Draft) -> list[str]:
    left, rejected = draft.report.events["left_out"], draft.rejects["events"].counts
    lines = []
    if draft.guess.settings.get("repeats") == "session":
        lines.append('session_gap = "30min"')
    lines += [f"# left out {count:,}: {name}" for name, count in left.items() if name not in rejected]
    return lines


def _types(draft: Draft) -> list[str]:
    if not draft.types:
        return []
    counts = draft.report.events["types"]
    lines = ["", "[events.types]  # history: in the user's history, with a weight; negative: not wanted; ignore"]
    for name in sorted(draft.types, key=lambda one: -counts.get(one, 0)):
        rule, why = draft.types[name]
        setting: dict[str, Any] = {"history": True, "weight": rule.weight}
        if rule.negative:
            setting = {"negative": True}
        elif rule.ignore:
            setting = {"ignore": True}
        count = f"{counts[name]:,}" if counts.get(name) else "no row of it has user, item and time"
        lines.append(_commented(f"{toml_key(name)} = {_inline(setting)}", f"{count}; {why}"))
    return lines


def _inline(setting: Mapping[str, Any]) -> str:
    if set(setting) == {"as"}:
        return toml_string(setting["as"])
    return "{ " + ", ".join(f"{name} = {toml_value(value)}" for name, value in setting.items()) + " }"


def _shown_name(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _commented(line: str, comment: str) -> str:
    clean = "".join(letter if letter.isprintable() else " " for letter in comment)
    return f"{line}  # {clean}" if clean else line


def checked(text: str, out: Path) -> Project:
    """The project that the text describes. Raises pydantic's error if it is none, which is a mistake of this module."""
    import tomllib

    return Project(out, ShopConfig.model_validate(tomllib.loads(text)))
