"""The command `seqrec compare`: what changes between two snapshots, with or without a running service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from index.arguments import add_common
from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser

if TYPE_CHECKING:
    from service.local.comparison import ChangedUser, Changes

_MOST = 100
"""Users, and items of each."""
_TITLE = 44


def compare_command(argv: list[str]) -> None:
    parser = Parser(
        "seqrec compare",
        description="What two snapshots recommend to the same users, and what moved. Without ids: the served snapshot "
        "and the one that was published before it. Nothing is published or changed.",
    )
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT", help="before and after, of `seqrec index list`")
    parser.add_argument("--user", nargs="+", action="extend", metavar="ID", help="for these users")
    parser.add_argument("--users", type=int, default=10, metavar="N", help="for N users, drawn at random; default: 10")
    parser.add_argument("--k", type=int, default=10, metavar="N", help="items for each; default: 10")
    add_common(parser)
    arguments = parser.parse_args(argv)
    if len(arguments.snapshots) not in (0, 2):
        raise InputError(f"two snapshots, or none, not {len(arguments.snapshots)}", "SNAPSHOT")
    for name in ("users", "k"):
        if not 1 <= getattr(arguments, name) <= _MOST:
            raise InputError(f"1 to {_MOST}, not {getattr(arguments, name)}", f"--{name}")
    from service.local.comparison import compare  # it loads torch, which a help does without

    before, after = arguments.snapshots or (None, None)
    made = compare(arguments.home, before, after, arguments.user or arguments.users, arguments.k)
    print(json.dumps(asdict(made), ensure_ascii=False) if arguments.json else text(made))


def text(changes: Changes) -> str:
    """For people."""
    lines = [f"before: {changes.before}", f"after:  {changes.after}"]
    for user in changes.users:
        lines += ["", f"user {user.user_id}: {user.both} of {len(user.after)} in both", *_moves(user, changes.titles)]
    if not changes.users:
        return "\n".join([*lines, "no events are stored, so there is nobody to compare for"])
    both = sum(user.both for user in changes.users)
    return "\n".join([*lines, "", f"in both: {both} of {sum(len(user.after) for user in changes.users)}"])


def _moves(user: ChangedUser, titles: Mapping[str, str]) -> list[str]:
    """The answer after, each item with the places it moved; then what is gone."""
    before = {item_id: place for place, item_id in enumerate(user.before)}
    lines = []
    for place, item_id in enumerate(user.after):
        by = before[item_id] - place if item_id in before else None
        move = "new" if by is None else "" if by == 0 else f"{by:+d}"
        lines.append(_line(str(place + 1), move, item_id, titles))
    return lines + [_line("", "gone", item_id, titles) for item_id in user.before if item_id not in user.after]


def _line(place: str, move: str, item_id: str, titles: Mapping[str, str]) -> str:
    return f"{place:>4}  {move:<4}  {item_id:<12}  {titles.get(item_id, '')[:_TITLE]}".rstrip()
