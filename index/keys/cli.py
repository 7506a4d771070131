"""`seqrec keys`: create, list and revoke the API keys of the service."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing

from index.arguments import add_common
from index.catalogue.open import location_of, open_catalogue
from index.keys.base import SCOPES, ApiKey, KeyStore, read_key
from index.keys.open import open_keys
from seqrec.runtime.arguments import Parser


def keys(argv: list[str]) -> None:
    parser = Parser(
        "seqrec keys",
        description="Keys for the HTTP API. They are stored where the catalogue is: in SEQREC_HOME or in the Redis of "
        "SEQREC_REDIS_URL. A running service follows changes within 250 ms.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    scopes = "; ".join(f"{scope}: {text}" for scope, text in SCOPES.items())
    create = commands.add_parser("create", help="create a key and print it, once", description=f"Scopes: {scopes}.")
    create.add_argument("name", metavar="NAME", help="who uses it; it is in the log of each request")
    create.add_argument("--scope", nargs="+", action="extend", required=True, choices=list(SCOPES), metavar="SCOPE")
    create.add_argument("--expires", metavar="TIME", help="when it ends, such as 90d or 12h; default: never")
    create.add_argument("--rate", metavar="N/PERIOD", help="most requests, such as 100/s or 1000/minute; default: any")
    create.add_argument("--quota", metavar="N/PERIOD", help="the same over a long time, such as 1000000/day")
    shown = commands.add_parser("list", help="list all keys; secrets are not stored and cannot be shown")
    revoke = commands.add_parser("revoke", help="end a key; services refuse it within 250 ms")
    revoke.add_argument("name", metavar="NAME")
    for command in (create, shown, revoke):
        add_common(command)
    arguments = parser.parse_args(argv)
    {"create": _create, "list": _list, "revoke": _revoke}[arguments.command](arguments)


def _create(arguments: argparse.Namespace) -> None:
    key, secret = read_key(arguments.name, arguments.scope, arguments.expires, arguments.rate, arguments.quota)
    with closing(_open(arguments)) as store:
        store.add(key)
    if arguments.json:
        print(json.dumps({**_record(key), "key": secret}))
        return
    print(secret)
    print(f"key {key.name}: {_summary(key)}. It is not shown again: the store has its SHA-256 only.", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> None:
    with closing(_open(arguments)) as store:
        found = store.all()
    if arguments.json:
        print(json.dumps([_record(key) for key in found]))
        return
    if not found:
        print("no keys; `seqrec keys create NAME --scope recommend` creates one")
    for key in found:
        print(f"{key.name:<20} {key.state(time.time()):<8} {_summary(key)}; created {_date(key.created)}")


def _revoke(arguments: argparse.Namespace) -> None:
    with closing(_open(arguments)) as store:
        key = store.revoke(arguments.name, time.time())
    print(
        json.dumps(_record(key)) if arguments.json else f"key {key.name} is revoked; services refuse it within 250 ms"
    )


def _open(arguments: argparse.Namespace) -> KeyStore:
    """Raises CatalogueError where there is no catalogue: a key in the wrong place protects nothing."""
    location = location_of(arguments.home)
    open_catalogue(location).close()
    return open_keys(location)


def _record(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "state": key.state(time.time()),
        "scopes": sorted(key.scopes),
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "rate": key.rate,
        "quota": key.quota,
    }


def _summary(key: ApiKey) -> str:
    parts = [", ".join(sorted(key.scopes)), "never expires" if key.expires is None else f"expires {_date(key.expires)}"]
    parts += [f"at most {limit}" for limit in (key.rate, key.quota) if limit is not None]
    return "; ".join(parts)


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
