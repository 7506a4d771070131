"""The stage `import`: the shop's files become items.jsonl and interactions.parquet in the project's home.

Also negatives.parquet, what users do not want, and import.json, what was read and left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.files import new_directory, sha256_file
from seqrec.data.items import Item
from seqrec.data.tables.base import Rejects, Table, TableOptions
from seqrec.data.tables.open import open_table
from seqrec.errors import InputError
from seqrec.shop.events import Events, Worth, read_events, weigh
from seqrec.shop.items import ItemCounts, read_shop_items
from seqrec.shop.project import Project, SourceConfig

log = logging.getLogger(__name__)

ITEMS, INTERACTIONS, NEGATIVES, REPORT = "items.jsonl", "interactions.parquet", "negatives.parquet", "import.json"
_ROWS = 1 << 20
Progress = Callable[[int], object]


@dataclass
class Report:
    """What the import did, as import.json has it. `digests`: of what a model is trained on, and of all items."""

    items: dict[str, Any] = field(default_factory=dict)
    events: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def tables_of(project: Project) -> tuple[Table, Table]:
    """Raises FileFormatError or InputError for what cannot be read."""
    config = project.config
    items = open_table(config.items.location, options_of(config.items), "items", project.base)
    return items, open_table(config.events.location, options_of(config.events), "events", project.base)


def options_of(source: SourceConfig) -> TableOptions:
    names = ("format", "encoding", "delimiter", "quote", "header", "sheet", "query", "records", "rows")
    return TableOptions(**{name: getattr(source, name) for name in names})


def import_shop(project: Project, progress: Progress = lambda rows: None) -> Report:
    """Writes the folder `data` of the project's home, which replaces the one before when it is complete.

    Raises FileFormatError for rows that cannot be read, unless on_error = "skip"; InputError if nothing is left.
    """
    config = project.config
    items_table, events_table = tables_of(project)
    report = Report()
    project.home.mkdir(parents=True, exist_ok=True)
    with new_directory(project.items.parent, replace=True) as folder:
        known = _write_items(items_table, project, folder, report, progress)
        rejects = Rejects(config.events.on_error)
        events = read_events(events_table, config.events, rejects, progress)
        worth = weigh(events, config.events, known)
        _check_left(events_table, items_table, project, worth, known)
        write_events(folder / INTERACTIONS, worth.events, worth.weights)
        if len(worth.negatives):
            write_events(folder / NEGATIVES, worth.negatives, None)
        report.events = events_summary(worth, rejects)
        report.digests["interactions"] = sha256_file(folder / INTERACTIONS)
        (folder / REPORT).write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def read_feed(project: Project, path: Path | None) -> list[Item]:
    """The items of a file (None: of what [items] names), read as [items] says. Raises FileFormatError."""
    config = project.config.items
    location = config.location if path is None else str(path.absolute())
    table = open_table(location, options_of(config), "items", project.base)
    found = list(read_shop_items(table, config, Rejects(config.on_error), ItemCounts(), lambda rows: None))
    if not found:
        raise InputError("there is no item in it", table.name)
    return found


def _write_items(table: Table, project: Project, folder: Path, report: Report, progress: Progress) -> set[str]:
    config = project.config.items
    rejects, counts, known = Rejects(config.on_error), ItemCounts(), set[str]()
    read, texts = hashlib.sha256(), set(config.texts)
    with (folder / ITEMS).open("w", encoding="utf-8", newline="\n") as file:
        for item in read_shop_items(table, config, rejects, counts, progress):
            file.write(item_line(item))
            known.add(item.item_id)
            own = [item.item_id, {name: value for name, value in item.attributes.items() if name in texts}]
            read.update(json.dumps(own, ensure_ascii=False).encode())
    if not known:
        raise InputError(f"no item is left of {counts.read:,} rows", table.name)
    report.items = items_summary(counts, rejects)
    report.digests |= {"texts": read.hexdigest(), "items": sha256_file(folder / ITEMS)}
    return known


def item_line(item: Item) -> str:
    record: dict[str, object] = {"item_id": item.item_id, "attributes": dict(item.attributes)}
    if not item.available:
        record["available"] = False
    return json.dumps(record, ensure_ascii=False) + "\n"


def write_events(path: Path, events: Events, weights: npt.NDArray[np.float32] | None) -> None:
    """user_id, item_id, timestamp; type, weight and value where events differ in them. In the order of the file."""
    users, items, types = pa.array(events.users, pa.string()), pa.array(events.items), pa.array(events.types)
    typed = len(events.types) > 1 or bool(events.types and events.types[0])

    def part(begin: int) -> pa.Table:
        rows = slice(begin, begin + _ROWS)
        columns: dict[str, Any] = {
            "user_id": users.take(pa.array(events.user[rows])),
            "item_id": items.take(pa.array(events.item[rows])),
            "timestamp": pa.array(events.time[rows]),
        }
        if typed:
            columns["type"] = types.take(pa.array(events.type[rows]))
        if weights is not None:
            columns["weight"] = pa.array(weights[rows])
        if events.value is not None:
            columns["value"] = pa.array(events.value[rows], from_pandas=True)
        return pa.table(columns)

    first = part(0)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for begin in range(_ROWS, len(events), _ROWS):
            writer.write_table(part(begin))


def items_summary(counts: ItemCounts, rejects: Rejects) -> dict[str, Any]:
    left_out = {"repeated ids": counts.duplicates, **rejects.counts, **rejects.passed}
    return {
        "read": counts.read,
        "kept": counts.kept,
        "left_out": {name: count for name, count in left_out.items() if count},
        "without_text": counts.without_text,
        "unavailable": counts.unavailable,
        "cut": counts.cut,
        "not_numbers": {name: count for name, count in counts.not_numbers.items() if count},
        "examples": [str(error) for error in rejects.examples],
    }


def events_summary(worth: Worth, rejects: Rejects) -> dict[str, Any]:
    events = worth.events
    return {
        "read": events.read,
        "kept": len(events),
        "users": len(np.unique(events.user)),
        "items": len(np.unique(events.item)),
        "negatives": len(worth.negatives),
        "left_out": {**rejects.counts, **rejects.passed, **events.dropped},
        "types": events.type_counts,
        "unit": events.unit,
        "first": int(events.time.min(initial=0)) if not len(events) else int(events.time.min()),
        "last": int(events.time.max(initial=0)) if not len(events) else int(events.time.max()),
        "weighted": worth.weights is not None,
        "examples": [str(error) for error in rejects.examples],
    }


def summary_lines(report: Report) -> Sequence[str]:
    """For people: what was read and what was left out."""
    items, events = report.items, report.events
    lines = [f"items: {items['kept']:,} of {items['read']:,} rows"]
    lines += [f"  left out {count:,}: {name}" for name, count in items["left_out"].items()]
    if items["without_text"]:
        lines.append(f"  {items['without_text']:,} have no text")
    if items["unavailable"]:
        lines.append(f"  {items['unavailable']:,} are not available: they count in histories and are not recommended")
    lines += [
        f"  {count:,} values of {name} are not numbers and are left out" for name, count in items["not_numbers"].items()
    ]
    if items["cut"]:
        lines.append(f"  {items['cut']:,} values were longer than 8,192 bytes and were cut")
    lines.append(
        f"events: {events['kept']:,} of {events['read']:,} rows, {events['users']:,} users, {events['items']:,} items"
    )
    lines += [f"  left out {count:,}: {name}" for name, count in events["left_out"].items()]
    if events["negatives"]:
        lines.append(f"  {events['negatives']:,} say what a user does not want: kept apart, in no history")
    lines += [f"  {example}" for example in (*items["examples"], *events["examples"])]
    return lines


def _check_left(events_table: Table, items_table: Table, project: Project, worth: Worth, known: set[str]) -> None:
    if len(worth.events):
        return
    unknown = worth.events.dropped.get("items that are not in the catalogue", 0)
    config = project.config
    if unknown:
        example, other = worth.events.items[0], next(iter(known))
        raise InputError(
            f"none of {unknown:,} events has an item of {items_table.name}: {config.events.item_columns[0]} is such as "
            f"{example!r}, {config.items.id} such as {other!r}; choose columns in shop.toml that name the same thing",
            events_table.name,
        )
    lost = ", ".join(f"{count:,} {name}" for name, count in worth.events.dropped.items()) or "it has no rows"
    raise InputError(f"no event is left to make a history: {lost}; see [events] in shop.toml", events_table.name)
