"""What the service does, without HTTP: recommend, find similar items, take items in and out.

A request passes three stages: it is prepared on a pool of threads, encoded and searched with whatever else is waiting
on the compute threads, and answered on the pool. Its deadline covers all three.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from index.build.import_items import has_model_input, with_known_vectors
from index.catalogue.base import Catalogue, CatalogueItem, PutResult
from index.catalogue.histories import Event, HistoryStore
from seqrec.data.items import Item, check_item_id, make_item
from seqrec.errors import CatalogueError, CatalogueReplaced, DeadlineExceeded, InputError, ItemNotFound, NotReady
from seqrec.text.item_text import TokenizedItem
from service.engine.batcher import Batcher, BatchRecord, Lane
from service.engine.plan import (
    Answer,
    Found,
    Prepared,
    Query,
    Request,
    answer_queries,
    answers,
    no_text,
    prepare,
    prepare_similar,
)
from service.engine.user_history import with_stored
from service.engine.vector_cache import VectorCache
from service.live.follower import Follower
from service.live.search import Hit
from service.live.state import Towers, View
from service.settings import Settings

T = TypeVar("T")
RECOMMEND, ITEMS = "recommend", "items"
_PATIENCE = 0.8
"""Share of its deadline that a request waits for the change it asks for: time must be left to answer or refuse."""
_THREADS = 8
_STORE_STAGES = ("read", "write", "history")


@dataclass
class Trace:
    """What a request tells of itself in its log line: the time of each stage in ms, and which state answered."""

    stages: dict[str, float] = field(default_factory=dict)
    snapshot: str | None = None
    seq: int | None = None
    batch: int = 0

    def add(self, stage: str, seconds: float) -> None:
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds * 1000


class Recommender:
    """Use it from one event loop; `close` ends its threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        histories: HistoryStore,
        follower: Follower,
        settings: Settings,
        batch_tokens: int,
        cache: VectorCache,
        observe: Callable[[BatchRecord], object] = lambda record: None,
        cores: int = 1,
    ) -> None:
        self._catalogue = catalogue
        self._histories = histories
        self._follower = follower
        self._settings = settings
        self.cache = cache
        self._several_hosts = settings.redis_url is not None
        self._threads = ThreadPoolExecutor(_THREADS, "request")
        # Of their own: where a store does not answer, what needs none goes on.
        self._store_threads = ThreadPoolExecutor(_THREADS, "store")
        lanes = [
            Lane(RECOMMEND, answer_queries, batch_tokens, settings.queue_tokens),
            Lane(ITEMS, _encode_items, batch_tokens, settings.item_queue_tokens),
        ]
        self.batcher = Batcher(lanes, observe, cores)

    def close(self) -> None:
        self.batcher.close()
        self.cache.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store_threads.shutdown(wait=False, cancel_futures=True)

    async def recommend(self, requests: Sequence[Request], min_seq: int, trace: Trace) -> list[Answer]:
        """One answer for each request, all from one view. Raises InputError, NotReady, Overloaded, DeadlineExceeded."""
        for request in requests:
            self._check(request)
        async with _deadline(self._settings.deadline):
            if any(request.user_id is not None for request in requests):
                most = self._settings.max_history
                # Where Redis is known to be away, nobody waits to hear it again.
                away = self._follower.unreadable if self._several_hosts else None
                requests = await self._on_threads("history", trace, with_stored, self._histories, requests, most, away)
            view = await self._view(min_seq, trace)
            prepared = await self._on_threads("prepare", trace, prepare, view, requests, self.cache)
            found = iter(await self._find([one.query for one in prepared if one.query is not None], trace))
            hits = [one.popular if one.query is None else next(found) for one in prepared]
            return await self._on_threads("answer", trace, answers, view, prepared, hits)

    async def similar(
        self, item_id: str | None, attributes: Mapping[str, Any] | None, k: int, min_seq: int, trace: Trace
    ) -> Answer:
        """Items whose vectors are nearest to that of an item, which is left out. Raises ItemNotFound, and as above."""
        if (item_id is None) == (attributes is None):
            raise InputError("say either item_id or attributes, and not both")
        self._check_k(k, "k")
        if item_id is not None:
            check_item_id(item_id)
        async with _deadline(self._settings.deadline):
            view = await self._view(min_seq, trace)
            query = await self._on_threads("prepare", trace, prepare_similar, view, item_id, attributes, k)
            hits = await self._find([query], trace)
            [answer] = await self._on_threads("answer", trace, answers, view, [Prepared([], query, [])], hits)
            return answer

    async def put(
        self, posted: Sequence[tuple[str, Mapping[str, Any], bool]], trace: Trace
    ) -> tuple[PutResult, list[str]]:
        """Upsert items (id, attributes, available), all or none; every view made after this returns holds them.

        Also the ids of those that are stored but cannot be searched: a model that knows items by id has not met them.
        Raises InputError, NotReady, Overloaded, DeadlineExceeded (nothing was written then), CatalogueError.
        """
        if len(posted) > self._settings.max_items:
            raise InputError(f"at most {self._settings.max_items} items in one call, not {len(posted)}", "items")
        async with _deadline(self._settings.write_deadline):
            view = await self._view(0, trace)
            entries = await self._on_threads("read", trace, _entries, self._catalogue, view.towers, posted)
            searched = [entry.tokens is not None and has_model_input(entry.tokens) for entry in entries]
            bare = [row for row, entry in enumerate(entries) if entry.vector is None and searched[row]]
            units = [(view.towers, tokens) for row in bare if (tokens := entries[row].tokens) is not None]
            vectors = await self._submit(ITEMS, units, [len(tokens.ids) + 1 for _, tokens in units], trace)
            for row, vector in zip(bare, vectors, strict=True):
                entries[row] = replace(entries[row], vector=vector)
        # From here on it is written whatever the clock says: a 504 means that nothing was.
        result = await self._on_threads("write", trace, self._catalogue.put, entries)
        await self._written(result.seq, trace)
        return result, [entry.item.item_id for entry, found in zip(entries, searched, strict=True) if not found]

    async def delete(self, item_id: str, trace: Trace) -> int:
        """Delete an item; the sequence number after it. Raises ItemNotFound, NotReady, CatalogueError."""
        check_item_id(item_id)
        await self._view(0, trace)
        seq = await self._on_threads("write", trace, self._catalogue.delete, [item_id])
        await self._written(seq, trace)
        return seq

    async def add_events(self, events: Sequence[Event], trace: Trace) -> tuple[int, list[str]]:
        """Store events; how many were new, and the ids of items that are in no catalogue.

        Raises NotReady, CatalogueError.
        """
        view = await self._view(0, trace)
        stored = await self._on_threads("write", trace, self._histories.add, events)
        item_ids = dict.fromkeys(event.item_id for event in events)
        return stored, [item_id for item_id in item_ids if view.position_of(item_id) is None]

    async def delete_user(self, user_id: str, trace: Trace) -> int:
        """Remove all that is stored of a user; how many events that were.

        Raises InputError, NotReady, CatalogueError.
        """
        self._follower.view()  # of another catalogue's users nothing would be true
        return await self._on_threads("write", trace, self._histories.delete, check_item_id(user_id, "user_id"))

    async def present(self) -> View:
        """The view that a request would get now. Raises NotReady, CatalogueReplaced."""
        return await self._view(0, Trace())

    async def get(self, item_id: str, trace: Trace) -> tuple[int, Item, bool]:
        """The seq of its last change, the item, and whether answers may hold it now. Raises ItemNotFound."""
        check_item_id(item_id)
        stored = await self._on_threads("read", trace, self._catalogue.get, item_id)
        if stored is None:
            raise ItemNotFound(item_id)
        seq, entry = stored
        if self._follower.state is None:
            return seq, entry.item, False
        view = await self._view(0, trace)
        position = view.position_of(item_id)
        return seq, entry.item, position is not None and view.is_shown(position)

    async def find(self, words: str, limit: int, trace: Trace) -> list[Item]:
        """Items whose attributes hold the words, best match first."""
        return await self._on_threads("read", trace, _found_items, self._catalogue, words, limit)

    def _check(self, request: Request) -> None:
        settings = self._settings
        self._check_k(request.k, f"{request.field}k")
        if request.user_id is not None:
            check_item_id(request.user_id, f"{request.field}user_id")
        if len(request.history) > settings.max_history:
            message = f"at most {settings.max_history} entries, not {len(request.history)}; send the newest"
            raise InputError(message, f"{request.field}history")
        for name, ids in (("exclude", request.exclude), ("candidates", request.candidates)):
            if ids is not None and len(ids) > settings.max_ids:
                raise InputError(f"at most {settings.max_ids} ids, not {len(ids)}", f"{request.field}{name}")

    def _check_k(self, k: int, field: str) -> None:
        if not 1 <= k <= self._settings.max_k:
            raise InputError(f"from 1 to {self._settings.max_k}, not {k}", field)

    async def _view(self, min_seq: int, trace: Trace) -> View:
        """A view that holds every change up to `min_seq`.

        With SQLite it holds every change that was durable before the call, too, unless that takes more than half of the
        deadline, as where another model's records come in bulk: then it is what is applied. Raises NotReady where
        `min_seq` does not come before the deadline.
        """
        began = time.perf_counter()
        view = self._follower.view()
        head = view.seq if self._several_hosts else await self._on_threads("follow", trace, self._head)
        if view.seq < head:
            view = await self._reached(head, self._settings.deadline / 2, trace)
        left = _PATIENCE * self._settings.deadline - (time.perf_counter() - began)
        if view.seq < min_seq:
            view = await self._reached(min_seq, left, trace)
        if view.seq < min_seq:
            why = "".join(f"; {reason}" for reason in self._follower.degraded)
            raise NotReady(f"change {min_seq} has not come within the deadline; answers are at {view.seq}{why}")
        trace.snapshot, trace.seq = view.snapshot.id, view.seq
        return view

    async def _written(self, seq: int, trace: Trace) -> None:
        """Return when a change of ours is searched. Raises NotReady where that takes very long; it is durable then."""
        if (await self._reached(seq, self._settings.write_deadline, trace)).seq < seq:
            raise NotReady(f"it was written as change {seq}, but is not searched yet; min_seq={seq} waits for it")

    async def _reached(self, seq: int, seconds: float, trace: Trace) -> View:
        """The view once it holds `seq`, or after `seconds` whatever there is."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._follower.reach(seq)
        except TimeoutError:
            return self._follower.view()
        finally:
            trace.add("follow", time.perf_counter() - began)

    def _head(self) -> int:
        """The log's last change; 0 where it cannot be read just now, which the follower tells. CatalogueReplaced."""
        try:
            return self._catalogue.head()
        except CatalogueReplaced:
            raise
        except CatalogueError:
            return 0

    async def _find(self, queries: Sequence[Query], trace: Trace) -> list[list[Hit]]:
        found: list[Found] = await self._submit(RECOMMEND, queries, [query.cost for query in queries], trace)
        if found:
            trace.add("encode", max(one.encode for one in found))
            trace.add("search", max(one.search for one in found))
        made = {query.key: one.vector for query, one in zip(queries, found, strict=True) if query.key is not None}
        if made:
            self.cache.put(made)
            if self.cache.shared:  # nobody waits for that
                self._store_threads.submit(self.cache.share, made)
        return [one.hits for one in found]

    async def _submit(self, lane: str, units: Sequence[Any], costs: Sequence[int], trace: Trace) -> list[Any]:
        begin = time.perf_counter()
        settings = self._settings
        deadline = settings.deadline if lane == RECOMMEND else settings.write_deadline
        results, ticket = await self.batcher.submit(lane, units, costs, deadline)
        if units:
            trace.add("queue", ticket.waited)
            trace.add("compute", time.perf_counter() - begin - ticket.waited)
            trace.batch = ticket.batch_units
        return results

    async def _on_threads(self, stage: str, trace: Trace, function: Callable[..., T], *arguments: Any) -> T:
        begin = time.perf_counter()
        pool = self._store_threads if stage in _STORE_STAGES else self._threads
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
        finally:
            trace.add(stage, time.perf_counter() - begin)


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"no answer within {seconds:g} s") from None


