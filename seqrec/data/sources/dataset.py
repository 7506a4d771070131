"""A source becomes a folder with items.jsonl, interactions.csv and import.json, which says what was done."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TextIO, TypeVar

from tqdm import tqdm

from seqrec.data.files import new_directory
from seqrec.data.items import Item
from seqrec.data.jsonl import OnError
from seqrec.data.sources.base import Event, Source
from seqrec.data.sources.staging import Repeated, Staging, staging
from seqrec.errors import InputError
from seqrec.runtime.progress import redrawn_every

T = TypeVar("T")


@dataclass(frozen=True)
class Filters:
    """What is kept. They apply in this order; as they stand here, every event is."""

    attributes: tuple[str, ...] | None = None  # these, in this order; None: all
    min_rating: float | None = None
    textless: Literal["keep", "drop"] = "keep"  # items that no text describes
    repeated: Repeated = "keep"  # the same user and item again
    user_core: int = 0
    item_core: int = 0
    items: Literal["interacted", "all"] = "interacted"


@dataclass(frozen=True)
class Imported:
    """Counts. `left_out`: events by the filter that took them."""

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
) -> Imported:
    """Write the folder, whole or not at all. `about` goes into import.json.

    Memory does not grow with the data; the disk holds it twice for a while. Raises FileFormatError for a broken line,
    InputError if the filters leave nothing.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; say --overwrite to replace it")
    with new_directory(out, replace=overwrite) as folder:
        with staging(folder / "staging.sqlite") as stage:
            done = _fill(stage, source, filters, on_error)
            if not stage.count("events"):
                raise InputError(_nothing_left(done))
            suffix = ".gz" if compress else ""
            written = silent = 0
            with _create(folder / f"items.jsonl{suffix}") as file:
                for line, has_text in stage.item_lines(filters.items == "interacted"):
                    file.write(line + "\n")
                    written, silent = written + 1, silent + (not has_text)
            with _create(folder / f"interactions.csv{suffix}") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("user_id", "item_id", "timestamp"))
                writer.writerows(stage.events())
            done = replace(
                done,
                users=stage.count("user_id"),
                items=written,
                events=stage.count("events"),
                items_without_text=silent,
            )
        told = {**about, "filters": asdict(filters), "counts": asdict(done)}
        (folder / "import.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return done


def _fill(stage: Staging, source: Source, filters: Filters, on_error: OnError) -> Imported:
    items, events = _Counted("items"), _Counted("events")
    new = stage.add_items(_selected(items.all(source.items(on_error)), filters.attributes))
    added = stage.add_events(_rated(events.all(source.events(on_error)), filters.min_rating))
    left_out = {"rating": events.count - added}
    left_out["textless"] = stage.drop_textless() if filters.textless == "drop" else 0
    left_out["repeated"] = stage.drop_repeated(filters.repeated)
    left_out["core"] = stage.keep_core(filters.user_core, filters.item_core)
    return Imported(0, 0, 0, events.count, items.count, items.count - new, 0, left_out)


class _Counted:
    """Counts what passes, with a bar on stderr."""

    def __init__(self, what: str) -> None:
        self.what, self.count = what, 0

    def all(self, values: Iterator[T]) -> Iterator[T]:
        for value in tqdm(values, desc=self.what, unit="", unit_scale=True, mininterval=redrawn_every()):
            self.count += 1
            yield value


def _selected(items: Iterator[Item], names: tuple[str, ...] | None) -> Iterator[Item]:
    """Items with the named attributes alone. Raises InputError after the last for a name that none of them has."""
    seen: set[str] = set()
    for item in items:
        seen |= item.attributes.keys()
        if names is not None:
            item = replace(item, attributes={name: item.attributes[name] for name in names if name in item.attributes})
        yield item
    missing = [name for name in names or () if name not in seen]
    if missing and seen:
        raise InputError(f"no item has {missing[0]!r}; there are {', '.join(sorted(seen))}", "--attributes")


def _rated(events: Iterator[Event], least: float | None) -> Iterator[Event]:
    for event in events:
        if least is not None and event.rating is None:
            raise InputError("the data has no ratings; leave it out", "--min-rating")
        if least is None or event.rating is None or event.rating >= least:
            yield event


def _nothing_left(done: Imported) -> str:
    left_out = ", ".join(f"{count} by {name}" for name, count in done.left_out.items() if count)
    if not done.events_read:
        return "there are no events in it"
    return f"no event is left of {done.events_read}: left out {left_out}; ask for less"


@contextmanager
def _create(path: Path) -> Iterator[TextIO]:
    """A text file to write; compressed ones are the same bytes each time (no name, no time in them)."""
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
