"""The command `seqrec placements`: list, show, set and delete named rules, with or without a running service."""

from __future__ import annotations

import argparse
import json
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from index.arguments import add_common
from index.catalogue.base import Catalogue
from index.catalogue.open import location_of, open_catalogue
from index.snapshot.publication import place
from seqrec.errors import InputError, PlacementNotFound
from seqrec.runtime.arguments import Parser
from service.rules.body import PlacementBody, check_placement
from service.settings import load_settings
from service.validation import field_path, reason

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def placements(argv: list[str]) -> None:
    parser = Parser(
        "seqrec placements",
        description="Named rules for recommendations. A running service applies a change to its next answer.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_ in (
        ("list", "the names and versions of all placements"),
        ("show", "the rules of one, as JSON"),
        ("set", "store the rules of a file"),
        ("delete", "delete one"),
    ):
        command = commands.add_parser(name, help=help_)
        if name != "list":
            command.add_argument("name", metavar="NAME", help="small letters, digits, . _ -; at most 64")
        if name == "set":
            command.add_argument(
                "file", metavar="FILE", help="a JSON object, as PUT /placements/NAME takes it; -: stdin"
            )
        add_common(command)
    arguments = parser.parse_args(argv)
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        _COMMANDS[arguments.command](catalogue, arguments)


def _list(catalogue: Catalogue, arguments: argparse.Namespace) -> None:
    stored = catalogue.placements()
    if arguments.json:
        print(json.dumps([{"name": name, "version": placement.seq} for name, placement in stored.items()]))
        return
    for name, placement in stored.items():
        print(f"{name}  version {placement.seq}")
    if not stored:
        print("no placements")


def _show(catalogue: Catalogue, arguments: argparse.Namespace) -> None:
    stored = catalogue.placements().get(arguments.name)
    if stored is None:
        raise PlacementNotFound(arguments.name)
    print(json.dumps(json.loads(stored.rules), ensure_ascii=False, indent=2))


def _set(catalogue: Catalogue, arguments: argparse.Namespace) -> None:
    if not NAME.fullmatch(arguments.name):
        raise InputError(f"small letters, digits, . _ -; at most 64 characters, not {arguments.name!r}", "NAME")
    try:
        text = sys.stdin.read() if arguments.file == "-" else Path(arguments.file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{arguments.file} cannot be read: {error}", "FILE") from None
    try:
        rules = PlacementBody.model_validate_json(text)
    except ValidationError as error:
        _refuse(arguments.file, error)
    check_placement(rules, load_settings())
    version = place(arguments.home, catalogue, arguments.name, rules.model_dump_json(exclude_unset=True))
    print(
        json.dumps({"name": arguments.name, "version": version}) if arguments.json else f"stored as version {version}"
    )


def _delete(catalogue: Catalogue, arguments: argparse.Namespace) -> None:
    version = catalogue.set_placement(arguments.name, None)
    print(json.dumps({"name": arguments.name, "seq": version}) if arguments.json else "deleted")


def _refuse(file: str, error: ValidationError) -> NoReturn:
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        raise InputError(f"{file}: not JSON: {first['ctx']['error']}") from None
    placed = {**first, "loc": ("body", *first["loc"])}
    field = field_path(("body", *first["loc"]))
    raise InputError(f"{file}: {field + ': ' if field else ''}{reason(placed, PlacementBody)}") from None


_COMMANDS = {"list": _list, "show": _show, "set": _set, "delete": _delete}
