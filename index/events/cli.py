"""The command `seqrec events`."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from index.arguments import add_common
from index.catalogue.open import location_of, open_histories
from index.events.import_events import import_interactions
from seqrec.data.items import read_interactions
from seqrec.runtime.progress import StageBars


def events(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec events",
        description="Store users' events. `seqrec catalogue dump --histories` exports them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser(
        "import",
        help="store the interactions of a file as events",
        description="Store the interactions of a file as users' events. Importing a file again stores only new rows. "
        "The service may run meanwhile and follows the new events.",
    )
    add.add_argument("file", type=Path, metavar="FILE", help="CSV (.gz too) or Parquet: user_id, item_id, timestamp")
    add.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave out broken lines and count them; default: raise",
    )
    add_common(add)
    _import(parser.parse_args(argv))


def _import(arguments: argparse.Namespace) -> None:
    interactions = read_interactions(arguments.file, on_error=arguments.on_error)
    with closing(open_histories(location_of(arguments.home))) as store, StageBars(unit=" events") as bars:
        imported = import_interactions(store, interactions, lambda done, total: bars("import", done, total))
    if arguments.json:
        print(json.dumps(asdict(imported)))
    else:
        print(f"{imported.new:,} events stored, {imported.known:,} were stored before (timestamps in {imported.unit})")
