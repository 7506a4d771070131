"""Milvus: a collection a snapshot, and an alias that names the one that is served.

A collection has the primary key `row` (of the snapshot), `dense`, `available`, what filters read (`tokens`, `numbers`,
`wide`) and, for a hybrid, `terms`. It is filled under another name and renamed when it is complete.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from index.engines.attributes import MOST_TOKENS, TOKEN_LENGTH
from seqrec.errors import EngineUnavailable, InputError, SnapshotError
from seqrec.metric import Metric

T = TypeVar("T")
log = logging.getLogger(__name__)

VARIABLE = "SEQREC_MILVUS_URL"
MOST_ROWS = 16_384
"""The most that Milvus returns of one search."""
SECONDS = 2.0
"""For a search, and to connect."""
FILL_SECONDS = 300.0
"""For one batch of a collection that is being filled, or loaded."""
_NOT_FOUND, _NOT_LOADED = 100, 101
Record = dict[str, Any]
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class Milvus:
    """A Milvus server, connected to at the first call. Safe for several threads.

    Every method raises EngineUnavailable where the server does not answer or refuses.
    """

    def __init__(self, url: str) -> None:
        """`http(s)://[user:password@]host:port[/database][?prefix=shop]`. Raises InputError."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if parts.scheme not in ("http", "https") or not parts.hostname or set(query) - {"prefix"}:
            raise InputError(f"not http(s)://[user:password@]host:port[/database][?prefix=NAME]: {url}", VARIABLE)
        self.address = f"{parts.scheme}://{parts.hostname}:{parts.port or 19530}"
        self._login = {"user": unquote(parts.username or ""), "password": unquote(parts.password or "")}
        self._database = parts.path.strip("/")
        self.prefix = query.get("prefix", ["seqrec"])[0]
        if not self.prefix.isidentifier():
            raise InputError(f"a prefix has letters, digits and underscores: {self.prefix}", VARIABLE)
        self._lock = threading.Lock()
        self._open: Any = None

    @property
    def alias(self) -> str:
        """Names the collection of the snapshot that was published last."""
        return f"{self.prefix}_served"

    def name_of(self, snapshot_id: str) -> str:
        return f"{self.prefix}_{snapshot_id.replace('-', '_')}"

    def has(self, snapshot_id: str) -> bool:
        """Whether the snapshot's collection is there, which means that it is complete."""
        return bool(self._call(lambda client: client.has_collection(self.name_of(snapshot_id))))

    def fill(
        self, snapshot_id: str, dim: int, metric: Metric, exact: bool, hybrid: bool, batches: Iterable[Sequence[Record]]
    ) -> None:
        """Make the collection of a snapshot, unless it is there. `exact`: compare with every vector."""
        name = self.name_of(snapshot_id)
        if self.has(snapshot_id):
            return
        unfinished = f"{name}_unfinished"
        types = self._types
        self._call(lambda client: client.drop_collection(unfinished))
        schema = types.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", types.INT64, is_primary=True)
        schema.add_field("dense", types.FLOAT_VECTOR, dim=dim)
        schema.add_field("available", types.BOOL)
        schema.add_field("wide", types.BOOL)
        schema.add_field(
            "tokens", types.ARRAY, element_type=types.VARCHAR, max_capacity=MOST_TOKENS, max_length=TOKEN_LENGTH
        )
        schema.add_field("numbers", types.JSON)
        indexes = types.MilvusClient.prepare_index_params()
        kind = "FLAT" if exact else "AUTOINDEX"
        indexes.add_index("dense", index_type=kind, metric_type="L2" if metric is Metric.L2 else "IP")
        if hybrid:
            schema.add_field("terms", types.SPARSE_FLOAT_VECTOR)
            indexes.add_index("terms", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        self._call(
            lambda client: client.create_collection(
                unfinished, schema=schema, index_params=indexes, consistency_level="Strong"
            )
        )
        count = 0
        for batch in batches:
            records = list(batch)
            self._call(lambda client: client.insert(unfinished, records, timeout=FILL_SECONDS))  # noqa: B023
            count += len(records)
        self._call(lambda client: client.flush(unfinished, timeout=FILL_SECONDS))
        self._call(lambda client: client.rename_collection(unfinished, name))
        self._call(lambda client: client.load_collection(name, timeout=FILL_SECONDS))
        log.info("%d items of snapshot %s are in Milvus", count, snapshot_id)

    def serve(self, snapshot_id: str) -> None:
        """Let the alias name the snapshot's collection."""
        name = self.name_of(snapshot_id)

        def switch(client: Any) -> None:
            if self.alias in (client.list_aliases() or {}).get("aliases", ()):
                client.alter_alias(name, self.alias)
            else:
                client.create_alias(name, self.alias)

        self._call(switch)

    def served(self) -> str | None:
        """The collection that the alias names."""

        def read(client: Any) -> str | None:
            if self.alias not in (client.list_aliases() or {}).get("aliases", ()):
                return None
            return str(client.describe_alias(self.alias)["collection_name"])

        return self._call(read)

    def keep_only(self, snapshot_ids: Iterable[str]) -> list[str]:
        """Drop the collections of all other snapshots; returns their names."""
        kept = {self.name_of(snapshot_id) for snapshot_id in snapshot_ids}
        own = [name for name in self._call(lambda client: client.list_collections()) if self._is_own(name)]
        gone = [name for name in own if name.removesuffix("_unfinished") not in kept]
        for name in gone:
            self._call(lambda client: client.drop_collection(name))  # noqa: B023
        return gone

    def search(
        self,
        snapshot_id: str,
        field: str,
        queries: Sequence[Any],
        k: int,
        expression: str,
    ) -> list[Found]:
        """Rows and scores of the best k for each query, best first; `field` dense ([dim]) or terms ({id: weight}).

        The score is Milvus's: an inner product, or a squared distance. Raises SnapshotError if there is no collection.
        """
        found = self._loaded(
            snapshot_id,
            lambda client, name: client.search(
                name, data=list(queries), anns_field=field, limit=min(k, MOST_ROWS), filter=expression, timeout=SECONDS
            ),
        )
        return [
            (
                np.array([hit["row"] for hit in hits], np.int64),
                np.array([hit["distance"] for hit in hits], np.float32),
            )
            for hits in found
        ]

    def any_row(self, snapshot_id: str, expression: str) -> bool:
        """Whether a row meets the expression. Raises SnapshotError if there is no collection."""
        found = self._loaded(
            snapshot_id,
            lambda client, name: client.query(name, filter=expression, output_fields=["row"], limit=1, timeout=SECONDS),
        )
        return bool(found)

    def check(self) -> None:
        """Whether the server answers."""
        self._call(lambda client: client.list_collections(timeout=SECONDS))

    def close(self) -> None:
        with self._lock:
            client, self._open = self._open, None
        if client is not None:
            client.close()

    def _is_own(self, name: str) -> bool:
        return name.startswith(f"{self.prefix}_2")  # the year of a snapshot's id

    def _loaded(self, snapshot_id: str, work: Callable[[Any, str], T]) -> T:
        """A server that was restarted has to load a collection again."""
        name = self.name_of(snapshot_id)
        missing = f"snapshot {snapshot_id} is not in Milvus; `seqrec index publish {snapshot_id}` puts it there"
        try:
            return self._call(lambda client: work(client, name))
        except EngineUnavailable as error:
            code = getattr(error.__cause__, "code", None)
            if code == _NOT_FOUND:
                raise SnapshotError(missing) from error
            if code != _NOT_LOADED:
                raise
        self._call(lambda client: client.load_collection(name, timeout=FILL_SECONDS))
        return self._call(lambda client: work(client, name))

    def _call(self, work: Callable[[Any], T]) -> T:
        error_class = self._types.MilvusException
        try:
            return work(self._client())
        except error_class as error:
            raise EngineUnavailable(f"Milvus at {self.address}: {_first_line(error)}") from error

    def _client(self) -> Any:
        with self._lock:
            if self._open is None:
                database = {"db_name": self._database} if self._database else {}
                self._open = self._types.MilvusClient(self.address, timeout=SECONDS, **self._login, **database)
            return self._open

    @cached_property
    def _types(self) -> Any:
        try:
            return _Types()
        except ImportError as error:
            raise InputError(f"{error}: pip install 'seqrec[milvus]'", VARIABLE) from error


class _Types:
    """What is used of pymilvus, which takes a second to import."""

    def __init__(self) -> None:
        from pymilvus import DataType, MilvusClient, MilvusException

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # errors are raised; it also logs their tracebacks
        self.MilvusClient, self.MilvusException = MilvusClient, MilvusException
        for name in ("INT64", "BOOL", "ARRAY", "VARCHAR", "JSON", "FLOAT_VECTOR", "SPARSE_FLOAT_VECTOR"):
            setattr(self, name, getattr(DataType, name))


def open_engine(environment: Mapping[str, str] = os.environ) -> Milvus | None:
    """The engine that SEQREC_MILVUS_URL names. Raises InputError."""
    url = environment.get(VARIABLE)
    return Milvus(url) if url else None


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", "") or error).splitlines()[0][:300]
