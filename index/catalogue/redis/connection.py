"""A pool of connections to one Redis server. Errors become CatalogueError with a message that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from weakref import WeakSet

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from seqrec.errors import CatalogueError, InputError, OutcomeUnknown

TIMEOUT = 2.0
"""Seconds for one exchange. Followers retry, and requests have deadlines of their own."""

_WAIT_SHARE = 0.75  # of the timeout, for the server to sync: its reply must still arrive in time
_READ_ONLY = "it is a read-only replica; SEQREC_REDIS_URL must name the primary"
_ADVICE: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.BusyLoadingError, "it has just started and is still loading its data; try again"),
    (redis.OutOfMemoryError, "its memory is full; raise its maxmemory (this call wrote nothing)"),
    (redis.ReadOnlyError, _READ_ONLY),
    (redis.AuthenticationError, "it rejects the user and password of the URL"),
    (
        redis.exceptions.NoPermissionError,
        "the user of the URL lacks permissions: it needs EVAL, WAITAOF, INFO, and all keys of the prefix",
    ),
)


class RedisConnections:
    """Connections to what messages call `name`, such as "the catalogue". Safe for several threads.

    The URL is that of redis-py (redis://, rediss://, unix://) with two more options: `prefix` of all keys (default
    "seqrec"), and `timeout` in seconds. The server may disappear and return: each call reconnects, and nothing is
    written over a new connection before the server's durability was checked.
    """

    def __init__(self, url: str, accept_weaker: bool = False, name: str = "the catalogue") -> None:
        """Raises CatalogueError if it cannot be reached, or is not durable enough and not `accept_weaker`."""
        address, options = _split(url)
        prefix = options.get("prefix") or "seqrec"
        self._fresh: WeakSet[redis.Connection] = WeakSet()  # connected, durability not checked yet
        try:
            check_database(address)
            self.timeout = float(options.get("timeout") or TIMEOUT)
            self._pool = redis.ConnectionPool.from_url(
                address,
                socket_timeout=self.timeout,
                socket_connect_timeout=self.timeout,
                # No automatic retries, which would repeat writes.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                redis_connect_func=self._connected,
            )
        except ValueError as error:
            raise InputError(
                f"{_without_password(url)} is not the URL of a Redis server: {error}", "SEQREC_REDIS_URL"
            ) from None
        self.prefix = f"{{{prefix}}}:"  # a hash tag: a cluster keeps all keys on one server
        self._name = f"{name} in {_without_password(address)}"
        self._accept_weaker = accept_weaker
        self._closed = False
        self._waits = False
        self.durability_warnings: tuple[str, ...] = ()
        try:
            with self._connection() as connection:
                self._check_durability(connection)
        except BaseException:
            self.close()
            raise

    def key(self, name: str) -> str:
        return self.prefix + name

    def error(self, reason: str) -> CatalogueError:
        return CatalogueError(f"{self._name}: {reason}")

    def read(self, *commands: Sequence[Any]) -> list[Any]:
        """The replies to commands that are sent together. Raises CatalogueError if any fails."""
        with self._connection() as connection:
            return self._ask(connection, *commands)

    def write(self, *command: Any) -> Any:
        """The reply to one command, once its writes are on the server's disk (see `durability_warnings`).

        Raises OutcomeUnknown if that is not certain.
        """
        with self._connection() as connection:
            if connection in self._fresh:
                self._check_durability(connection)
            commands: list[Sequence[Any]] = [command]
            if self._waits:
                commands.append(("WAITAOF", 1, 0, int(self.timeout * _WAIT_SHARE * 1000)))
            try:
                reply, *synced = exchange(connection, commands)
            except redis.RedisError as error:
                raise OutcomeUnknown(
                    f"{self._name}: the connection failed ({error}) before the change was acknowledged; "
                    "it may or may not have been made"
                ) from error
        if isinstance(reply, redis.RedisError):
            raise self._refused(reply)
        for answer in synced:
            if isinstance(answer, redis.RedisError):
                raise OutcomeUnknown(f"{self._name}: {answer}; the change may be lost when the server stops")
            if answer[0] < 1:
                raise OutcomeUnknown(
                    f"{self._name}: its disk did not sync the change in time; it may or may not be durable"
                )
        return reply

    def check(self) -> None:
        """Raises CatalogueError if the server cannot be reached or would refuse writes."""
        sections = ("replication", "persistence", "memory")
        replies = self.read(*(("INFO", section) for section in sections))
        facts = _facts(b"".join(replies))
        if facts.get("role") == "slave" and facts.get("slave_read_only") != "0":
            raise self.error(f"{_READ_ONLY}. Every write is refused")
        for name in ("aof_last_write_status", "rdb_last_bgsave_status" if facts.get("aof_enabled") != "1" else ""):
            if facts.get(name, "ok") != "ok":
                raise self.error(f"its disk reports an error ({name} is {facts[name]}), so writes may be refused")
        most = int(facts.get("maxmemory", 0))
        if most and int(facts.get("used_memory", 0)) >= most and facts.get("maxmemory_policy") == "noeviction":
            raise self.error("its memory is full, so writes are refused; raise its maxmemory")

    def close(self) -> None:
        """Connections in use are closed after their use."""
        self._closed = True
        self._pool.disconnect(inuse_connections=False)

    @contextmanager
    def _connection(self) -> Iterator[redis.Connection]:
        """A connection for exclusive use. After an error it is closed, since a reply may still arrive on it."""
        if self._closed:
            raise self.error("it was closed")
        try:
            connection = self._pool.get_connection()
        except redis.RedisError as error:
            raise self._refused(error) from error
        try:
            yield connection
        except BaseException:
            connection.disconnect()
            raise
        finally:
            if self._closed:
                connection.disconnect()
            self._pool.release(connection)

    def _connected(self, connection: redis.Connection) -> None:
        connection.on_connect()
        self._fresh.add(connection)

    def _ask(self, connection: redis.Connection, *commands: Sequence[Any]) -> list[Any]:
        replies = self._replies(connection, *commands)
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise self._refused(reply)
        return replies

    def _replies(self, connection: redis.Connection, *commands: Sequence[Any]) -> list[Any]:
        try:
            return exchange(connection, commands)
        except redis.RedisError as error:
            raise self._refused(error) from error

    def _check_durability(self, connection: redis.Connection) -> None:
        """Read the durability settings of the server. Raises CatalogueError if they are too weak."""
        persistence, memory = self._ask(connection, ("INFO", "persistence"), ("INFO", "memory"))
        facts = _facts(persistence + memory)
        weaker = []
        waits = False
        if facts.get("aof_enabled") != "1":
            weaker.append("changes may be lost when the server stops: appendonly is not yes")
        elif self._knows_waitaof(connection):
            waits = True
        else:
            policy = self._setting(connection, "appendfsync")
            if policy != "always":
                weaker.append(
                    "the last second of changes may be lost when the server's machine stops: appendfsync is "
                    f"{policy or 'unknown'}, not always, and the server has no WAITAOF"
                )
        if facts.get("maxmemory_policy", "noeviction") != "noeviction":
            weaker.append(
                "data may be dropped when the server's memory is full: maxmemory-policy is "
                f"{facts['maxmemory_policy']}, not noeviction"
            )
        if weaker and not self._accept_weaker:
            raise self.error(f"{'; '.join(weaker)}. Change its settings, or accept this with SEQREC_ACCEPT_WEAKER=true")
        self._waits, self.durability_warnings = waits, tuple(weaker)
        self._fresh.discard(connection)

    def _knows_waitaof(self, connection: redis.Connection) -> bool:
        answer = self._replies(connection, ("COMMAND", "INFO", "WAITAOF"))[0]
        return not isinstance(answer, redis.RedisError) and bool(answer[0])

    def _setting(self, connection: redis.Connection, name: str) -> str:
        answer = self._replies(connection, ("CONFIG", "GET", name))[0]
        # Hosted servers may not reveal their settings.
        return "" if isinstance(answer, redis.RedisError) or not answer else str(answer[1].decode())

    def _refused(self, error: redis.RedisError) -> CatalogueError:
        for kind, advice in _ADVICE:
            if isinstance(error, kind):
                return self.error(advice)
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            return self.error(f"it cannot be reached ({error}); check that it runs, and SEQREC_REDIS_URL")
        if "WRONGTYPE" in str(error):
            return self.error(
                "its keys of this prefix are another program's; name another database, or add ?prefix=NAME"
            )
        return self.error(str(error))


def exchange(connection: redis.Connection, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The replies to commands that are sent together; a reply may be an error. Raises if the connection fails."""
    connection.send_packed_command(connection.pack_commands(commands))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(connection.read_response())
        except (redis.BusyLoadingError, redis.AuthenticationError) as error:
            # redis-py closes the connection at these, so there is no further reply to read.
            return replies + [error] * (len(commands) - len(replies))
        except redis.ResponseError as error:
            replies.append(error)
    return replies


def _facts(info: bytes) -> dict[str, str]:
    """The fields of an answer to INFO."""
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _split(url: str) -> tuple[str, dict[str, str]]:
    """The URL for redis-py, and the options that are not redis-py's."""
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    own: dict[str, str] = {name: options.pop(name) for name in ("prefix", "timeout") if name in options}
    return f"{address}?{urlencode(options)}" if options else address, own


def check_database(url: str) -> None:
    """Raises ValueError for a database that is no number, which redis-py takes for 0."""
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"the database after the host is a number, not {database!r}")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
