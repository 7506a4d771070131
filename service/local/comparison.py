"""What changes between two snapshots: what each recommends to the same users, whose histories are those of now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from index.catalogue.histories import Event, HistoryStore
from index.catalogue.open import location_of, open_catalogue, open_histories
from index.snapshot.snapshot import SnapshotStore
from seqrec.errors import InputError, SnapshotNotFound, UserNotFound
from service.engine.browse import some_users
from service.local.recommender import Recommender

RECENT = 5
"""Newest items of a history that are shown."""


@dataclass(frozen=True)
class ChangedUser:
    """`history`: the newest items, newest last. `before`, `after`: item ids, best first."""

    user_id: str
    history: Sequence[str]
    before: Sequence[str]
    after: Sequence[str]

    @property
    def both(self) -> int:
        """How many items are in both answers."""
        return len(set(self.before) & set(self.after))


@dataclass(frozen=True)
class Changes:
    """From one snapshot to another. `titles`: of the items, where they have one."""

    before: str
    after: str
    users: Sequence[ChangedUser]
    titles: dict[str, str]


def compare(home: Path, before: str | None, after: str | None, users: int | Sequence[str], k: int) -> Changes:
    """What two snapshots recommend to `users`: ids, or how many, drawn at random.

    Without ids, the served snapshot is compared with the one that was published before it. One snapshot is open at a
    time. Without stored events there are no users.

    Raises SnapshotNotFound, UserNotFound, InputError, CatalogueError, and NotReady where a snapshot cannot be served.
    """
    location = location_of(home)
    with closing(open_catalogue(location)) as catalogue, closing(open_histories(location)) as histories:
        published = [change.snapshot_id for change in catalogue.publications() if change.snapshot_id is not None]
        found = list(dict.fromkeys(published))[:2]
        if (before is None or after is None) and len(found) < 2:
            raise InputError("fewer than two snapshots were published; `seqrec index list` shows what there is")
        pair = (before or found[1], after or found[0])
        asked = some_users(histories, "", users, RECENT) if isinstance(users, int) else _named(histories, users)
    for snapshot_id in pair:
        if snapshot_id not in SnapshotStore(home).list():
            raise SnapshotNotFound(snapshot_id)
    answers: list[list[list[str]]] = []
    titles: dict[str, str] = {}
    for snapshot_id in pair if asked else ():
        with Recommender(home, snapshot=snapshot_id) as recommender:
            got = [recommender.recommend(user_id=user_id, k=k) for user_id, _ in asked]
        answers.append([answer.item_ids for answer in got])
        titles |= {item["item_id"]: str(item["attributes"].get("title", "")) for answer in got for item in answer}
    changed = [
        ChangedUser(user_id, [event.item_id for event in events], old, new)
        for (user_id, events), old, new in zip(asked, *(answers or ([], [])), strict=True)
    ]
    return Changes(*pair, changed, titles)


def _named(histories: HistoryStore, users: Sequence[str]) -> list[tuple[str, list[Event]]]:
    found = [(user_id, histories.recent(user_id, RECENT)) for user_id in dict.fromkeys(users)]
    for user_id, events in found:
        if not events:
            raise UserNotFound(user_id)
    return found
