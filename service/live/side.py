"""Snapshots that are served next to the published one, since a placement names them: for variants, and as shadows.

Each has a follower of its own, so it keeps up with the catalogue and the events as the published one does, and encodes
what is posted with its own model. A service without such placements has none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from index.catalogue.base import Placement
from index.snapshot.named import named_by
from seqrec.runtime.malloc import trim_heap
from service.live.follower import Follower
from service.live.state import LiveState

log = logging.getLogger(__name__)

Start = Callable[[str, LiveState | None], Follower]
"""Snapshot id, and its state if there is one -> its follower, which runs."""


@dataclass(frozen=True)
class SideStatus:
    """Of one snapshot: which placements name it, why it does not answer (None: it does), and memory in bytes.

    `shared`: of files that processes share, mapped; `own`: of the model, of what is kept of each item, and of changes
    since the snapshot.
    """

    placements: list[str]
    trouble: str | None
    shared: int = 0
    own: int = 0


_ITEM_BYTES = 140
"""Of an item, apart from mapped files: its id, offsets and counts, as measured with 500,000 items (136)."""


class SideSnapshots:
    """What placements name. `follow` and `adopt` belong to the follower's thread, all else may be called from any."""

    def __init__(self, start: Start, grace: float) -> None:
        """`grace`: seconds that a request may go on with what no placement names any more."""
        self._start = start
        self._grace = grace
        self._followers: Mapping[str, Follower] = {}  # replaced, never changed
        self._named: Mapping[str, list[str]] = {}
        self._unnamed: dict[str, float] = {}  # since when
        self._read: Mapping[str, Placement] | None = None
        self._served: LiveState | None = None

    def follow(self, state: LiveState) -> None:
        """Load what the placements of the served `state` name, and let go of the rest. To be called regularly."""
        placements = state.view.placements
        if placements is self._read and state is self._served and not self._unnamed:
            return
        self._read, self._served = placements, state
        self._named = named_by(placements)
        wanted = self._named.keys() - {state.snapshot.id}
        for snapshot_id in wanted - self._followers.keys():
            log.info("loading snapshot %s, which a placement names", snapshot_id)
            self._add(snapshot_id, None)
        now = time.monotonic()
        unwanted = self._followers.keys() - wanted
        self._unnamed = {snapshot_id: self._unnamed.get(snapshot_id, now) for snapshot_id in unwanted}
        for snapshot_id in [one for one, since in self._unnamed.items() if now - since >= self._grace]:
            log.info("no longer serving snapshot %s next to the published one", snapshot_id)
            del self._unnamed[snapshot_id]
            follower = self._followers[snapshot_id]
            self._followers = {name: one for name, one in self._followers.items() if name != snapshot_id}
            threading.Thread(target=_let_go, args=(follower,), name="close-side", daemon=True).start()

    def adopt(self, state: LiveState) -> None:
        """Go on with what was published until now, if a placement names it: its variant has no gap."""
        self._named = named_by(state.view.placements)
        if state.snapshot.id in self._named and state.snapshot.id not in self._followers:
            self._add(state.snapshot.id, state)

    def get(self, snapshot_id: str) -> Follower | None:
        return self._followers.get(snapshot_id)

    def statuses(self) -> dict[str, SideStatus]:
        """Of each, by id."""
        return {snapshot_id: self._status(snapshot_id, one) for snapshot_id, one in self._followers.items()}

    @property
    def degraded(self) -> list[str]:
        """What is not as placements want it, while the published snapshot answers in its place."""
        return [
            f"snapshot {snapshot_id}, which the placement {placements[0]} names, does not answer: {trouble}"
            for snapshot_id, follower in self._followers.items()
            if (trouble := why_not(follower)) and (placements := self._named.get(snapshot_id))
        ]

    def close(self) -> None:
        followers, self._followers = self._followers, {}
        for follower in followers.values():
            follower.close()

    def _add(self, snapshot_id: str, state: LiveState | None) -> None:
        self._followers = {**self._followers, snapshot_id: self._start(snapshot_id, state)}

    def _status(self, snapshot_id: str, follower: Follower) -> SideStatus:
        placements, state = self._named.get(snapshot_id, []), follower.state
        if state is None:
            return SideStatus(placements, why_not(follower))
        served = self._served
        model = 0 if served is not None and served.towers is state.towers else state.towers.encoder.bytes
        files = sum(record.size for record in state.snapshot.manifest.files.values())
        items = _ITEM_BYTES * len(state.snapshot.item_ids)
        return SideStatus(placements, why_not(follower), files, model + items + state.changed_bytes)


def _let_go(follower: Follower) -> None:
    follower.close()
    trim_heap()


def why_not(follower: Follower) -> str | None:
    """Why a snapshot does not answer; None: it does."""
    return next(iter(follower.degraded), None) if follower.state is not None else follower.trouble
