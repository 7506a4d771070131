"""The operations of the service, without HTTP: recommend, find similar items, change items and events.

A recommendation passes three stages: it is planned on a pool of threads, encoded and searched in a batch with other
requests on the compute threads, and read on the pool. Its deadline covers all three and counts from its arrival.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from index.catalogue.base import Catalogue, CatalogueItem, PutResult
from index.catalogue.histories import Event, HistoryStore
from index.snapshot.publication import place
from seqrec.data.items import Item, check_item_id, check_user_id
from seqrec.errors import CatalogueError, DeadlineExceeded, InputError, ItemChanged, ItemNotFound, NotReady
from service.deadline import Deadline
from service.engine.attributes import AttributeBudget, unknown_fields
from service.engine.batcher import Batcher, BatchRecord, Lane
from service.engine.execution import Answer, Result, answers, execute
from service.engine.plan import HistoryQuery, Plan, plan_each, plan_similar
from service.engine.posted_items import (
    ItemPatch,
    encode_posted,
    has_input,
    patched_entries,
    put_unless_changed,
    read_posted,
)
from service.engine.requests import (
    PopularQuery,
    RecommendRequest,
    Selection,
    SimilarRequest,
    check_request,
    own_views,
)
from service.engine.trace import Trace
from service.engine.turns import WriteTurns
from service.engine.user_history import UserHistory, load_histories, with_showings
from service.engine.vector_cache import VectorCache
from service.live.follower import Follower
from service.live.side import SideSnapshots
from service.live.state import View
from service.live.views import Views
from service.settings import Settings

T = TypeVar("T")
S = TypeVar("S", bound=Selection)
Answered = Callable[[Sequence[Plan], Mapping[str, UserHistory], Sequence[Answer], Trace], object]
RECOMMEND, ITEMS = "recommend", "items"
_THREADS = 8
_HEAVY_THREADS = 2
_FAILURE_SECONDS = 60.0
"""How long a failed call shows, unless one succeeds."""
_HEAVY_STAGES = ("filter", "explain", "prepare_many", "answer_many")
_MANY = 8
"""Batches of at least so many requests use the pool for heavy work, and as many items a thread of their own."""
_STORE_STAGES = ("read", "write", "history")


class Recommender:
    """To be used from one event loop. `close` ends its threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        histories: HistoryStore,
        follower: Follower,
        sides: SideSnapshots,
        settings: Settings,
        batch_tokens: int,
        cache: VectorCache,
        observe: Callable[[BatchRecord], object] = lambda record: None,
        cores: int = 1,
        answered: Answered = lambda plans, users, answers, trace: None,
    ) -> None:
        """`answered` is called with what was answered, before the answers are sent; it must return at once."""
        self._answered = answered
        self._catalogue = catalogue
        self._histories = histories
        self._follower = follower
        self._settings = settings
        self.cache = cache
        self._write_failure: tuple[float, str] | None = None
        self._history_failure: tuple[float, str] | None = None
        self._several_hosts = settings.redis_url is not None
        self._threads = ThreadPoolExecutor(_THREADS, "request")
        # A separate pool: plain requests are answered meanwhile.
        self._heavy_threads = ThreadPoolExecutor(_HEAVY_THREADS, "heavy")
        # A separate pool: when a store does not answer, requests that need none are still answered.
        self._store_threads = ThreadPoolExecutor(_THREADS, "store")
        # One thread: several that prepare items would hold up the compute threads at each of their operations.
        self._bulk_thread = ThreadPoolExecutor(1, "bulk")
        self._views = Views(catalogue, follower, sides, settings, self._threads)
        lanes = [
            Lane(RECOMMEND, partial(execute, parts=settings.parts_share), batch_tokens, settings.queue_tokens),
            Lane(ITEMS, encode_posted, batch_tokens, settings.item_queue_tokens),
        ]
        self.batcher = Batcher(lanes, observe, cores)
        self.write_turns = WriteTurns(self.batcher.others_ask)

    @property
    def degraded(self) -> list[str]:
        """Why writes fail or histories cannot be read, as far as the last call shows."""
        failures = (("writes fail", self._write_failure), ("stored histories cannot be read", self._history_failure))
        since = time.monotonic() - _FAILURE_SECONDS
        return [f"{what}: {failure[1]}" for what, failure in failures if failure is not None and failure[0] > since]

    def forget_failures(self) -> None:
        """To be called when the stores can be reached again."""
        self._write_failure = self._history_failure = None

    def close(self) -> None:
        self.batcher.close()
        self.cache.close()
        for pool in (self._threads, self._heavy_threads, self._store_threads, self._bulk_thread):
            pool.shutdown(wait=False, cancel_futures=True)

    async def recommend(self, requests: Sequence[RecommendRequest], min_seq: int, trace: Trace) -> list[Answer]:
        """One answer for each request, those of one snapshot from one view.

        Raises InputError, NotReady, Overloaded, DeadlineExceeded.
        """
        for request in requests:
            check_request(request, self._settings)
        async with self._deadline(trace) as deadline:
            users = await self._load_users(requests, trace)
            view = await self._view(min_seq, trace, deadline)
            requests, views = await self._timed(trace, own_views(self._views, requests, view, min_seq, deadline))
            requests = await self._with_showings(requests, view, trace)
            heavy = any(request.is_heavy(own) for request, own in zip(requests, views, strict=True))
            stage = "filter" if heavy else "prepare" if len(requests) < _MANY else "prepare_many"
            question = (views, requests, users, self._settings.max_history, self.cache, deadline)
            plans = await self._on_threads(stage, trace, plan_each, *question)
            answers = await self._answer(plans, trace, deadline)
            self._answered(plans, users, answers, trace)
            return answers

    async def similar(self, request: SimilarRequest, min_seq: int, trace: Trace) -> Answer:
        """Items with the nearest vectors to that of an item, which is left out. Raises ItemNotFound, and as above."""
        if (request.item_id is None) == (request.attributes is None):
            raise InputError("give either item_id or attributes, not both")
        check_request(request, self._settings)
        if request.item_id is not None:
            check_item_id(request.item_id)
        async with self._deadline(trace) as deadline:
            view = await self._view(min_seq, trace, deadline)
            own = await self._timed(trace, own_views(self._views, [request], view, min_seq, deadline))
            ([request], [view]) = own
            trace.snapshot, trace.seq = view.snapshot.id, view.seq
            [request] = await self._with_showings([request], view, trace)
            stage = "filter" if request.is_heavy(view) else "prepare"
            plan = await self._on_threads(stage, trace, plan_similar, view, request, deadline)
            [similar] = await self._answer([plan], trace, deadline)
            self._answered([plan], {}, [similar], trace)
            return similar

    async def put(
        self, posted: Sequence[tuple[str, Mapping[str, Any], bool]], trace: Trace
    ) -> tuple[PutResult, list[str], list[str]]:
        """Upsert items (id, attributes, available), all or none; every later view contains them.

        Also returns the ids of items that are stored and that no answer contains: those that a model of item ids does
        not know, and those that are not available.
        Raises InputError, NotReady, Overloaded, DeadlineExceeded (nothing was written then), CatalogueError.
        """
        async with self._write_turn(len(posted), trace):
            async with self._write_deadline(trace) as deadline:
                view = await self._view(0, trace, deadline)
                question = (self._catalogue, view.towers, posted)
                entries = await self._on_threads("read", trace, read_posted, *question, units=len(posted))
                entries = await self._encoded(view, entries, trace, deadline)
            # Outside of the deadline: after a 504 nothing must have been written.
            result = await self._on_threads("write", trace, self._catalogue.put, entries, units=len(entries))
            await self._wait_until_searched(result.seq, trace)
        unknown = [entry.item.item_id for entry in entries if not has_input(entry)]
        return result, unknown, [entry.item.item_id for entry in entries if not entry.item.available]

    async def patch(self, patches: Sequence[ItemPatch], trace: Trace) -> tuple[int, int, int]:
        """Change attributes and availability of items, all or none: seq, and how many were updated and unchanged.

        Where others change the same items, again until the deadline. Raises ItemNotFound, ItemChanged, and as `put`.
        """
        async with self._write_turn(len(patches), trace):
            return await self._patch(patches, trace)

    async def _patch(self, patches: Sequence[ItemPatch], trace: Trace) -> tuple[int, int, int]:
        changed: ItemChanged | None = None
        while True:
            try:
                async with self._write_deadline(trace) as deadline:
                    view = await self._view(0, trace, deadline)
                    question = (self._catalogue, view.towers, patches)
                    found = await self._on_threads("read", trace, patched_entries, *question, units=len(patches))
                    found = replace(found, entries=await self._encoded(view, found.entries, trace, deadline))
            except DeadlineExceeded:
                if changed is not None:
                    raise changed from None
                raise
            result = await self._on_threads(
                "write", trace, put_unless_changed, self._catalogue, found, units=len(patches)
            )
            if isinstance(result, PutResult):
                await self._wait_until_searched(result.seq, trace)
                return result.seq, result.updated, found.unchanged
            changed = result

    async def _encoded(
        self, view: View, entries: Sequence[CatalogueItem], trace: Trace, deadline: Deadline
    ) -> list[CatalogueItem]:
        """The entries with a vector, unless the model finds nothing to encode in one."""
        bare = [row for row, entry in enumerate(entries) if entry.vector is None and has_input(entry)]
        units = [(view.towers, tokens) for row in bare if (tokens := entries[row].tokens) is not None]
        costs = [len(tokens.ids) + 1 for _, tokens in units]
        vectors = await self._submit(ITEMS, units, costs, trace, deadline)
        encoded = list(entries)
        for row, vector in zip(bare, vectors, strict=True):
            encoded[row] = replace(encoded[row], vector=vector)
        return encoded

    async def delete(self, item_id: str, trace: Trace) -> int:
        """Delete an item; the sequence number after it. Raises ItemNotFound, NotReady, CatalogueError."""
        check_item_id(item_id)
        async with self._write_deadline(trace) as deadline:
            await self._view(0, trace, deadline)
        seq = await self._on_threads("write", trace, self._catalogue.delete, [item_id])
        await self._wait_until_searched(seq, trace)
        return seq

    async def add_events(self, events: Sequence[Event], trace: Trace) -> tuple[int, list[str]]:
        """Store events; how many were new, and the ids of items that are in no catalogue.

        Raises NotReady, DeadlineExceeded (nothing was written then), CatalogueError.
        """
        async with self._write_deadline(trace) as deadline:
            view = await self._view(0, trace, deadline)
        stored = await self._on_threads("write", trace, self._histories.add, events)
        await self._counted(trace)
        item_ids = dict.fromkeys(event.item_id for event in events)
        return stored, [item_id for item_id in item_ids if view.position_of(item_id) is None]

    async def set_placement(self, name: str, rules: str | None, trace: Trace) -> int:
        """Store rules under a name, or with None delete them; the number of the change.

        The next request of this worker follows them. Raises InputError for a snapshot that cannot be served,
        PlacementNotFound, NotReady, CatalogueError.
        """
        self._follower.view()
        seq = await self._on_threads("write", trace, place, self._settings.home, self._catalogue, name, rules)
        await self._wait_until_searched(seq, trace)
        return seq

    async def delete_user(self, user_id: str, trace: Trace) -> int:
        """Remove everything that is stored of a user; how many events that were.

        Raises InputError, NotReady, CatalogueError.
        """
        self._follower.view()  # raises where the catalogue was replaced: these are not its users
        deleted = await self._on_threads("write", trace, self._histories.delete, check_user_id(user_id))
        await self._counted(trace)
        return deleted

    async def remove_event(self, user_id: str, event_id: str, trace: Trace) -> bool:
        """Take one event back; False if there is none of this id. Raises InputError, NotReady, CatalogueError."""
        self._follower.view()
        user_id, event_id = check_user_id(user_id), check_item_id(event_id, "event_id", "an event id")
        removed = await self._on_threads("write", trace, self._histories.remove, user_id, event_id)
        await self._counted(trace)
        return removed

    async def _counted(self, trace: Trace) -> None:
        """Return when what was just written to the log of events counts in the answers of this worker.

        It is durable by then; where counting takes very long, the call returns all the same.
        """
        head = await self._on_threads("write", trace, self._histories.events_head)
        with suppress(TimeoutError):
            await self._timed(trace, asyncio.wait_for(self._follower.reach_events(head), self._settings.deadline))

    async def current_view(self) -> View:
        """The view that a request would get now. Raises NotReady, CatalogueReplaced, DeadlineExceeded."""
        trace = Trace()
        async with self._deadline(trace) as deadline:
            return await self._view(0, trace, deadline)

    async def get(self, item_id: str, trace: Trace) -> tuple[int, Item, bool]:
        """The seq of its last change, the item, and whether answers may contain it now.

        Raises ItemNotFound, DeadlineExceeded, CatalogueError.
        """
        check_item_id(item_id)
        async with self._deadline(trace) as deadline:
            stored = await self._on_threads("read", trace, self._catalogue.get, item_id)
            if stored is None:
                raise ItemNotFound(item_id)
            seq, entry = stored
            if self._follower.state is None:
                return seq, entry.item, False
            view = await self._view(0, trace, deadline)
            position = view.position_of(item_id)
            return seq, entry.item, position is not None and view.is_shown(position)

    async def read(self, function: Callable[..., T], *arguments: Any, trace: Trace) -> T:
        """Call a function that reads a store, on a thread for stores. Raises DeadlineExceeded, CatalogueError."""
        async with self._deadline(trace):
            return await self._on_threads("read", trace, function, *arguments)

    async def render(self, function: Callable[..., T], *arguments: Any, trace: Trace) -> T:
        """Call a function that makes a large response, where it delays no short request."""
        return await self._on_threads("answer_many", trace, function, *arguments)

    async def inspect(self, function: Callable[..., T], *arguments: Any, trace: Trace) -> T:
        """Call `function(view, *arguments, deadline)` with the current view, where long work delays no short request.

        Raises NotReady, DeadlineExceeded, and what the function raises.
        """
        async with self._deadline(trace) as deadline:
            arguments = (await self._view(0, trace, deadline), *arguments, deadline)
            return await self._on_threads("filter", trace, function, *arguments)

    async def limited(
        self, items: Sequence[Item], fields: Sequence[str] | None, trace: Trace
    ) -> tuple[list[Item], list[str]]:
        """Items with the attributes `fields` (None: all), within the budget of an answer, and what was left out."""
        budget = AttributeBudget(self._settings.max_answer_bytes)
        limited, left_out = budget.read(len(items), items.__getitem__, fields)
        degraded = budget.left_out_message(left_out)
        state = self._follower.state
        if state is not None and state.view.unseen_attributes(fields or ()):
            async with self._deadline(trace) as deadline:
                degraded += await self._on_threads("filter", trace, unknown_fields, state.view, fields, deadline)
        return limited, degraded

    def _deadline(self, trace: Trace) -> Deadline:
        return Deadline(self._settings.deadline, trace.arrived)

    def _write_deadline(self, trace: Trace) -> Deadline:
        return Deadline(self._settings.write_deadline, trace.arrived)

    def _write_turn(self, items: int, trace: Trace) -> AbstractAsyncContextManager[None]:
        if items > (most := self._settings.max_items):
            raise InputError(f"at most {most} items in one call, not {items}", "items")
        return self.write_turns.turn(trace.client if items >= _MANY else "", self._write_deadline(trace))

    async def _load_users(self, requests: Sequence[RecommendRequest], trace: Trace) -> Mapping[str, UserHistory]:
        user_ids = {request.user_id for request in requests if request.user_id is not None}
        if not user_ids:
            return {}
        limits = (self._settings.max_history, self._settings.max_ids, self._unavailable)
        users = await self._on_threads("history", trace, load_histories, self._histories, user_ids, *limits)
        reasons = [reason for user in users.values() for reason in user.degraded]
        self._history_failure = (time.monotonic(), reasons[0]) if reasons else None
        return users

    @property
    def _unavailable(self) -> str | None:
        """Where Redis is known to be unreachable, no request waits to find out again."""
        return self._follower.unreadable if self._several_hosts else None

    async def _with_showings(self, requests: Sequence[S], view: View, trace: Trace) -> Sequence[S]:
        if not any(request.may_rotate(view) for request in requests):
            return requests
        return await self._on_threads("history", trace, with_showings, self._histories, requests, self._unavailable)

    async def _view(self, min_seq: int, trace: Trace, deadline: Deadline) -> View:
        """Of the published snapshot, with every change up to `min_seq`. Raises NotReady."""
        view = await self._timed(trace, self._views.published(min_seq, deadline))
        trace.snapshot, trace.seq = view.snapshot.id, view.seq
        return view

    async def _wait_until_searched(self, seq: int, trace: Trace) -> None:
        """Return when a change of this request is searched. Raises NotReady where that takes very long."""
        view = await self._timed(trace, self._views.reach(seq, self._settings.write_deadline))
        if view.seq < seq:
            raise NotReady(f"it was written as change {seq}, but is not searched yet; min_seq={seq} waits for it")

    async def _timed(self, trace: Trace, waiting: Awaitable[T]) -> T:
        """The time counts as that of following the log."""
        began = time.perf_counter()
        try:
            return await waiting
        finally:
            trace.add("follow", time.perf_counter() - began)

    async def _answer(self, plans: Sequence[Plan], trace: Trace, deadline: Deadline) -> list[Answer]:
        """Execute the plans, remember the vectors of their histories, and read the items that were found."""
        searched = [plan for plan in plans if not isinstance(plan.query, PopularQuery)]
        costs = [plan.cost for plan in searched]
        results: list[Result] = await self._submit(RECOMMEND, searched, costs, trace, deadline)
        if results:
            search = max(result.search for result in results)
            trace.add("encode", max(result.encode for result in results), time.perf_counter() - search)
            trace.add("search", search)
        self._remember(searched, results)
        executed = iter(results)
        found = [None if isinstance(plan.query, PopularQuery) else next(executed) for plan in plans]
        return await self._on_threads(
            "explain" if any(plan.explain for plan in plans) else "answer" if len(plans) < _MANY else "answer_many",
            trace,
            answers,
            *(plans, found, AttributeBudget(self._settings.max_answer_bytes), deadline),
        )

    def _remember(self, plans: Sequence[Plan], results: Sequence[Result]) -> None:
        made = {
            plan.query.key: result.vector
            for plan, result in zip(plans, results, strict=True)
            if isinstance(plan.query, HistoryQuery) and plan.query.key is not None
        }
        if made:
            self.cache.put(made)
            if self.cache.shared:  # in the background
                self._store_threads.submit(self.cache.share, made)

    async def _submit(
        self, lane: str, units: Sequence[Any], costs: Sequence[int], trace: Trace, deadline: Deadline
    ) -> list[Any]:
        deadline.check()  # a loop that was held up runs this before the timeout
        begin = time.perf_counter()
        results, ticket = await self.batcher.submit(lane, units, costs, deadline.remaining, trace.client)
        if units:
            trace.add("queue", ticket.waited, begin + ticket.waited)
            trace.add("compute", time.perf_counter() - begin - ticket.waited)
            trace.batch = ticket.batch_units
        return results

    async def _on_threads(
        self, stage: str, trace: Trace, function: Callable[..., T], *arguments: Any, units: int = 1
    ) -> T:
        begin = time.perf_counter()
        failed: str | None = None
        heavy = self._heavy_threads if stage in _HEAVY_STAGES else self._threads
        store = self._store_threads if units < _MANY else self._bulk_thread
        pool = store if stage in _STORE_STAGES else heavy
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
        except CatalogueError as error:
            failed = str(error)
            raise
        finally:
            trace.add(stage, time.perf_counter() - begin)
            if stage == "write":
                self._write_failure = None if failed is None else (time.monotonic(), failed)
