"""Items and interactions joined into the data set of training and evaluation, with its split.

Files have ids for items and users; in memory, `row` is the position of an item in `Dataset.items` and `user` the
position of a user in `Dataset.user_ids`. A user's sequence is oldest first; events of equal timestamp keep the order of
the file. A rule of `training.data.splits` decides which events are held out.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from seqrec.data.items import (
    Interactions,
    Item,
    OnError,
    attribute_text,
    has_visible_text,
    read_interactions,
    read_items,
)
from seqrec.data.timestamps import unix_seconds
from seqrec.errors import FileFormatError, InputError
from seqrec.text.item_text import Recipe
from training.data.splits import LEAVE_ONE_OUT, Cuts, SplitConfig, Timestamps, cut

log = logging.getLogger(__name__)

Split = Literal["valid", "test"]
Rows = npt.NDArray[np.int64]
"""Item rows or users, [n]."""


@dataclass(frozen=True, eq=False)
class Cases:
    """Test or validation cases: m users, their histories and the items to be found.

    users: [m]; histories: m arrays of item rows, oldest first, never empty; relevant: m arrays of distinct item rows in
    order of time, never empty.
    """

    users: Rows
    histories: Sequence[Rows]
    relevant: Sequence[Rows]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def targets(self) -> Rows:
        """[m] The first relevant item of each case; the only one if single items are held out."""
        return np.array([rows[0] for rows in self.relevant], dtype=np.int64)

    def of(self, numbers: Rows) -> Cases:
        """The cases with these numbers."""
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

    `rule` decides what is held out; everything else is for training. Users without a held-out item, or without an event
    before it, are not evaluated.
    """

    items: Sequence[Item]
    user_ids: Sequence[str]
    events: Rows  # [m] item rows
    offsets: Rows  # [users + 1]
    timestamps: Timestamps | None = None  # [m], ascending within each user; None: only the order is known
    rule: SplitConfig = LEAVE_ONE_OUT
    weights: npt.NDArray[np.float64] | None = None  # [m], how often each event counts; None: once

    @property
    def users(self) -> int:
        return len(self.user_ids)

    @cached_property
    def cuts(self) -> Cuts:
        """Raises InputError if the timestamps do not fit the rule."""
        return cut(self.rule, self.offsets, self.timestamps)

    def sequence(self, user: int) -> Rows:
        """All events of the user, as item rows."""
        return self.events[self.offsets[user] : self.offsets[user + 1]]

    def training_part(self, user: int) -> Rows:
        return self.sequence(user)[: self.cuts.train_end[user]]

    def known_part(self, user: int, split: Split) -> Rows:
        """The events before those that `split` holds out; for 'test' this includes the validation events."""
        return self.sequence(user)[: self._held_out(split)[0][user]]

    def known_events(self, split: Split) -> tuple[Rows, Rows]:
        """`known_part` of all users, concatenated: item rows [m] and the users' offsets [users + 1]."""
        parts = [self.known_part(user, split) for user in range(self.users)]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        return np.concatenate([np.zeros(0, np.int64), *parts]), offsets

    def known_times(self, split: Split) -> npt.NDArray[np.float64] | None:
        """[m] When `known_events` were, in Unix seconds like the events of a service; None: only the order is known."""
        if self.timestamps is None:
            return None
        _, seconds = unix_seconds(self.timestamps)
        ends = self.offsets[:-1] + self._held_out(split)[0]
        parts = [seconds[begin:end] for begin, end in zip(self.offsets[:-1], ends, strict=True)]
        return np.concatenate([np.zeros(0), *parts])

    def known_weights(self, split: Split) -> npt.NDArray[np.float64] | None:
        """[m] How often each of `known_events` counts; None: once."""
        if self.weights is None:
            return None
        ends = self._held_out(split)[0]
        parts = [self.weights[begin : begin + end] for begin, end in zip(self.offsets[:-1], ends, strict=True)]
        return np.concatenate([np.zeros(0), *parts])

    @property
    def repeated_share(self) -> float:
        """The share of training events whose item the user had before."""
        parts = [self.training_part(user) for user in range(self.users)]
        events = sum(map(len, parts))
        return 1 - sum(len(np.unique(part)) for part in parts) / events if events else 0.0

    def evaluated(self, split: Split) -> Rows:
        """The users with a held-out item and at least one event before it."""
        begin, end = self._held_out(split)
        return np.flatnonzero((begin > 0) & (end > begin))

    def cases(self, split: Split) -> Cases:
        """The cases of `split`; histories of test cases include validation events. Raises InputError without cases."""
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

    def targets_at_equal_times(self) -> tuple[int, int]:
        """-> evaluated users, and for how many of them events of equal timestamp compete to be the held-out item.

        A leave-one-out item competes with the event before it; the first item of a period with the one after it.
        """
        users = np.union1d(self.evaluated("valid"), self.evaluated("test"))
        if self.timestamps is None or self.rule.split == "last-basket" or self.rule.targets == "all":
            return len(users), 0
        tied = np.zeros(self.users, dtype=np.bool_)
        step = 1 if self.rule.split == "time" else -1
        for split in get_args(Split):
            chosen = self.evaluated(split)
            begin, end = self._held_out(split)
            if self.rule.split == "time":
                chosen = chosen[end[chosen] - begin[chosen] > 1]
            at = self.offsets[chosen] + begin[chosen]
            tied[chosen] |= self.timestamps[at] == self.timestamps[at + step]
        return len(users), int(tied.sum())

    def _held_out(self, split: Split) -> tuple[Rows, Rows]:
        """Begin and end of the held-out events in each user's sequence."""
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

    @property
    def trained_items(self) -> list[Item]:
        return [self.items[int(row)] for row in np.flatnonzero(self.trained_rows)]

    @property
    def trained_users(self) -> list[str]:
        """The ids of users with at least two training events."""
        return [self.user_ids[int(user)] for user in np.flatnonzero(self.cuts.train_end > 1)]

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
        if self.weights is not None:
            digest.update(self.weights.astype("<f8").tobytes())
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
    weights: Mapping[str, float] | None = None,
) -> Dataset:
    """Reads and joins both files. `weights`: how often events of a type (the column `type`) count; others count once.

    A broken line, a duplicate item id and an event of an unknown item raise FileFormatError with file and line; an item
    without text under `recipe` (or one of several recipes) and a duplicate event raise it with the id. With
    `on_error="skip"` all of these are left out and counted in the log. Raises InputError for a catalogue of one item
    and for data without training events.
    """
    items = read_items(items_path, on_error)
    for one in [recipe] if isinstance(recipe, Recipe) else recipe or []:
        items = _with_text(items, one, Path(items_path), on_error)
    if len(items) < 2:
        raise FileFormatError(
            Path(items_path),
            None,
            "it has only one item, and nothing to rank it against; use the whole catalogue",
        )
    row_of = {item.item_id: row for row, item in enumerate(items)}
    interactions = read_interactions(interactions_path, row_of.keys(), on_error, typed=bool(weights))
    if weights and interactions.types is not None:
        interactions = replace(interactions, weights=np.array([weights.get(one, 1.0) for one in interactions.types]))
    dataset = join(items, _distinct(interactions, Path(interactions_path), on_error), rule)
    _log_summary(dataset)
    if not dataset.trained_rows.any():
        raise InputError("every event is held out, so nothing is left to train on; choose later moments", "data")
    return dataset


