"""`seqrec users`: exports or deletes what is stored of users."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing

from index.arguments import add_common
from index.catalogue.histories import Event, HistoryStore, event_record
from index.catalogue.open import location_of, open_histories
from seqrec.data.items import check_user_id
from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser

_PAGE = 1000


def users(argv: list[str]) -> None:
    parser = Parser("seqrec users", description="What is stored of users. The service may run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    export = commands.add_parser(
        "export",
        help="print the events of users",
        description="Print the events of users as JSON Lines, one event a line, each user's oldest first.",
    )
    export.add_argument("user", nargs="*", metavar="USER", help="user ids")
    export.add_argument("--all", action="store_true", help="of all users")
    delete = commands.add_parser(
        "delete",
        help="remove everything about users",
        description="Remove everything that is stored of users. It no longer counts in any answer, and its bytes are "
        "overwritten. Backups and dumps that were made before still hold it.",
    )
    delete.add_argument("user", nargs="+", metavar="USER", help="user ids")
    for command in (export, delete):
        add_common(command)
    arguments = parser.parse_args(argv)
    {"export": _export, "delete": _delete}[arguments.command](arguments)


def _export(arguments: argparse.Namespace) -> None:
    if bool(arguments.user) == arguments.all:
        raise InputError("name users, or --all for all of them", "USER")
    user_ids = [check_user_id(user, "USER") for user in arguments.user]
    with closing(open_histories(location_of(arguments.home))) as store:
        found = store.scan() if arguments.all else (event for user in user_ids for event in _events(store, user))
        for event in found:
            print(json.dumps(event_record(event), ensure_ascii=False))


def _events(store: HistoryStore, user_id: str) -> Iterator[Event]:
    """Oldest first."""
    found: list[Event] = []
    before = None
    while page := store.stored(user_id, _PAGE, before):
        found += [event for _, event in page]
        before = (page[-1].event.timestamp, page[-1].number)
    return reversed(found)


def _delete(arguments: argparse.Namespace) -> None:
    user_ids = [check_user_id(user, "USER") for user in arguments.user]
    with closing(open_histories(location_of(arguments.home))) as store:
        deleted = {user_id: store.delete(user_id) for user_id in user_ids}
    if arguments.json:
        print(json.dumps(deleted, ensure_ascii=False))
        return
    for user_id, events in deleted.items():
        print(f"{user_id}: {events:,} events deleted" if events else f"{user_id}: nothing was stored")
