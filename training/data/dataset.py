"""Items and interactions joined into what training and evaluation work on, and what of it trains, validates, tests.

Outside, items and users have ids; inside, `row` is an item's place in `Dataset.items` and `user` a user's place in
`Dataset.user_ids`. A user's sequence is oldest first; events of equal timestamp keep the order of the file. Which
events are held out is said by a rule of `training.data.splits`.
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

from seqrec.data.items import Interactions, Item, OnError, read_interactions, read_items
from seqrec.errors import FileFormatError, InputError
from seqrec.text.item_text import Recipe
from training.data.splits import LEAVE_ONE_OUT, Cuts, SplitConfig, Timestamps, cut

log = logging.getLogger(__name__)

Split = Literal["valid", "test"]
Rows = npt.NDArray[np.int64]
"""Item rows or users, [n]."""


@dataclass(frozen=True, eq=False)
class Cases:
    """What is ranked for: m users, what each had before, and what came next.

    users: [m]; histories: m arrays of item rows, oldest first, never empty; relevant: m arrays of distinct item rows,
    what is to be found, in the order in which it came, never empty.
    """

    users: Rows
    histories: Sequence[Rows]
    relevant: Sequence[Rows]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def targets(self) -> Rows:
        """[m] The first relevant item of each; the only one where single items are held out."""
        return np.array([rows[0] for rows in self.relevant], dtype=np.int64)

    def of(self, numbers: Rows) -> Cases:
        """Some of the cases, by number."""
        return Cases(
            self.users[numbers], [self.histories[case] for case in numbers], [self.relevant[case] for case in numbers]
        )

    def sample(self, limit: int, seed: int) -> Cases:
        """At most `limit` of the cases, the same ones for the same seed, in their order."""
        if limit >= len(self):
            return self
        return self.of(np.sort(np.random.default_rng(seed).permutation(len(self))[:limit]))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items by row, and the sequence of each user: user u has `events[offsets[u]:offsets[u + 1]]`, oldest first.

    `rule` says what is held out. A user of whom nothing is held out, or nothing came before it, is not evaluated; all
    that the rule does not hold out trains.
    """

    items: Sequence[Item]
    user_ids: Sequence[str]
    events: Rows  # [m] item rows
    offsets: Rows  # [users + 1]
    timestamps: Timestamps | None = None  # [m], rising within each user; None: the order is all that is known
    rule: SplitConfig = LEAVE_ONE_OUT

    @property
    def users(self) -> int:
        return len(self.user_ids)

    @cached_property
    def cuts(self) -> Cuts:
        """Raises InputError where the timestamps do not allow what the rule asks."""
        return cut(self.rule, self.offsets, self.timestamps)

    def sequence(self, user: int) -> Rows:
        """Everything the user had, item rows."""
        return self.events[self.offsets[user] : self.offsets[user + 1]]

    def training_part(self, user: int) -> Rows:
        return self.sequence(user)[: self.cuts.train_end[user]]

    def known_part(self, user: int, split: Split) -> Rows:
        """What came before that which `split` holds out: for 'test' what validates too."""
        return self.sequence(user)[: self._held_out(split)[0][user]]

    def known_events(self, split: Split) -> tuple[Rows, Rows]:
        """`known_part` of all users end to end: item rows [m], and offsets [users + 1] of the users in them."""
        parts = [self.known_part(user, split) for user in range(self.users)]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return np.concatenate([np.zeros(0, np.int64), *parts]), offsets

    def evaluated(self, split: Split) -> Rows:
        """Users of whom something is held out, and who had something before it."""
        begin, end = self._held_out(split)
        return np.flatnonzero((begin > 0) & (end > begin))

    def cases(self, split: Split) -> Cases:
        """What to rank for. The history of a test case includes what validates. Raises InputError if there is none."""
        users = self.evaluated(split)
        if not len(users):
            raise InputError(_nobody(self.rule), "interactions")
        begin, end = self._held_out(split)
        if self.rule.split == "time" and self.rule.targets == "first":
            end = begin + 1
        sequences = [self.sequence(user) for user in users]
        return Cases(
            users=users,
            histories=[sequence[: begin[user]] for user, sequence in zip(users, sequences, strict=True)],
            relevant=[_distinct_rows(seq[begin[user] : end[user]]) for user, seq in zip(users, sequences, strict=True)],
        )

    def _held_out(self, split: Split) -> tuple[Rows, Rows]:
        """Where that which `split` holds out begins and ends in each user's sequence."""
        if split not in get_args(Split):
            raise InputError(f"no split {split!r}; there are {', '.join(get_args(Split))}", "split")
        cuts = self.cuts
        return (cuts.valid_end, np.diff(self.offsets)) if split == "test" else (cuts.train_end, cuts.valid_end)

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
        if self.rule.split != "leave-one-out":
            digest.update(f"{self.rule.split}, {self.rule.targets}\n".encode())
            for column in (self.cuts.train_end, self.cuts.valid_end):
                digest.update(column.astype("<i8").tobytes())
        return digest.hexdigest()


