"""The command `seqrec catalogue`: dump, restore, info."""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, cast

from index.arguments import add_common
from index.backup.dump import check_dump, write_dump
from index.backup.restore import restore
from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.catalogue.open import is_redis, location_of, open_catalogue, open_histories
from index.events.counting import current_counts
from index.snapshot.carried import keep_popularity, kept_popularity
from index.snapshot.publication import published
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.files import new_file
from seqrec.errors import FileFormatError, InputError, SnapshotError
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import StageBars

log = logging.getLogger(__name__)


def catalogue(argv: list[str]) -> None:
    parser = Parser(
        "seqrec catalogue",
        description="Dump the catalogue to a file, restore it, or show what it contains. It is the one of "
        "SEQREC_REDIS_URL if that is set, else the one in SEQREC_HOME.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    dump = commands.add_parser(
        "dump",
        help="write all items to a file",
        description="Write all items with their vectors, as of one moment, to a file. The service may run meanwhile. "
        "Snapshots are not part of it: after a restore, `seqrec reindex --checkpoint` makes one without encoding "
        "anything again. How often each item was used is part of it, also without --histories.",
    )
    dump.add_argument("file", metavar="FILE", help="JSON Lines, .gz compresses them; -: standard output")
    dump.add_argument("--histories", action="store_true", help="also the users' events, which are personal data")
    dump.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_common(dump)

    back = commands.add_parser(
        "restore",
        help="import the items of a dump into the catalogue",
        description="Import the items of a dump, and the users' events if it has them, into an empty catalogue, which "
        "is created if there is none. The whole file is checked before anything is written.",
    )
    back.add_argument("file", metavar="FILE", help="written by `dump`, .gz too; -: standard input")
    back.add_argument(
        "--merge",
        action="store_true",
        help="into a catalogue that has items: those of the dump replace those with the same id, others stay. Also "
        "continues an interrupted restore",
    )
    add_common(back)

    info = commands.add_parser("info", help="show where the catalogue is and what it contains")
    add_common(info)

    arguments = parser.parse_args(argv)
    {"dump": _dump, "restore": _restore, "info": _info}[arguments.command](arguments)


def _dump(arguments: argparse.Namespace) -> None:
    location = location_of(arguments.home)
    _check_new(arguments.file, arguments.overwrite)
    with (
        closing(open_catalogue(location)) as source,
        closing(open_histories(location)) as histories,
        StageBars(unit="") as bars,
        _output(arguments.file) as file,
    ):
        popularity = _popularity(arguments.home, source, None if arguments.histories else histories)
        contents = write_dump(source, histories if arguments.histories else None, file, bars, popularity)
    where = sys.stderr if arguments.file == "-" else sys.stdout  # standard output has the dump itself
    if arguments.json:
        print(json.dumps(asdict(contents)), file=where)
    else:
        print(f"{contents.items:,} items, {contents.events:,} events of catalogue {contents.catalogue_id}", file=where)


def _popularity(home: Path, catalogue: Catalogue, histories: HistoryStore | None) -> Mapping[str, float]:
    """Events of each item: those that the served snapshot carries without a record, and those of `histories`."""
    snapshot_id = published(catalogue)
    counts: dict[str, float] = {}
    base = None
    if snapshot_id is not None:
        try:
            snapshot = SnapshotStore(home).open(snapshot_id)
            base = snapshot.counts if snapshot.manifest.events_seq is not None else None
            counts = {
                item_id: count
                for item_id, count in zip(snapshot.item_ids, snapshot.popularity.tolist(), strict=True)
                if count
            }
        except SnapshotError as error:
            log.warning("popularity from before the log of events is not dumped: %s", error)
    if histories is not None:
        counted = current_counts(histories, None, base)
        for item_id, events in zip(counted.item_ids, counted.events.tolist(), strict=True):
            counts[item_id] = counts.get(item_id, 0) + events
    return counts


def _restore(arguments: argparse.Namespace) -> None:
    location = location_of(arguments.home)
    name = Path("standard input" if arguments.file == "-" else arguments.file)
    with _seekable(arguments.file) as file:
        contents = check_dump(file, name)  # before a catalogue is created
        file.seek(0)
        with (
            closing(open_catalogue(location, create=True)) as target,
            closing(open_histories(location)) as histories,
            StageBars(unit="") as bars,
        ):
            restored = restore(file, name, contents, target, histories, arguments.merge, bars)
            served = published(target)
            if restored.popularity and served is None:
                kept = kept_popularity(arguments.home, target.catalogue_id) if arguments.merge else None
                keep_popularity(arguments.home, target.catalogue_id, (kept or {}) | restored.popularity)
    if arguments.json:
        print(json.dumps(asdict(restored) | {"popularity": len(restored.popularity)}))
        return
    print(
        f"{restored.created:,} items created, {restored.updated:,} updated, {restored.unchanged:,} unchanged; "
        f"{restored.events:,} events. `seqrec reindex --checkpoint` makes a snapshot of them"
    )
    if restored.popularity and served is not None:
        print(f"the popularity in the dump is not used: snapshot {served} has its own")


def _info(arguments: argparse.Namespace) -> None:
    location = location_of(arguments.home)
    with closing(open_catalogue(location)) as shown:
        publications = shown.publications()
        facts = {
            "kept_in": "redis" if is_redis(location) else "sqlite",
            "catalogue_id": shown.catalogue_id,
            "items": shown.count(),
            "seq": shown.head(),
            "superseded": shown.superseded(),
            "served": publications[0].snapshot_id if publications else None,
            "durability_warnings": list(shown.durability_warnings),
        }
    if arguments.json:
        print(json.dumps(facts))
        return
    print(f"catalogue {facts['catalogue_id']}, in {facts['kept_in']}: {facts['items']:,} items at {facts['seq']}")
    print(f"log: {facts['superseded']:,} superseded records, which a reindex removes once no snapshot needs them")
    print(f"served: {facts['served'] or 'no snapshot is published'}")
    for warning in shown.durability_warnings:
        print(f"durability: {warning}")


def _check_new(name: str, overwrite: bool) -> None:
    """Raises InputError for a file that exists or cannot be created, before anything is read."""
    if name == "-":
        return
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file in it, such as {path / 'catalogue.jsonl.gz'}", "file")
    parent = path.absolute().parent
    if not parent.is_dir():
        reason = "is not a directory" if parent.exists() else "does not exist; create it first"
        raise InputError(f"{path} cannot be created: {parent} {reason}", "file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be created: {parent} is not writable", "file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name, or replace it with --overwrite", "file")


@contextmanager
def _output(name: str) -> Iterator[IO[bytes]]:
    """A file that exists once it is complete and synced, or standard output."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with new_file(Path(name), private=True) as file:
        if name.endswith(".gz"):
            with gzip.open(file, "wb", compresslevel=6) as compressed:
                yield cast(IO[bytes], compressed)
        else:
            yield file


@contextmanager
def _seekable(name: str) -> Iterator[IO[bytes]]:
    """A file that is read twice; standard input is copied to a temporary one."""
    if name == "-":
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.seek(0)
            yield copy
        return
    path = Path(name)
    if not path.is_file():
        raise FileFormatError(path, None, "a directory, not a file" if path.is_dir() else "no such file")
    with path.open("rb") as file:
        if path.suffix == ".gz":
            with gzip.open(file) as content:
                yield cast(IO[bytes], content)
        else:
            yield file
