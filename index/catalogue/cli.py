"""`seqrec catalogue`: what is in it, and a copy of it as one file."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, cast

from index.arguments import add_common
from index.catalogue.dump import check_dump, write_dump
from index.catalogue.open import is_redis, location_of, open_catalogue, open_histories
from index.catalogue.restore import restore
from seqrec.data.files import fsync_directory
from seqrec.errors import FileFormatError
from seqrec.runtime.progress import StageBars


def catalogue(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec catalogue",
        description="Copy the catalogue to a file and back, or say what is in it. It is the one of SEQREC_REDIS_URL "
        "where that is set, else the one in SEQREC_HOME.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    dump = commands.add_parser(
        "dump",
        help="write all items, as they are now, to a file",
        description="Write all items with what was encoded of them, as they are at one moment, to a file. The service "
        "may run. What was published is not in it: after a restore, `seqrec reindex --checkpoint` makes a snapshot "
        "and encodes nothing again.",
    )
    dump.add_argument("file", metavar="FILE", help="JSON Lines, .gz compresses them; -: standard output")
    dump.add_argument("--histories", action="store_true", help="the users' events as well")
    add_common(dump)

    back = commands.add_parser(
        "restore",
        help="put the items of a dump into the catalogue",
        description="Put the items of a dump, and the users' events if it has them, into an empty catalogue, which is "
        "made where there is none. The file is checked to its end before anything is written.",
    )
    back.add_argument("file", metavar="FILE", help="what `dump` wrote, .gz too; -: standard input")
    back.add_argument(
        "--merge",
        action="store_true",
        help="into a catalogue that has items: those of the dump replace those of the same id, others stay. Also goes "
        "on with a restore that was broken off",
    )
    add_common(back)

    info = commands.add_parser("info", help="say where the catalogue is and what is in it")
    add_common(info)

    arguments = parser.parse_args(argv)
    {"dump": _dump, "restore": _restore, "info": _info}[arguments.command](arguments)


def _dump(arguments: argparse.Namespace) -> None:
    location = location_of(arguments.home)
    with (
        closing(open_catalogue(location)) as source,
        closing(open_histories(location)) if arguments.histories else nullcontext() as histories,
        StageBars(unit="") as bars,
        _new_file(arguments.file) as file,
    ):
        contents = write_dump(source, histories, file, bars)
    where = sys.stderr if arguments.file == "-" else sys.stdout  # the dump itself is on standard output
    if arguments.json:
        print(json.dumps(asdict(contents)), file=where)
    else:
        print(f"{contents.items:,} items, {contents.events:,} events of catalogue {contents.catalogue_id}", file=where)


def _restore(arguments: argparse.Namespace) -> None:
    location = location_of(arguments.home)
    name = Path("standard input" if arguments.file == "-" else arguments.file)
    with _seekable(arguments.file) as file:
        contents = check_dump(file, name)  # before a catalogue is made
        file.seek(0)
        with (
            closing(open_catalogue(location, create=True)) as target,
            closing(open_histories(location)) as histories,
            StageBars(unit="") as bars,
        ):
            restored = restore(file, name, contents, target, histories, arguments.merge, bars)
    if arguments.json:
        print(json.dumps(asdict(restored)))
    else:
        print(
            f"{restored.created:,} items created, {restored.updated:,} updated, {restored.unchanged:,} unchanged; "
            f"{restored.events:,} events. `seqrec reindex --checkpoint` makes a snapshot of them"
        )


def _info(arguments: argparse.Namespace) -> None:
    location = location_of(arguments.home)
    with closing(open_catalogue(location)) as shown:
        publications = shown.publications()
        facts = {
            "kept_in": "redis" if is_redis(location) else "sqlite",
            "catalogue_id": shown.catalogue_id,
            "items": shown.count(),
            "seq": shown.head(),
            "served": publications[0].snapshot_id if publications else None,
            "durability_warnings": list(shown.durability_warnings),
        }
    if arguments.json:
        print(json.dumps(facts))
        return
    print(f"catalogue {facts['catalogue_id']}, in {facts['kept_in']}: {facts['items']:,} items at {facts['seq']}")
    print(f"served: {facts['served'] or 'no snapshot is published'}")
    for promise in shown.durability_warnings:
        print(f"weaker than promised: {promise}")


@contextmanager
def _new_file(name: str) -> Iterator[IO[bytes]]:
    """A file that is there when the block has ended well, whole and synced; what had its name stays until then."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            if path.suffix == ".gz":
                with gzip.open(file, "wb", compresslevel=6) as compressed:
                    yield cast(IO[bytes], compressed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        fsync_directory(path.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _seekable(name: str) -> Iterator[IO[bytes]]:
    """A file to read twice; standard input is copied beside first."""
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
