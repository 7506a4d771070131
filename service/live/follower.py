"""Follows the catalogue: keeps the live state up with the log, and swaps it when a snapshot is published.

One thread applies changes, another one loads what was published (the snapshot, its model, warmed and caught up);
until that is done the state before goes on answering, and a request keeps the view it began with. A request waits for
the changes it must hold, on its event loop. Where the log cannot be read, what has been applied goes on answering;
where it turns out to be another log, or an older state of it, nothing is answered any more.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.events.counting import follow
from index.snapshot.publication import published
from seqrec.errors import CatalogueError, CatalogueReplaced, EngineUnavailable, LogTruncated, NotReady, SeqrecError
from seqrec.runtime.malloc import trim_heap
from service.live.state import LiveState, View

log = logging.getLogger(__name__)

CHANGES_AT_ONCE = 1000
RETRY_SECONDS = 30.0
"""How long a snapshot that could not be loaded is left alone before it is tried again."""

LOADING = "the snapshot is being loaded"

AWAY_SECONDS = 1.0
"""The same where it could not be loaded because the catalogue did not answer."""

Load = Callable[[str, LiveState | None], LiveState]
"""Snapshot id and the state so far (whose model can be reused) -> the state at the snapshot, warmed."""


@dataclass(frozen=True, eq=False)
class _Waiter:
    """A request that goes on when `seq` is applied."""

    seq: int
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop
    events: bool = False  # of the events' log, not of the catalogue's


class Follower:
    """Holds the live state. What is public may be called from any thread, `reach` from an event loop."""

    def __init__(
        self,
        catalogue: Catalogue,
        load: Load,
        every: float,
        tick: Callable[[LiveState | None], object] = lambda state: None,
        swapped: Callable[[], object] = lambda: None,
        histories: HistoryStore | None = None,
        *,
        retire: Callable[[LiveState], object] = lambda state: None,
        pinned: str | None = None,
        state: LiveState | None = None,
    ) -> None:
        """`every`: seconds between looks at the log. `tick` is called after each, `swapped` after each swap.

        `retire` gets the state before, right before another is served: from then on nothing changes it here. `pinned`:
        serve this snapshot, whatever is published. `state`: of that snapshot, to go on with.
        """
        self._catalogue = catalogue
        self._load = load
        self._every = every
        self._tick = tick
        self._swapped = swapped
        self._histories = histories
        self._pinned = pinned
        self._events_trouble: str | None = None
        self._retire = retire
        self._state = state
        self.waiting: list[_Waiter] = []
        self._lock = threading.Lock()  # of the waiters
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        # What follows is the follower's own, but for reading.
        self._published = None if state is None else pinned
        self._look_up = state is None  # whether to ask what is published
        self._loading: threading.Thread | None = None
        self._loaded: LiveState | Exception | None = None
        self._retry_at = 0.0
        self._replaced: CatalogueReplaced | None = None
        self._went_back = False
        self._unreadable: str | None = None
        self._trouble = LOADING if state is None else None
        self.head = 0 if state is None else state.view.seq
        """The last change of the log that was seen."""
        self.looked = 0.0
        """When the log was last read with success (Unix seconds)."""

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._state = self._loaded = None  # what is frozen (seqrec.runtime.malloc) would keep its files open

    @property
    def state(self) -> LiveState | None:
        """What is served now, perhaps behind the log."""
        return self._state

    @property
    def starting(self) -> bool:
        """Whether the first snapshot is on its way, and nothing has gone wrong."""
        return self._state is None and self.trouble == LOADING

    @property
    def settled(self) -> bool:
        """Whether what is served is what was published last."""
        return self._state is not None and self._state.snapshot.id == self._published and self._trouble is None

    @property
    def trouble(self) -> str | None:
        """Why there is nothing to answer with."""
        if self._replaced is not None:
            return str(self._replaced)
        return None if self._state is not None else self._unreadable or self._trouble

    @property
    def unreadable(self) -> str | None:
        """Why the log cannot be read just now; None where it can."""
        return self._unreadable

    @property
    def degraded(self) -> list[str]:
        """What is wrong while answers go on."""
        return (
            []
            if self._state is None
            else [reason for reason in (self._unreadable, self._trouble, self._events_trouble) if reason]
        )

    def view(self) -> View:
        """The live catalogue as far as it is applied.

        Raises NotReady before the first snapshot is loaded, CatalogueReplaced where the log is not the one followed.
        """
        if self._replaced is not None:
            raise self._replaced
        if self._state is None:
            raise NotReady(f"nothing can be answered yet: {self.trouble}")
        return self._state.view

    async def reach(self, seq: int) -> View:
        """The view as soon as it has every change up to `seq`. Raises as `view`."""
        if self.view().seq < seq:
            await self._wait(seq, events=False)
        return self.view()

    async def reach_events(self, seq: int) -> None:
        """Returns as soon as the events' log is counted up to `seq`. Raises as `view`."""
        if self.view().counts.seq < seq:
            await self._wait(seq, events=True)

    async def _wait(self, seq: int, events: bool) -> None:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(seq, loop.create_future(), loop, events)
        with self._lock:
            self.waiting.append(waiter)
        self._wake.set()  # after it is in the list: whatever is applied from now on resolves it
        try:
            await waiter.future
        finally:
            with self._lock:
                if waiter in self.waiting:
                    self.waiting.remove(waiter)

    def _run(self) -> None:
        said = ""
        while not self._closing.is_set():
            self._wake.clear()
            try:
                self._look()
                said = ""
            except Exception as error:
                if str(error) != said:  # once, not at every look
                    said = str(error)
                    unexpected = not isinstance(error, SeqrecError)
                    log.error("following the catalogue failed: %s", error, exc_info=unexpected)
            try:
                self._tick(self._state)
            except Exception:
                log.exception("periodic work of the follower failed")
            if self._released.is_set():
                self._released.clear()
                trim_heap()
            self._wake.wait(self._every)

    def _look(self) -> None:
        try:
            self._read_head()
            self._take_loaded()
            if self._state is not None:
                self._catch_up(self._state, self.head)
                self._follow_events(self._state)
                self._resolve(self._state.view.seq, self._state.counts.seq)
            if self._look_up or self._state is None or (self._trouble and time.monotonic() >= self._retry_at):
                self._find_published()
        except LogTruncated as error:
            # It slept through reindexes: the newer snapshot leads on.
            self._unreadable = f"it was left behind, and a newer snapshot is being loaded: {error}"
            self._find_published()
        except CatalogueReplaced as error:
            self._replaced = error
            self._resolve(sys.maxsize, sys.maxsize)  # they fail with the reason
            raise
        except CatalogueError as error:
            applied = "" if self._state is None else f"; answers include changes up to {self._state.view.seq}"
            self._unreadable = f"the catalogue cannot be read: {error}{applied}"
            raise
        else:
            self._unreadable = None

    def _read_head(self) -> None:
        applied = 0 if self._state is None else self._state.view.seq
        head = self._catalogue.head()
        if head < applied or self._went_back:
            # Permanently: after as many new changes, the numbers could no longer show it.
            self._went_back = True
            raise CatalogueReplaced(
                f"the catalogue is at {head}, and change {applied} was served from it: an older state of it was "
                "restored. Restore a newer one and restart the service; `seqrec catalogue --help` says how"
            )
        self._replaced = None
        self.head, self.looked = head, time.time()

    def _catch_up(self, state: LiveState, head: int) -> None:
        """Apply everything up to `head`."""
        while state.view.seq < head and not self._closing.is_set():
            changes = list(self._catalogue.changes(state.view.seq, CHANGES_AT_ONCE))
            # Fewer than asked for: the rest up to the head is nothing, such as records that were compacted away.
            reached = changes[-1].seq if len(changes) == CHANGES_AT_ONCE else head
            for portion in state.portions(changes):
                state.apply(portion, portion[-1].seq)
                if state is self._state:
                    self._resolve(state.view.seq)
            state.apply([], max(reached, state.view.seq))
            if state is self._state:
                self._resolve(state.view.seq)
                self._look_up |= any(change.op == "publish" for change in changes)

    def _follow_events(self, state: LiveState) -> None:
        """Count what came to the log of events. Where it cannot be read, answers go on with what is counted."""
        if self._histories is None:
            return
        try:
            follow(self._histories, state.counts, state.follow_events)
        except LogTruncated:
            if self._loading is None and self._published is not None:  # start from counts of its own again
                self._start_loading(self._published)
        except CatalogueError as error:
            self._events_trouble = (
                f"the log of events cannot be read: {error}; answers count those up to {state.counts.seq}"
            )
        else:
            self._events_trouble = None

    def _resolve(self, seq: int, events: int = -1) -> None:
        """Lets the requests continue that waited for a change up to `seq`, or for an event up to `events`."""
        with self._lock:
            done = [waiter for waiter in self.waiting if waiter.seq <= (events if waiter.events else seq)]
            self.waiting = [waiter for waiter in self.waiting if waiter not in done]
        for waiter in done:
            try:
                waiter.loop.call_soon_threadsafe(_go_on, waiter.future)
            except RuntimeError:  # the loop has closed: nobody waits any more
                log.debug("change %d was applied after its event loop had closed", waiter.seq)

    def _find_published(self) -> None:
        latest = self._pinned or published(self._catalogue)
        self._look_up = False
        if latest is None:
            self._trouble = "no snapshot is published; run `seqrec index build --publish`, or `seqrec up`"
            self._retry_at = 0.0
            return
        if self._loading is not None:
            self._look_up = True  # when that is loaded
        elif self._state is not None and self._state.snapshot.id == latest and not self._left_behind():
            self._published, self._trouble = latest, None
        elif latest != self._published or time.monotonic() >= self._retry_at:
            self._start_loading(latest)

    def _start_loading(self, snapshot_id: str) -> None:
        self._published = snapshot_id
        self._loading = threading.Thread(target=self._load_one, args=(snapshot_id,), name="loader", daemon=True)
        self._loading.start()

    def _older(self, one: LiveState, other: LiveState) -> bool:
        """Whether a snapshot was published last before the other was: a rollback, perhaps because it is bad."""
        order = [publication.snapshot_id for publication in self._catalogue.publications()]  # newest first
        ages = [order.index(i) if i in order else len(order) for i in (one.snapshot.id, other.snapshot.id)]
        return ages[0] > ages[1]

    def _left_behind(self) -> bool:
        """Whether the log no longer leads on from what is applied: even the same snapshot is to be loaded anew."""
        assert self._state is not None
        try:
            self._catalogue.changes(self._state.view.seq, 1)
        except LogTruncated:
            return True
        return False

    def _load_one(self, snapshot_id: str) -> None:
        """On a thread of its own: load, and catch up far enough that the rest is little."""
        begin = time.perf_counter()
        try:
            state = self._load(snapshot_id, self._state)
            self._catch_up(state, self._catalogue.head())
            log.info("loaded snapshot %s in %.1f s", snapshot_id, time.perf_counter() - begin)
            self._loaded = state
        except Exception as error:
            if not isinstance(error, SeqrecError):
                log.exception("loading snapshot %s failed", snapshot_id)
            self._loaded = error
        self._wake.set()

    def _take_loaded(self) -> None:
        """Serve what was loaded, or say why it cannot be."""
        loaded = self._loaded
        if loaded is None:
            return
        if isinstance(loaded, Exception):
            self._loaded = self._loading = None
            # What is wrong with a snapshot stays wrong; a catalogue and a vector engine come back.
            comes_back = isinstance(loaded, CatalogueError | EngineUnavailable) and not isinstance(loaded, LogTruncated)
            self._retry_at = time.monotonic() + (AWAY_SECONDS if comes_back else RETRY_SECONDS)
            self._trouble = f"snapshot {self._published} cannot be loaded: {loaded}"
            if isinstance(loaded, CatalogueReplaced):
                raise loaded
            log.error("%s", self._trouble)
            return
        try:
            self._catch_up(loaded, self.head)
            self._follow_events(loaded)  # what was acknowledged while it was loaded counts in its first answer
        except LogTruncated:  # by now it is too old itself
            self._loaded = self._loading = self._published = None
            raise
        gone_back = self._state is not None and self._older(loaded, self._state)
        self._loaded = self._loading = None
        if gone_back:
            self._look_up = True
            return
        if self._state is not None:
            weakref.finalize(self._state, self._released.set)  # when the last request that holds it has ended
            self._retire(self._state)
        self._state = loaded
        self._trouble = None
        self._look_up = True  # another one may have been published meanwhile
        self._resolve(loaded.view.seq)
        self._swapped()
        log.info("serving snapshot %s at %d", loaded.snapshot.id, loaded.view.seq)


def _go_on(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
