"""The asynchronous client: the same methods as `seqrec.client.sync.Client`, to be awaited."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from seqrec.client import requests
from seqrec.client.batches import Progress, async_batches
from seqrec.client.errors import ApiError, BulkError
from seqrec.client.requests import BATCH_BYTES, BATCH_ENTRIES, BATCH_QUERIES, Call, Event, HistoryEntry, Item, Query
from seqrec.client.results import (
    EventsStored,
    FoundItem,
    ItemsStored,
    Job,
    KeyInfo,
    Popular,
    Readiness,
    Recommendation,
    Report,
    Similar,
    StoredItem,
    UserEvents,
)
from seqrec.client.retries import Retries, RetryPolicy

T = TypeVar("T")
_POLL_SECONDS = 0.5


class AsyncClient:
    """Calls the HTTP API from one event loop. Close it, or use it with `async with`.

    Every method raises ApiError, see `seqrec.client.errors`. A call that got no answer, 429, or a 5xx that may pass is
    sent again by the `retries` policy; a repeated attempt writes nothing twice.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        write_timeout: float = 70.0,
        retries: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        verify: Any = True,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`timeout` and `write_timeout`: seconds for one attempt of a read, and of a write.

        `transport`, `verify`: httpx's, for proxies and certificates of your own.
        """
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, transport=transport, verify=verify)
        self._timeout, self._write_timeout = timeout, write_timeout
        self._policy = retries or RetryPolicy()
        self._sleep = sleep

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def recommend(
        self,
        history: Sequence[HistoryEntry] | None = None,
        *,
        user_id: str | None = None,
        k: int | None = None,
        exclude_seen: bool | None = None,
        exclude: Sequence[str] = (),
        candidates: Sequence[str] | None = None,
        filter: Mapping[str, Any] | None = None,
        explain: bool = False,
        min_seq: int = 0,
        placement: str | None = None,
        fields: Sequence[str] | None = None,
        session_id: str | None = None,
        snapshot: str | None = None,
        paginate: bool = False,
        cursor: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Recommendation:
        """The next items after a history, oldest first, or after the stored history of a user, or after both.

        The parameters are those of `Query`.
        """
        query = Query(
            history=history,
            user_id=user_id,
            k=k,
            exclude_seen=exclude_seen,
            exclude=exclude,
            candidates=candidates,
            filter=filter,
            explain=explain,
            min_seq=min_seq,
            placement=placement,
            fields=fields,
            session_id=session_id,
            snapshot=snapshot,
            paginate=paginate,
            cursor=cursor,
            extra=extra or {},
        )
        return await self._send(requests.recommend(query))

    async def recommend_batch(self, queries: Iterable[Query], *, batch: int = BATCH_QUERIES) -> list[Recommendation]:
        """One answer for each query, in their order. `batch` queries a call are answered from one state."""
        asked = list(queries)
        answers: list[Recommendation] = []
        for at in range(0, len(asked), batch):
            some = await self._send(requests.recommend_batch(asked[at : at + batch]))
            answers += some
        return answers

    async def similar(
        self,
        item_id: str | None = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        placement: str | None = None,
        min_seq: int = 0,
        fields: Sequence[str] | None = None,
        session_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Similar:
        """Items like one of the catalogue, or like the attributes of one that need not be in it.

        The other parameters are those of `Query`.
        """
        common = requests.common(k, filter, placement, min_seq, fields, session_id, extra)
        return await self._send(requests.similar(item_id, attributes, common))

    async def popular(
        self,
        window: str | int | None = None,
        *,
        user_id: str | None = None,
        k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        placement: str | None = None,
        min_seq: int = 0,
        fields: Sequence[str] | None = None,
        session_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Popular:
        """The items with most events, or of a `window` ("7d", or seconds) those that are trending.

        The other parameters are those of `Query`.
        """
        common = requests.common(k, filter, placement, min_seq, fields, session_id, extra)
        return await self._send(requests.popular(window, user_id, common))

    async def find_items(self, words: str, *, limit: int = 20) -> list[FoundItem]:
        """Items whose attributes have all the words; the last may be the beginning of one."""
        return await self._send(requests.find_items(words, limit))

    async def get_item(self, item_id: str) -> StoredItem:
        """Raises NotFound."""
        return await self._send(requests.get_item(item_id))

    async def put_items(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        progress: Progress | None = None,
        *,
        batch: int = BATCH_ENTRIES,
    ) -> ItemsStored:
        """Add or replace items, any number of them: they are sent in batches, each all or nothing.

        `items` may be a generator, plain or asynchronous. `progress` is called with the number
        stored so far. Raises BulkError.
        """
        total, done = ItemsStored(), 0
        async for some in async_batches(items, requests.item_body, batch, BATCH_BYTES):
            total = requests.add_stored(total, await self._send_batch(requests.put_items(some), some, done))
            done += len(some)
            if progress is not None:
                progress(done)
        return total

    async def patch_item(
        self, item_id: str, attributes: Mapping[str, Any] | None = None, *, available: bool | None = None
    ) -> int:
        """Change single attributes (None removes one), such as price and stock. -> the change. Raises NotFound."""
        return await self._send(requests.patch_item(item_id, attributes, available))

    async def delete_item(self, item_id: str) -> int | None:
        """The number of the change; None if a repeated attempt found it deleted. Raises NotFound."""
        return await self._send(requests.delete_item(item_id))

    async def send_events(
        self,
        events: Iterable[Event | Mapping[str, Any]] | AsyncIterable[Event | Mapping[str, Any]],
        progress: Progress | None = None,
        *,
        batch: int = BATCH_ENTRIES,
    ) -> EventsStored:
        """Store events, any number of them, each once: one without an `event_id` gets one before it is sent.

        `events` may be a generator, plain or asynchronous. `progress` is called with the number
        stored so far. Raises BulkError.
        """
        total, done = EventsStored(), 0
        async for some in async_batches(events, requests.event_body, batch, BATCH_BYTES):
            total = requests.add_events(total, await self._send_batch(requests.send_events(some), some, done))
            done += len(some)
            if progress is not None:
                progress(done)
        return total

    async def get_user(self, user_id: str, *, limit: int = 100, cursor: str | None = None) -> UserEvents:
        """What is stored of a user, newest first, in pages. Raises NotFound."""
        return await self._send(requests.get_user(user_id, limit, cursor))

    async def delete_user(self, user_id: str) -> int:
        """Remove everything that is stored of a user; how many events that were. 0 where a repeated attempt did it."""
        return await self._send(requests.delete_user(user_id))

    async def placements(self) -> dict[str, Mapping[str, Any]]:
        """The rules of every placement, by name."""
        return await self._send(requests.placements())

    async def put_placement(self, name: str, rules: Mapping[str, Any]) -> int:
        """Store rules, as docs/placements.md has them, in place of those of the same name. -> their version."""
        return await self._send(requests.put_placement(name, rules))

    async def delete_placement(self, name: str) -> int | None:
        """The number of the change; None if a repeated attempt found it deleted. Raises NotFound."""
        return await self._send(requests.delete_placement(name))

    async def report(self, by: str = "placement", *, days: int = 30, placement: str | None = None) -> Report:
        """What became of recommendations. `by`: placement, version, variant, model, snapshot, position, source, cold.

        `experiments` compares the variants of each experiment since it began.
        """
        return await self._send(requests.report(by, days, placement))

    async def reindex(self, wait: bool = False, progress: Callable[[Job], object] | None = None) -> Job:
        """Start a reindex, or find the one that is running. `wait`: until it has ended; see its `state`."""
        job = await self._send(requests.reindex())
        while wait and not job.ended:
            await self._sleep(_POLL_SECONDS)
            job = await self.job(job.id)
            if progress is not None:
                progress(job)
        return job

    async def job(self, job_id: str) -> Job:
        """How far a reindex is. Raises NotFound."""
        return await self._send(requests.job(job_id))

    async def key(self) -> KeyInfo:
        """The scopes and limits of this client's key."""
        return await self._send(requests.key())

    async def ready(self) -> Readiness:
        """Whether the service answers requests, and why it does not."""
        return await self._send(requests.ready())

    async def _send_batch(self, call: Call[T], batch: list[dict[str, Any]], done: int) -> T:
        try:
            return await self._send(call)
        except ApiError as error:
            raise BulkError(error, done, batch) from error

    async def _send(self, call: Call[T]) -> T:
        retries = Retries(self._policy)
        request_id = uuid.uuid4().hex[:16]
        while True:
            attempt = retries.attempt
            try:
                response = await self._http.request(
                    call.method,
                    call.path,
                    params=call.params,
                    json=call.body,
                    headers={"x-request-id": f"{request_id}.{attempt}"},
                    timeout=self._write_timeout if call.slow else self._timeout,
                )
            except httpx.TransportError as error:
                wait: float | None = retries.after_failure(error)
            else:
                final = response.status_code in call.accepts
                wait = None if final else retries.after_answer(response)
                if wait is None:
                    return call.result(response, attempt)
            await self._sleep(wait or 0.0)
