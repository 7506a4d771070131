"""The argument parser of all commands: errors in one line, with what was probably meant, and examples in each help."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from seqrec.errors import did_you_mean
from seqrec.runtime.examples import EXAMPLES

_collecting: ContextVar[bool] = ContextVar("collecting", default=False)
_CHOICE = re.compile(r"invalid choice: (?P<given>'.*?'|\S+) \(choose from (?P<choices>.*)\)$")


class Collected(Exception):
    """Raised instead of parsing while parsers are collected; `parser` is the one of the command."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


@contextmanager
def collecting() -> Iterator[None]:
    """Inside the block a command raises `Collected` with its parser, and does nothing."""
    token = _collecting.set(True)
    try:
        yield
    finally:
        _collecting.reset(token)


class Parser(argparse.ArgumentParser):
    """A command's options. Parsers of its subcommands are of this class too."""

    _given: Sequence[str] = ()

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        if _collecting.get():
            raise Collected(self)
        values: argparse.Namespace
        values, rest = self.parse_known_args(args, namespace)
        if rest:
            _deepest(self, self._given).refuse(rest[0])
        return values

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exits with code 2 and one line: the mistake, the likely intention, and where the options are listed."""
        if message.startswith("the following arguments are required"):
            # A misspelled option is the reason that another one is missing.
            deepest = _deepest(self, self._given)
            for given in self._given:
                if given.startswith("--") and given != "--" and not deepest.knows(given):
                    deepest.refuse(given)
        if found := _CHOICE.search(message):
            choices = [choice.strip("'") for choice in found["choices"].split(", ")]
            message += did_you_mean(found["given"].strip("'"), choices)
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` shows its options\n")

    def format_help(self) -> str:
        examples = EXAMPLES.get(self.prog, ())
        shown = "".join(f"  {line}\n" for line in examples)
        return super().format_help() + (f"\nexample{'s' if len(examples) > 1 else ''}:\n{shown}" if shown else "")

    def knows(self, option: str) -> bool:
        name = option.partition("=")[0]
        return any(known.startswith(name) for known in self._option_string_actions)

    def refuse(self, argument: str) -> NoReturn:
        what = "option" if argument.startswith("-") else "argument"
        name = argument.partition("=")[0]
        options = [option for option in self._option_string_actions if option.startswith("--")]
        hint = did_you_mean(name, options) if what == "option" else ""
        self.exit(2, f"{self.prog}: no {what} {name!r}{hint}; `{self.prog} --help` shows its options\n")


def subcommands(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The parsers of its subcommands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _deepest(parser: Parser, given: Sequence[str]) -> Parser:
    """The parser of the subcommand that the arguments name."""
    for position, word in enumerate(given):
        below = subcommands(parser)
        if word in below:
            return _deepest(below[word], given[position + 1 :])
    return parser
