"""`seqrec.Recommender`: the engine of the service in this process, called like a function."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from seqrec.errors import InputError
from seqrec.runtime.threads import choose, use
from service.components import Components, open_components
from service.engine.trace import Trace
from service.http.routes.items import delete_item, put_items
from service.http.routes.recommend import recommend, similar
from service.http.schemas import ItemsBody, RecommendBody, SimilarBody
from service.local.answer import Answer
from service.local.opening import open_path
from service.local.tables import history_entries, item_body, records
from service.metrics import Metrics
from service.rules.body import Body
from service.validation import field_path, reason

T = TypeVar("T")
B = TypeVar("B", bound=Body)
_POLL_SECONDS = 0.01


class Recommender:
    """Recommendations from Python, without a server.

    `path` is one of

    - a home: the directory of a service, which may run meanwhile (both see each other's changes);
    - a `shop.toml`, or the folder it is in: the home that `seqrec up` made;
    - a checkpoint or the directory of a training run: `items` are then indexed in a temporary directory, and `events`
      (`user_id`, `item_id`, `timestamp`) counted, both as lists of dicts, tables of pandas, or files.

    `snapshot`: the id of a snapshot to answer from instead of the published one; changes of the catalogue since are
    answered all the same.

    `settings` are those of the service by their lower-case names, such as `threads=2` or `redis_url=...`; otherwise
    the variables `SEQREC_*` count. Use it in a `with` block or call `close`. It is safe to use from several threads.

    Raises InputError for a path that is none of these, NotReady where no snapshot is published, and CatalogueError,
    SnapshotError or CheckpointError for files that cannot be read.
    """

    def __init__(
        self,
        path: str | Path = "var",
        *,
        items: Any = None,
        events: Any = None,
        snapshot: str | None = None,
        **settings: Any,
    ) -> None:
        opened = open_path(Path(path), items, events, settings)
        use(choose(opened.settings.threads, 1))
        self._name = str(path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="seqrec", daemon=True)
        try:
            self._components = open_components(opened.settings, Metrics(), lambda: None, snapshot)
        except BaseException:
            self._loop.close()
            if opened.temporary is not None:
                opened.temporary.cleanup()
            raise
        self._thread.start()
        # Also at the end of the program.
        self._close = weakref.finalize(self, _close, self._components, self._loop, self._thread, opened.temporary)
        try:
            self._call(_ready(self._components))
        except BaseException:
            self.close()
            raise

    def recommend(
        self,
        history: Any = None,
        k: int | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        explain: bool = False,
        **fields: Any,
    ) -> Answer:
        """The next `k` items for a history, best first. By default the `k` of the placement, or 10.

        `history`: oldest first, item ids or dicts of attributes (of items that need not be in the catalogue), as a
        list, a Series, or a DataFrame with the column `item_id`. `filter`: as in the HTTP API, such as
        `{"price": {"lt": 5}}`. `user_id`: whose stored events precede the history. `explain`: why each item is there.
        `fields`: all others of `POST /recommend`, such as `exclude`, `candidates`, `placement` and `context`.

        Raises InputError, which names the field; PlacementNotFound; CatalogueReplaced where another catalogue was
        restored meanwhile.
        """
        asked = {"k": k, "filter": filter, "user_id": user_id, **fields}
        values = {name: value for name, value in asked.items() if value is not None}
        if history is not None:
            values["history"] = history_entries(history)
        body = _body(RecommendBody, {**values, "explain": explain})
        answer = self._call(recommend(body, self._components, Trace()))
        return Answer(answer.model_dump(mode="json", exclude_unset=True))

    def similar(self, item_id: str | Mapping[str, Any], k: int | None = None, **fields: Any) -> Answer:
        """The `k` items most like an item of the catalogue, which is left out, or like a dict of attributes.

        `fields`: all others of `POST /similar`, such as `filter`. Raises ItemNotFound, InputError.
        """
        asked = {"attributes": dict(item_id)} if isinstance(item_id, Mapping) else {"item_id": str(item_id)}
        given = {name: value for name, value in {"k": k, **fields}.items() if value is not None}
        answer = self._call(similar(_body(SimilarBody, {**asked, **given}), self._components, Trace()))
        return Answer(answer.model_dump(mode="json", exclude_unset=True))

    def add(self, items: Any) -> dict[str, Any]:
        """Create or replace items; the next answer can contain them.

        `items`: dicts or a DataFrame with `item_id`; `available`, if there is one, says whether answers may have the
        item; all others are attributes (or give them as one dict, `attributes`). Missing values are left out. Batches
        of `max_items` (1,000) are stored one after the other, each completely or not at all.

        -> `seq` of the last change, numbers `created` and `updated`, and ids that are `not_searchable`. Raises
        InputError, which names the item; CatalogueError.
        """
        bodies = [item_body(row, f"items[{number}]") for number, row in enumerate(records(items, "items"))]
        done: dict[str, Any] = {"seq": None, "created": 0, "updated": 0, "not_searchable": []}
        most = self._components.settings.max_items
        for begin in range(0, len(bodies), most):
            body = _body(ItemsBody, {"items": bodies[begin : begin + most]})
            answer = self._call(put_items(body, self._components, Trace(), {}))
            done["seq"] = answer.seq
            done["created"] += answer.created
            done["updated"] += answer.updated
            done["not_searchable"] += answer.not_searchable or []
        return done

    def remove(self, item_id: str) -> int:
        """Delete an item from the catalogue -> the number of this change. Raises ItemNotFound, CatalogueError."""
        return self._call(delete_item(str(item_id), self._components, Trace(), {})).seq

    def __len__(self) -> int:
        """The number of items in the catalogue."""
        return self._components.catalogue.count()

    def close(self) -> None:
        """End its threads and close its files; a second time does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<seqrec.Recommender {', '.join(self._facts())}>"

    def _repr_html_(self) -> str:
        return f"<b>seqrec.Recommender</b> {escape(', '.join(self._facts()))}"

    def _facts(self) -> list[str]:
        state = self._components.follower.state if self._close.alive else None
        if state is None:
            return [self._name, "closed"]
        checkpoint = state.towers.checkpoint
        return [self._name, f"{len(self):,} items", f"model {checkpoint.model_name} {checkpoint.digest[:8]}"]

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._close.alive:
            work.close()
            raise InputError("this Recommender is closed; open another one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


async def _ready(components: Components) -> None:
    """Return when the snapshot is loaded. Raises NotReady with the reason why it is not."""
    while components.follower.starting:
        await asyncio.sleep(_POLL_SECONDS)
    components.follower.view()


def _close(components: Components, loop: asyncio.AbstractEventLoop, thread: threading.Thread, temporary: Any) -> None:
    components.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    if temporary is not None:
        temporary.cleanup()


def _body(kind: type[B], values: Mapping[str, Any]) -> B:
    """Raises InputError, which names the field and what it may be."""
    unknown = sorted(set(values) - set(kind.model_fields))
    if unknown:
        raise InputError(f"no such field; there are {_names(list(kind.model_fields))}", unknown[0])
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(reason(first), field_path(("body", *first["loc"])) or None) from None


def _names(names: Sequence[str]) -> str:
    return ", ".join(name for name in names if name not in ("cursor", "paginate"))