def join(items: Sequence[Item], interactions: Interactions, rule: SplitConfig = LEAVE_ONE_OUT) -> Dataset:
    """Sorts the events of each user by time (stable). `items` must contain every event's item."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    user_of: dict[str, int] = {}
    length = len(interactions)
    users = np.fromiter((user_of.setdefault(one, len(user_of)) for one in interactions.user_ids), np.int64, length)
    rows = np.fromiter((row_of[item_id] for item_id in interactions.item_ids), np.int64, length)
    order = np.lexsort((interactions.timestamps, users))  # stable: equal keys keep file order
    back = len(np.unique(users[order[1:]][(np.diff(order) < 0) & (np.diff(users[order]) == 0)]))
    if back:
        log.info("events of %d of %d users were not in order of time and have been sorted", back, len(user_of))
    offsets = np.zeros(len(user_of) + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=len(user_of)), out=offsets[1:])
    weights = None if interactions.weights is None else interactions.weights[order]
    dataset = Dataset(items, list(user_of), rows[order], offsets, interactions.timestamps[order], rule, weights)
    return _without_withheld(dataset) if rule.withheld else dataset


def withheld_items(items: Sequence[Item], share: float) -> npt.NDArray[np.bool_]:
    """[n] About `share` of the items, by a hash of the id: the same ones in every file and for every order."""
    digests = b"".join(hashlib.blake2b(item.item_id.encode(), digest_size=8).digest() for item in items)
    chosen: npt.NDArray[np.bool_] = np.frombuffer(digests, dtype="<u8") < share * 2.0**64
    return chosen


def _without_withheld(dataset: Dataset) -> Dataset:
    """Without the events of withheld items, but for the last event of a user who has two others left: the test item."""
    cold = withheld_items(dataset.items, dataset.rule.withheld)[dataset.events]
    users = np.repeat(np.arange(dataset.users), np.diff(dataset.offsets))
    last = np.zeros(len(users), dtype=np.bool_)
    last[dataset.offsets[1:] - 1] = True
    others = np.bincount(users[~cold & ~last], minlength=dataset.users)
    kept = ~cold | (last & (others[users] >= 2))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users[kept], minlength=dataset.users))]).astype(np.int64)
    assert dataset.timestamps is not None
    weights = None if dataset.weights is None else dataset.weights[kept]
    timestamps = dataset.timestamps[kept]
    return replace(dataset, events=dataset.events[kept], offsets=offsets, timestamps=timestamps, weights=weights)


def _log_summary(dataset: Dataset) -> None:
    test, valid = dataset.evaluated("test"), dataset.evaluated("valid")
    _warn_of_equal_times(dataset)
    if dataset.rule.split == "leave-one-out":
        short = dataset.users - len(test)
        if short:
            log.warning(
                "%d of %d users have fewer than 3 events: they are trained on, but not evaluated", short, dataset.users
            )
        return
    if dataset.cuts.moments:
        assert dataset.timestamps is not None
        begins = dataset.timestamps[dataset.offsets[:-1]]
        if len(begins) > 1 and (begins == begins[0]).all():
            log.warning(
                "the first event of every user has timestamp %s: these look like positions in a sequence, not moments, "
                "and a split by time then tests only users with long histories",
                begins[0],
            )
        log.info("validation begins at timestamp %s, test at %s", *dataset.cuts.moments)
    log.info(
        "split %s: %d of %d events for training; %d of %d users in validation, %d in test",
        dataset.rule,
        dataset.cuts.train_end.sum(),
        len(dataset.events),
        len(valid),
        dataset.users,
        len(test),
    )


def _warn_of_equal_times(dataset: Dataset) -> None:
    """Warns if the order of the file, not time, decides which item is held out."""
    users, tied = dataset.targets_at_equal_times()
    if not tied:
        return
    if dataset.rule.split == "time":
        what = "several items have the timestamp of the first held-out one"
        way_out = "data.targets = all (evaluate: --targets all) looks for all items of the period"
    else:
        what = "a held-out item has the same timestamp as the item before it"
        way_out = "data.split = last-basket (evaluate: --split-by last-basket) holds out all items of a timestamp"
    log.warning(
        "for %d of %d evaluated users (%.0f %%) %s, so the order of the file decides what is held out, and results "
        "depend on how the file is sorted; %s",
        tied,
        users,
        100 * tied / users,
        what,
        way_out,
    )


def _nobody(rule: SplitConfig) -> str:
    if rule.split == "time":
        return (
            "no user has events both before and after the moment at which this part begins, so there are no cases to "
            "rank; choose another moment or share (test_from, valid_from, test_share, valid_share), or leave-one-out"
        )
    what = "three events" if rule.split == "leave-one-out" else "three baskets"
    other = "a split by time needs two" if rule.split == "leave-one-out" else "leave-one-out needs three events"
    return (
        f"no user has {what} or more, so there is nothing to validate or test on; use longer histories ({other}, "
        "so that one is history and one is held out)"
    )


def _distinct_rows(rows: Rows) -> Rows:
    """Each item once, at its first position."""
    return rows[np.sort(np.unique(rows, return_index=True)[1])]


def _with_text(items: list[Item], recipe: Recipe, path: Path, on_error: OnError) -> list[Item]:
    """The items with text in at least one of the attributes that are read."""
    silent = [item for item in items if not any(has_visible_text(value) for _, value in recipe.texts(item.attributes))]
    if not silent:
        return items
    names = "any attribute" if recipe.attributes is None else " or ".join(recipe.attributes)
    if len(silent) == len(items):
        raise FileFormatError(path, None, f"no item has text in {names}; {_existing_attributes(items)}")
    if on_error == "raise":
        others = f", nor have {len(silent) - 1} others of {len(items)}" if len(silent) > 1 else ""
        raise FileFormatError(
            path,
            None,
            f"item {silent[0].item_id!r} has no text in {names}{others}; --on-error skip leaves them out",
        )
    log.warning("skipped %d items of %s without text, such as %r", len(silent), path, silent[0].item_id)
    dropped = {item.item_id for item in silent}
    return [item for item in items if item.item_id not in dropped]


def _existing_attributes(items: Sequence[Item]) -> str:
    """The attributes that have text, most frequent first, and how to choose them."""
    counts = Counter(
        name for item in items for name, value in item.attributes.items() if has_visible_text(attribute_text(value))
    )
    if not counts:
        return "the items have no attributes with text at all"
    found = ", ".join(f"{name} ({count} items)" for name, count in counts.most_common(10))
    example = json.dumps(counts.most_common(1)[0][0])
    return f"attributes with text: {found}. In training choose with --set 'text.attributes=[{example}]'"


def _distinct(interactions: Interactions, path: Path, on_error: OnError) -> Interactions:
    """Events without exact duplicates: a duplicated line would put the test item into its own history."""
    users, items = _numbered(interactions.user_ids), _numbered(interactions.item_ids)
    order = np.lexsort((interactions.timestamps, items, users))  # stable: the first of equal events stays
    columns = (users[order], items[order], interactions.timestamps[order])
    again = np.zeros(len(order), dtype=np.bool_)
    again[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    if not again.any():
        return interactions
    repeated = np.sort(order[again])
    if on_error == "raise":
        number = int(repeated[0])
        raise FileFormatError(
            path,
            None,
            f"user {interactions.user_ids[number]!r} has item {interactions.item_ids[number]!r} twice at timestamp "
            f"{interactions.timestamps[number].item()} (event {number + 1}); --on-error skip keeps the first",
        )
    log.warning("skipped %d duplicate events of %s", len(repeated), path)
    kept = np.sort(order[~again]).tolist()
    return Interactions(
        [interactions.user_ids[number] for number in kept],
        [interactions.item_ids[number] for number in kept],
        interactions.timestamps[kept],
        weights=None if interactions.weights is None else interactions.weights[kept],
    )


def _numbered(ids: Sequence[str]) -> Rows:
    """[n] A number for each distinct id."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(one, len(numbers)) for one in ids), np.int64, len(ids))
