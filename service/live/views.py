"""Which view answers a request: of the published snapshot or of one that a placement names, with all that it must have.

Nothing here waits longer than a request may: where a change does not come in time, the newest view answers.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from index.catalogue.base import Catalogue
from seqrec.errors import CatalogueError, CatalogueReplaced, InputError, NotReady
from service.deadline import Deadline
from service.live.follower import Follower
from service.live.side import SideSnapshots, why_not
from service.live.state import View
from service.settings import Settings

_MAX_WAIT_FRACTION = 0.8
"""Share of its deadline that a request waits for the change of its `min_seq`: time must be left to answer or refuse."""


class Views:
    """To be used from one event loop."""

    def __init__(
        self, catalogue: Catalogue, follower: Follower, sides: SideSnapshots, settings: Settings, threads: Executor
    ) -> None:
        self._catalogue = catalogue
        self._follower = follower
        self._sides = sides
        self._settings = settings
        self._several_hosts = settings.redis_url is not None
        self._threads = threads

    async def published(self, min_seq: int, deadline: Deadline) -> View:
        """A view with every change up to `min_seq`.

        With SQLite it has every change that was durable before the call, too, unless that takes more than half of the
        deadline, for instance after a bulk import by another model: then it is the newest that has been applied.
        Raises NotReady where `min_seq` does not come before the deadline.
        """
        view = self._follower.view()
        head = view.seq
        if not self._several_hosts:
            head = await asyncio.get_running_loop().run_in_executor(self._threads, self._head)
        return await self._with_changes(self._follower, head, min_seq, deadline)

    async def named(self, snapshot_id: str, published: View, min_seq: int, deadline: Deadline) -> View | str:
        """A view of a snapshot that a placement names, with all that `published` has; or why it cannot answer."""
        if snapshot_id == published.snapshot.id:
            return published
        follower = self._sides.get(snapshot_id)
        state = self._follower.state
        if follower is None and state is not None and state.snapshot.id == snapshot_id:
            follower = self._follower  # it was published meanwhile
        if follower is None:
            return "it is being loaded"
        if follower.state is None or (follower.view().seq < published.seq and follower.degraded):
            return why_not(follower) or "it is being loaded"
        view = await self._with_changes(follower, published.seq, min_seq, deadline)
        if view.counts.seq < published.counts.seq:
            try:
                async with asyncio.timeout(max(0.0, deadline.remaining - self._settings.deadline / 2)):
                    await follower.reach_events(published.counts.seq)
            except TimeoutError:
                pass
        return follower.view()

    def refusal(self, snapshot_id: str, why: str, published: View, field: str) -> InputError:
        """Why a request whose `field` names this snapshot gets no answer, and the way out."""
        loaded = [published.snapshot.id, *(name for name, one in self._sides.statuses().items() if one.trouble is None)]
        if self._sides.get(snapshot_id) is None:
            why = "no placement names it: name it as the snapshot of a variant or of the shadow (PUT /placements/NAME)"
        return InputError(f"snapshot {snapshot_id} does not answer: {why}. Those that do: {', '.join(loaded)}", field)

    async def reach(self, seq: int, seconds: float) -> View:
        """The view of the published snapshot once it contains `seq`, or after `seconds` the newest there is."""
        return await self._reach(self._follower, seq, seconds)

    async def _with_changes(self, follower: Follower, seq: int, min_seq: int, deadline: Deadline) -> View:
        """With every change up to `seq` if it comes soon, and every one up to `min_seq`. Raises NotReady."""
        view = follower.view()
        if view.seq < seq:
            view = await self._reach(follower, seq, deadline.remaining - self._settings.deadline / 2)
        if view.seq < min_seq:
            spare = (1 - _MAX_WAIT_FRACTION) * self._settings.deadline
            view = await self._reach(follower, min_seq, deadline.remaining - spare)
        if view.seq < min_seq:
            why = "".join(f"; {reason}" for reason in follower.degraded)
            raise NotReady(f"change {min_seq} did not arrive within the deadline; answers are at {view.seq}{why}")
        return view

    async def _reach(self, follower: Follower, seq: int, seconds: float) -> View:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await follower.reach(seq)
        except TimeoutError:
            return follower.view()

    def _head(self) -> int:
        """The log's last change; 0 where it cannot be read, which the follower reports. Raises CatalogueReplaced."""
        try:
            return self._catalogue.head()
        except CatalogueReplaced:
            raise
        except CatalogueError:
            return 0
