"""Writes a source as a folder with items.jsonl, interactions.csv and import.json, which records how it was made."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TextIO, TypeVar

from tqdm import tqdm

from seqrec.data.files import new_directory
from seqrec.data.items import Item
from seqrec.data.jsonl import OnError
from seqrec.data.sources.base import Event, Source, check_replaceable
from seqrec.data.sources.staging import Repeated, Staging, TimeCounts, staging
from seqrec.data.timestamps import mixed_units
from seqrec.errors import InputError, there_are
from seqrec.runtime.progress import redrawn_every

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Filters:
    """What is kept. Applied in this order; the defaults keep every event."""

    attributes: tuple[str, ...] | None = None  # these, in this order; None: all
    min_rating: float | None = None
    textless: Literal["keep", "drop"] = "keep"  # items that no text describes
    repeated: Repeated = "keep"  # the same user and item again
    user_core: int = 0
    item_core: int = 0
    items: Literal["interacted", "all"] = "interacted"


@dataclass(frozen=True)
class Imported:
    """Counts. `left_out`: events by the filter that removed them."""

    users: int
    items: int
    events: int
    events_read: int
    items_read: int
    items_repeated: int
    items_without_text: int
    left_out: dict[str, int] = field(default_factory=dict)


def import_dataset(
    source: Source,
    out: Path,
    filters: Filters,
    about: dict[str, object],
    on_error: OnError = "raise",
    compress: bool = False,
    overwrite: bool = False,
    time_unit: str | None = None,
) -> Imported:
    """Writes the folder atomically. `about` goes into import.json.

    `time_unit`: one of UNITS; timestamps of coarser units are converted to it. None: as they are, or
    in the finest unit that occurs if the source is known to mix them. Memory does not grow with the data; the
    disk contains it twice for a while. Raises FileFormatError for a broken line; InputError if the filters leave
    nothing, for timestamps that cannot be compared, and if `out` cannot be written.
    """
    check_replaceable(out, "import.json", overwrite)
    with new_directory(out, replace=overwrite) as folder:
        with staging(folder / "staging.sqlite") as stage:
            done = _fill(stage, source, filters, on_error, time_unit)
            if not stage.count("events"):
                raise InputError(_nothing_left(done))
            suffix = ".gz" if compress else ""
            written = textless = 0
            with _create(folder / f"items.jsonl{suffix}") as file:
                for line, has_text in stage.item_lines(filters.items == "interacted"):
                    file.write(line + "\n")
                    written, textless = written + 1, textless + (not has_text)
            with _create(folder / f"interactions.csv{suffix}") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("user_id", "item_id", "timestamp"))
                writer.writerows(stage.events())
            done = replace(
                done,
                users=stage.count("user_id"),
                items=written,
                events=stage.count("events"),
                items_without_text=textless,
            )
        record = {**about, "filters": asdict(filters), "counts": asdict(done)}
        (folder / "import.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return done


def _fill(stage: Staging, source: Source, filters: Filters, on_error: OnError, time_unit: str | None) -> Imported:
    items, events = _Counted("items"), _Counted("events")
    new = stage.add_items(_selected(items.all(source.items(on_error)), filters.attributes))
    added = stage.add_events(_rated(events.all(source.events(on_error)), filters.min_rating))
    counts = stage.count_times()
    if time_unit is None and source.mixes_units and len(counts.units) > 1:
        time_unit = list(counts.units)[-1]
        found = " and ".join(f"{count:,} in {unit}" for unit, count in counts.units.items())
        log.warning("timestamps: %s; all are written in %s", found, time_unit)
    if time_unit is not None:
        stage.to_unit(time_unit)
        counts = stage.count_times()
    _check_times(counts)
    left_out = {"rating": events.count - added}
    left_out["textless"] = stage.drop_textless() if filters.textless == "drop" else 0
    left_out["repeated"] = stage.drop_repeated(filters.repeated)
    left_out["core"] = stage.keep_core(filters.user_core, filters.item_core)
    return Imported(0, 0, 0, events.count, items.count, items.count - new, 0, left_out)


def _check_times(counts: TimeCounts) -> None:
    """Raises InputError if the timestamps are not all comparable."""
    mixed = mixed_units(counts.units)
    if mixed:
        finest = list(counts.units)[-1]
        raise InputError(f"{mixed} with --time-unit {finest}", "timestamps")
    if counts.fractions and counts.large:
        raise InputError(
            f"{counts.fractions:,} fractions and {counts.large:,} whole numbers beyond 2^53, which no number type "
            "compares exactly; write all as whole numbers of one unit",
            "timestamp",
        )


class _Counted:
    """Counts the values of an iterator, with a progress bar on stderr."""

    def __init__(self, what: str) -> None:
        self.what, self.count = what, 0

    def all(self, values: Iterator[T]) -> Iterator[T]:
        for value in tqdm(values, desc=self.what, unit="", unit_scale=True, mininterval=redrawn_every()):
            self.count += 1
            yield value


def _selected(items: Iterator[Item], names: tuple[str, ...] | None) -> Iterator[Item]:
    """Items with only the named attributes. Raises InputError after the last item for a name that no item has."""
    seen: set[str] = set()
    for item in items:
        seen |= item.attributes.keys()
        if names is not None:
            item = replace(item, attributes={name: item.attributes[name] for name in names if name in item.attributes})
        yield item
    missing = [name for name in names or () if name not in seen]
    if missing and seen:
        raise InputError(f"no item has {missing[0]!r}{there_are(missing[0], sorted(seen))}", "--attributes")


def _rated(events: Iterator[Event], least: float | None) -> Iterator[Event]:
    for event in events:
        if least is not None and event.rating is None:
            raise InputError("the data has no ratings; omit this option", "--min-rating")
        if least is None or event.rating is None or event.rating >= least:
            yield event


def _nothing_left(done: Imported) -> str:
    left_out = ", ".join(f"{count} by {name}" for name, count in done.left_out.items() if count)
    if not done.events_read:
        return "the data has no events"
    return f"no event is left of {done.events_read}: left out {left_out}; use weaker filters"


@contextmanager
def _create(path: Path) -> Iterator[TextIO]:
    """A text file to write; compressed ones are the same bytes each time, without name and time."""
    if path.suffix != ".gz":
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
    ):
        yield file