def _entries(
    catalogue: Catalogue, towers: Towers, posted: Sequence[tuple[str, Mapping[str, Any], bool]]
) -> list[CatalogueItem]:
    """The items as the catalogue keeps them; without a vector where it must be made. Raises InputError."""
    items: dict[str, Item] = {}
    for row, (item_id, attributes, available) in enumerate(posted):
        item = make_item(item_id, attributes, available, f"items[{row}].")
        if item_id in items:
            raise InputError(f"{item_id!r} is in this request twice; send it once", f"items[{row}].item_id")
        items[item_id] = item
    all_tokens = towers.encoder.tokenize_items(list(items.values()))
    for row, tokens in enumerate(all_tokens):
        if towers.encoder.cold_items and not has_model_input(tokens):
            raise InputError(no_text(towers), f"items[{row}].attributes")
    tower = towers.encoder.item_tower
    bare = [CatalogueItem(item, tokens, None, tower) for item, tokens in zip(items.values(), all_tokens, strict=True)]
    return with_known_vectors(catalogue, bare)


def _encode_items(units: Sequence[tuple[Towers, TokenizedItem]]) -> list[Any]:
    """A batch of the items lane. All of one model, but for the moment of a swap."""
    vectors: list[Any] = [None] * len(units)
    for towers in {id(towers): towers for towers, _ in units}.values():
        rows = [row for row, (its, _) in enumerate(units) if its is towers]
        for row, vector in zip(rows, towers.encode_items([units[row][1] for row in rows]), strict=True):
            vectors[row] = vector
    return vectors


def _found_items(catalogue: Catalogue, words: str, limit: int) -> list[Item]:
    item_ids = catalogue.find(words, limit)
    found = catalogue.get_many(item_ids)
    return [found[item_id][1].item for item_id in item_ids if item_id in found]
