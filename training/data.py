"""Items and interactions joined into what training and evaluation work on, and the leave-one-out split.

Outside, items and users have ids; inside, `row` is an item's place in `Dataset.items` and `user` a user's place in
`Dataset.user_ids`. A user's sequence is oldest first; events of equal timestamp keep the order of the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from seqrec.errors import FileFormatError, InputError
from seqrec.item_text import Recipe
from seqrec.items import Interactions, Item, OnError, read_interactions, read_items

log = logging.getLogger(__name__)

Split = Literal["valid", "test"]
Rows = npt.NDArray[np.int64]
"""Item rows or users, [n]."""

_HELD_OUT = 2
"""The last item of a user tests, the one before it validates."""


@dataclass(frozen=True, eq=False)
class Cases:
    """What is ranked for: m users, what each had before, and what came next.

    users: [m]; histories: m arrays of item rows, oldest first, never empty; targets: [m] item rows.
    """

    users: Rows
    histories: Sequence[Rows]
    targets: Rows

    def __len__(self) -> int:
        return len(self.users)

    def sample(self, limit: int, seed: int) -> Cases:
        """At most `limit` of the cases, the same ones for the same seed, in their order."""
        if limit >= len(self):
            return self
        kept = np.sort(np.random.default_rng(seed).permutation(len(self))[:limit])
        return Cases(self.users[kept], [self.histories[case] for case in kept], self.targets[kept])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items by row, and the sequence of each user: user u has `events[offsets[u]:offsets[u + 1]]`, oldest first.

    Leave one out: the last item tests, the last but one validates, the rest trains. A user with fewer than three
    events has nothing to rank with: all of those train, and the user is not evaluated.
    """

    items: Sequence[Item]
    user_ids: Sequence[str]
    events: Rows  # [m] item rows
    offsets: Rows  # [users + 1]

    @property
    def users(self) -> int:
        return len(self.user_ids)

    def sequence(self, user: int) -> Rows:
        """Everything the user had, item rows."""
        return self.events[self.offsets[user] : self.offsets[user + 1]]

    def training_part(self, user: int) -> Rows:
        sequence = self.sequence(user)
        return sequence[:-_HELD_OUT] if len(sequence) > _HELD_OUT else sequence

    def known_part(self, user: int, split: Split) -> Rows:
        """What came before the item that `split` holds out: for 'test' the validation item too."""
        sequence = self.sequence(user)
        return sequence[:-1] if split == "test" and len(sequence) > _HELD_OUT else self.training_part(user)

    @cached_property
    def evaluated(self) -> Rows:
        """Users with at least three events."""
        return np.flatnonzero(np.diff(self.offsets) > _HELD_OUT)

    def cases(self, split: Split) -> Cases:
        """What to rank for. The history of a test case includes the validation item. Raises InputError if none."""
        if split not in get_args(Split):
            raise InputError(f"no split {split!r}; there are {', '.join(get_args(Split))}", "split")
        if not len(self.evaluated):
            raise InputError("no user has three events or more, so there is nothing to validate or test on")
        back = 1 if split == "test" else 2
        sequences = [self.sequence(user) for user in self.evaluated]
        return Cases(
            users=self.evaluated,
            histories=[sequence[:-back] for sequence in sequences],
            targets=np.array([sequence[-back] for sequence in sequences], dtype=np.int64),
        )

    @cached_property
    def trained_rows(self) -> npt.NDArray[np.bool_]:
        """[items] Whether training sees the item, as a target or in a history. The others are cold."""
        seen = np.zeros(len(self.items), dtype=np.bool_)
        for user in range(self.users):
            seen[self.training_part(user)] = True
        return seen

    @cached_property
    def digest(self) -> str:
        """sha256 over items and sequences: equal digests make equal training and test data."""
        digest = hashlib.sha256(b"seqrec data 1\n")
        for item in self.items:
            record = [item.item_id, dict(item.attributes), item.available]
            digest.update(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        digest.update(json.dumps(list(self.user_ids), ensure_ascii=False).encode() + b"\n")
        for column in (self.offsets, self.events):
            digest.update(column.astype("<i8").tobytes())
        return digest.hexdigest()


def read_dataset(
    items_path: str | Path, interactions_path: str | Path, recipe: Recipe | None = None, on_error: OnError = "raise"
) -> Dataset:
    """Read both files and join them.

    A broken line, an item id twice, an event of an unknown item raise FileFormatError with file and line; an item
    that says nothing under `recipe` and an event that is there twice raise it with the id. With `on_error="skip"`
    all of those are left out, and counted in the log.
    """
    items = read_items(items_path, on_error)
    if recipe is not None:
        items = _with_text(items, recipe, Path(items_path), on_error)
    row_of = {item.item_id: row for row, item in enumerate(items)}
    interactions = read_interactions(interactions_path, row_of.keys(), on_error)
    dataset = join(items, _distinct(interactions, Path(interactions_path), on_error))
    short = dataset.users - len(dataset.evaluated)
    if short:
        log.warning("%d of %d users have fewer than 3 events: they train, but are not evaluated", short, dataset.users)
    return dataset


def join(items: Sequence[Item], interactions: Interactions) -> Dataset:
    """Sort the events of each user by time (stably). Every event's item is among `items`."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    user_of: dict[str, int] = {}
    users = np.array([user_of.setdefault(user_id, len(user_of)) for user_id in interactions.user_ids], dtype=np.int64)
    rows = np.array([row_of[item_id] for item_id in interactions.item_ids], dtype=np.int64)
    order = np.lexsort((interactions.timestamps, users))  # stable: equal keys keep file order
    offsets = np.zeros(len(user_of) + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=len(user_of)), out=offsets[1:])
    return Dataset(items, list(user_of), rows[order], offsets)


def _with_text(items: list[Item], recipe: Recipe, path: Path, on_error: OnError) -> list[Item]:
    """The items of which at least one attribute that is read is more than blanks."""
    silent = [item for item in items if not any(value.strip() for _, value in recipe.texts(item.attributes))]
    if not silent:
        return items
    names = "any attribute" if recipe.attributes is None else " or ".join(recipe.attributes)
    reason = f"item {silent[0].item_id!r} has no text: nothing in {names}"
    if on_error == "raise":
        raise FileFormatError(path, None, f"{reason}, and {len(silent)} items like it; --on-error skip leaves them out")
    log.warning("skipped %d items of %s without text, such as %r", len(silent), path, silent[0].item_id)
    dropped = {item.item_id for item in silent}
    kept = [item for item in items if item.item_id not in dropped]
    if not kept:
        raise FileFormatError(path, None, f"no item has text in {names}")
    return kept


def _distinct(interactions: Interactions, path: Path, on_error: OnError) -> Interactions:
    """Events without exact repeats: a line written twice would put the test item into its own history."""
    seen: set[tuple[str, str, int | float]] = set()
    kept: list[int] = []
    columns = zip(interactions.user_ids, interactions.item_ids, interactions.timestamps.tolist(), strict=True)
    for number, event in enumerate(columns):
        if event in seen:
            if on_error == "raise":
                user_id, item_id, timestamp = event
                raise FileFormatError(
                    path,
                    None,
                    f"user {user_id!r} has item {item_id!r} twice at timestamp {timestamp} (event {number + 1}); "
                    "--on-error skip keeps the first",
                )
            continue
        seen.add(event)
        kept.append(number)
    if len(kept) == len(interactions):
        return interactions
    log.warning("skipped %d events of %s that are there twice", len(interactions) - len(kept), path)
    return Interactions(
        [interactions.user_ids[number] for number in kept],
        [interactions.item_ids[number] for number in kept],
        interactions.timestamps[kept],
    )