def read_dataset(
    items_path: str | Path,
    interactions_path: str | Path,
    recipe: Recipe | Sequence[Recipe] | None = None,
    on_error: OnError = "raise",
    rule: SplitConfig = LEAVE_ONE_OUT,
) -> Dataset:
    """Read both files and join them.

    A broken line, an item id twice, an event of an unknown item raise FileFormatError with file and line; an item
    that says nothing under `recipe` (under one of several) and an event that is there twice raise it with the id.
    With `on_error="skip"` all of those are left out, and counted in the log. Raises InputError for a catalogue of one
    item, and for data in which nothing is left to train on.
    """
    items = read_items(items_path, on_error)
    for one in [recipe] if isinstance(recipe, Recipe) else recipe or []:
        items = _with_text(items, one, Path(items_path), on_error)
    if len(items) < 2:
        raise FileFormatError(
            Path(items_path),
            None,
            "only one item in it: there is nothing to rank it against; bring the whole catalogue",
        )
    row_of = {item.item_id: row for row, item in enumerate(items)}
    interactions = read_interactions(interactions_path, row_of.keys(), on_error)
    dataset = join(items, _distinct(interactions, Path(interactions_path), on_error), rule)
    _log_start(dataset)
    if not dataset.trained_rows.any():
        raise InputError(
            "every event is held out, so every item is cold and nothing trains; take later moments", "data"
        )
    return dataset


def join(items: Sequence[Item], interactions: Interactions, rule: SplitConfig = LEAVE_ONE_OUT) -> Dataset:
    """Sort the events of each user by time (stably). Every event's item is among `items`."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    user_of: dict[str, int] = {}
    users = np.array([user_of.setdefault(user_id, len(user_of)) for user_id in interactions.user_ids], dtype=np.int64)
    rows = np.array([row_of[item_id] for item_id in interactions.item_ids], dtype=np.int64)
    order = np.lexsort((interactions.timestamps, users))  # stable: equal keys keep file order
    back = len(np.unique(users[order[1:]][(np.diff(order) < 0) & (np.diff(users[order]) == 0)]))
    if back:
        log.info("the file has events of %d of %d users out of their order in time: sorted", back, len(user_of))
    offsets = np.zeros(len(user_of) + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=len(user_of)), out=offsets[1:])
    return Dataset(items, list(user_of), rows[order], offsets, interactions.timestamps[order], rule)


def _log_start(dataset: Dataset) -> None:
    test, valid = dataset.evaluated("test"), dataset.evaluated("valid")
    if dataset.rule.split == "leave-one-out":
        short = dataset.users - len(test)
        if short:
            log.warning(
                "%d of %d users have fewer than 3 events: they train, but are not evaluated", short, dataset.users
            )
        return
    if dataset.cuts.moments:
        assert dataset.timestamps is not None
        begins = dataset.timestamps[dataset.offsets[:-1]]
        if len(begins) > 1 and (begins == begins[0]).all():
            log.warning(
                "every user begins at timestamp %s: these look like places in a sequence, not moments, and a split by "
                "time then tests users with long histories only",
                begins[0],
            )
        log.info("validation begins at timestamp %s, test at %s", *dataset.cuts.moments)
    log.info(
        "split %s: %d of %d events train; %d of %d users validate, %d test",
        dataset.rule,
        dataset.cuts.train_end.sum(),
        len(dataset.events),
        len(valid),
        dataset.users,
        len(test),
    )


def _nobody(rule: SplitConfig) -> str:
    if rule.split == "time":
        return (
            "no user has events both before and after the moment at which this part begins, so there is nothing to "
            "rank for; take another moment or share (test_from, valid_from, test_share, valid_share), or leave-one-out"
        )
    what = "three events" if rule.split == "leave-one-out" else "three baskets"
    other = "a split by time needs two" if rule.split == "leave-one-out" else "leave-one-out needs three events"
    return (
        f"no user has {what} or more, so there is nothing to validate or test on; bring longer histories ({other}, "
        "so that one is history and one is held out)"
    )


def _distinct_rows(rows: Rows) -> Rows:
    """Each item once, where it came first."""
    return rows[np.sort(np.unique(rows, return_index=True)[1])]


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
