"""`seqrec completion`: a script with which a shell completes commands, options and their choices."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from seqrec import cli
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.arguments import Collected, Parser, collecting

SHELLS = ("bash", "zsh", "fish")


def completion(argv: Sequence[str]) -> None:
    """Raises InputError without shtab."""
    parser = Parser(
        prog="seqrec completion",
        description="Print a script with which a shell completes commands, options and files. Write it to a file once; "
        "it contains everything, so completing starts no Python.",
    )
    parser.add_argument("shell", choices=SHELLS, help="whose script")
    arguments = parser.parse_args(argv)
    try:
        import shtab
    except ModuleNotFoundError:
        raise InputError("shtab is not installed: pip install shtab") from None
    print(shtab.complete(program(), arguments.shell))


def program() -> Parser:
    """One parser of all commands. Loads every command, which takes seconds."""
    whole = Parser(prog="seqrec", add_help=False)
    for option in ("-h", "--help", "--version"):
        whole.add_argument(option, action="store_true", help="show help" if "h" in option[:3] else "show the version")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, text) in cli.COMMANDS.items():
        commands.add_parser(name, help=text, add_help=True)
        found = parser_of(name)
        if found is not None:
            commands.choices[name] = found
    _complete_files(whole)
    return whole


def parser_of(command: str, *arguments: str) -> Parser | None:
    """The parser of a command; None where what it needs is not installed."""
    try:
        with collecting():
            cli.run(command, arguments)
    except Collected as found:
        return found.parser
    except (SeqrecError, ImportError):
        return None
    raise AssertionError(f"{command} parses no arguments")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Options that take a path complete files or folders."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below)
            continue
        if action.choices is not None:
            action.choices = list(action.choices)  # shtab takes a dict for subcommands
        if action.metavar in ("FILE", "PATH", "CKPT", "DIR", "DATA"):
            kind = shtab.DIRECTORY if action.metavar in ("DIR", "CKPT", "DATA") else shtab.FILE
            action.complete = kind  # type: ignore[attr-defined]
