"""Data sets of a suite: samples of users, data sets with a part of the users in training, and writing them."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from seqrec.data.files import new_directory
from training.data.dataset import Dataset, Rows, Split
from training.data.splits import Cuts, Ends, cut


@dataclass(frozen=True, eq=False)
class PartlyTrained(Dataset):
    """The same items, users and held-out events, but only the users in `trains` [users] are in training.

    All users are evaluated. Baselines and breakdowns count the events of the users in training only.
    """

    trains: npt.NDArray[np.bool_] | None = None  # None: all; a default is needed after the base class's

    @classmethod
    def of(cls, dataset: Dataset, share: float) -> Self:
        """A share of the users with training events, at least one. A smaller share is a subset of a larger one."""
        users = np.flatnonzero(dataset.cuts.train_end > 0)
        chosen = np.random.default_rng(0).permutation(users)[: max(1, round(share * len(users)))]
        trains = np.zeros(dataset.users, dtype=np.bool_)
        trains[chosen] = True
        return cls(**{entry.name: getattr(dataset, entry.name) for entry in fields(Dataset)}, trains=trains)

    @cached_property
    def whole(self) -> Cuts:
        return cut(self.rule, self.offsets, self.timestamps)

    @cached_property
    def cuts(self) -> Cuts:
        trains = True if self.trains is None else self.trains
        return Cuts(np.where(trains, self.whole.train_end, 0), self.whole.valid_end, self.whole.moments)

    def known_part(self, user: int, split: Split) -> Rows:
        known = super().known_part(user, split)
        return known if self.trains is None or self.trains[user] else known[:0]

    def _held_out(self, split: Split) -> tuple[Ends, Ends]:
        if split == "valid":
            return self.whole.train_end, self.whole.valid_end
        return super()._held_out(split)

    @cached_property
    def digest(self) -> str:
        trains = b"" if self.trains is None else np.packbits(self.trains).tobytes()
        return hashlib.sha256(super().digest.encode() + trains).hexdigest()


def sample_users(dataset: Dataset, users: int, whole_catalogue: bool = True) -> Dataset:
    """At most `users` of the users with a test case, the same ones every time, in their order.

    Without `whole_catalogue`, items that none of them interacted with are left out.
    """
    evaluated = dataset.evaluated("test")
    if dataset.users <= users:
        return dataset
    chosen = np.sort(np.random.default_rng(0).permutation(evaluated)[:users])
    places = np.concatenate([np.arange(dataset.offsets[user], dataset.offsets[user + 1]) for user in chosen])
    events = dataset.events[places]
    items = dataset.items
    if not whole_catalogue:
        rows, events = np.unique(events, return_inverse=True)
        items = [dataset.items[int(row)] for row in rows]
    return Dataset(
        items,
        [dataset.user_ids[int(user)] for user in chosen],
        events,
        np.concatenate([[0], np.cumsum(np.diff(dataset.offsets)[chosen])]),
        None if dataset.timestamps is None else dataset.timestamps[places],
        dataset.rule,
    )


def write_folder(dataset: Dataset, folder: Path) -> None:
    """Writes items.jsonl and interactions.csv for `evaluation_set.read_folder`, replacing the folder."""
    with new_directory(folder, replace=True) as directory:
        with (directory / "items.jsonl").open("w", encoding="utf-8") as file:
            for item in dataset.items:
                record = {"item_id": item.item_id, "attributes": dict(item.attributes), "available": item.available}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        with (directory / "interactions.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["user_id", "item_id", "timestamp"])
            for user, user_id in enumerate(dataset.user_ids):
                begin, end = int(dataset.offsets[user]), int(dataset.offsets[user + 1])
                for place in range(begin, end):
                    time = place - begin if dataset.timestamps is None else dataset.timestamps[place].item()
                    table.writerow([user_id, dataset.items[int(dataset.events[place])].item_id, time])
