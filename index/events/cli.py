"""The command `seqrec events`: imports events, and sets which types of them count."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from index.arguments import add_common
from index.catalogue.event_types import EventTypes, format_session_gap, parse_session_gap, parse_type
from index.catalogue.open import location_of, open_histories
from index.events.import_events import import_interactions
from seqrec.data.items import read_interactions
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import StageBars


def events(argv: list[str]) -> None:
    parser = Parser(
        "seqrec events",
        description="Import users' events, and set which types of events count. `seqrec users export` copies them out.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser(
        "import",
        help="store the interactions of a file as events",
        description="Store the interactions of a file as users' events. Importing a file again stores only new rows. "
        "The service may run meanwhile and follows the new events.",
    )
    add.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="CSV (.gz too) or Parquet: user_id, item_id, timestamp, and if there are any type and value",
    )
    add.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave out broken lines and count them; default: raise",
    )
    add_common(add)
    types = commands.add_parser(
        "types",
        help="show or set which types of events count, and how much",
        description="Without a TYPE, show the settings. With some, change them for the whole service, which counts "
        "all events again: some 7 s a million. A type without a setting, and an event without a type, counts 1.",
    )
    types.add_argument(
        "types",
        nargs="*",
        metavar="TYPE=SETTING",
        help="a weight, such as view=0.25: it makes history, and counts so much (kept to 1/1024); history: the same "
        "with weight 1; negative: the item is never recommended to this user again; shown: stored, and nothing else",
    )
    types.add_argument(
        "--session-gap",
        metavar="GAP",
        help="an item counts once in a session, which is a user's events without a longer pause, such as 30min; user: "
        "once a user; none: every time",
    )
    add_common(types)
    arguments = parser.parse_args(argv)
    {"import": _import, "types": _types}[arguments.command](arguments)


def _import(arguments: argparse.Namespace) -> None:
    interactions = read_interactions(arguments.file, on_error=arguments.on_error, typed=True)
    with closing(open_histories(location_of(arguments.home))) as store, StageBars(unit=" events") as bars:
        imported = import_interactions(store, interactions, lambda done, total: bars("import", done, total))
    if arguments.json:
        print(json.dumps(asdict(imported)))
    else:
        print(f"{imported.new:,} events stored, {imported.known:,} were stored before (timestamps in {imported.unit})")


def _types(arguments: argparse.Namespace) -> None:
    changed = dict(parse_type(text) for text in arguments.types)
    with closing(open_histories(location_of(arguments.home))) as store:
        before = store.types()
        types = before.with_types(changed)
        if arguments.session_gap is not None:
            types = types.with_gap(parse_session_gap(arguments.session_gap))
        if types != before:
            store.set_types(types)
    if arguments.json:
        by_name = {name: asdict(one) for name, one in types.by_name.items()}
        gap = format_session_gap(types.session_gap)
        print(json.dumps({"types": by_name, "session_gap": gap}, ensure_ascii=False))
    else:
        print(_table(types))


def _table(types: EventTypes) -> str:
    width = max(map(len, [*types.by_name, "any other"]))
    lines = [
        f"{name:<{width}}  {one.kind}{f', weight {one.weight:g}' if one.kind == 'history' else ''}"
        for name, one in types.by_name.items()
    ]
    lines.append(f"{'any other':<{width}}  history, weight 1")
    if types.session_gap is not None:
        lines.append(f"an item counts once in a session (gap: {format_session_gap(types.session_gap)})")
    return "\n".join(lines)
