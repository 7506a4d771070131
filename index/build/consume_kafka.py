"""A topic of Kafka, read by a consumer group. The value of a message is an event or an item as JSON.

Offsets are committed after the records are stored. A client of librdkafka does the rest: groups, rebalances, retries.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from index.build.consume import ANSWER_SECONDS, AT_ONCE, WAIT_SECONDS, Record, Rejected, StreamConsumer
from seqrec.errors import CatalogueError, InputError

SCHEME = "kafka://"
_GIVE_UP_SECONDS = 30.0
_OWN = ("bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof")
_FATAL = (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._RESOLVE, KafkaError._FATAL)


@dataclass(frozen=True)
class KafkaLocation:
    """Of `kafka://HOST:PORT[,HOST:PORT]/TOPIC?group=NAME&SETTING=VALUE`; settings are librdkafka's."""

    servers: str
    topic: str
    group: str
    settings: Mapping[str, str]


def parse_url(url: str) -> KafkaLocation:
    """Raises InputError."""
    parts = urlsplit(url)
    topic, query = unquote(parts.path.lstrip("/")), dict(parse_qsl(parts.query, keep_blank_values=True))
    if not url.startswith(SCHEME) or not parts.netloc or not topic or "/" in topic:
        raise InputError(f"{url!r} is not kafka://HOST:PORT/TOPIC?group=NAME", "URL")
    group = query.pop("group", "seqrec")
    if taken := [name for name in query if name in _OWN]:
        raise InputError(f"{taken[0]} is set by seqrec; in the URL are host, topic and group", "URL")
    return KafkaLocation(parts.netloc, topic, group, query)


class KafkaConsumer(StreamConsumer[Message]):
    """Raises InputError for settings that librdkafka does not know, CatalogueError if no broker answers, and for a
    topic that is missing if it must be `existing`."""

    def __init__(self, location: KafkaLocation, name: str, existing: bool = False) -> None:
        self._topic = location.topic
        self.rejected_name = f"{location.topic}.rejected"
        self._error: KafkaError | None = None
        self._last = ""
        self._ended: set[int] = set()
        self._assigned: set[int] = set()
        # librdkafka logs each failed attempt to connect; what it fails at is told here once.
        shared = {"client.id": name, "log_level": 2, **location.settings, "bootstrap.servers": location.servers}
        self._shared: dict[str, Any] = {**shared, "error_cb": self._note}
        own = {"auto.offset.reset": "earliest", **self._shared, "group.id": location.group, "enable.auto.commit": False}
        own |= {"enable.auto.offset.store": False, "enable.partition.eof": True}
        try:
            self._consumer = Consumer(own)
        except (KafkaException, ValueError, TypeError) as error:
            raise InputError(f"{_reason(error)}", "URL") from None
        try:
            self._check(existing)
        except BaseException:
            self.close()
            raise
        self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def _check(self, existing: bool) -> None:
        try:
            found = self._consumer.list_topics(self._topic, timeout=ANSWER_SECONDS)
        except KafkaException as error:
            self._consumer.poll(0)  # brings why, by `_note`
            why = self._last or _reason(error)
            raise CatalogueError(f"no broker answers within {ANSWER_SECONDS:.0f} s ({why})") from error
        problem = found.topics[self._topic].error
        if existing and problem is not None:
            raise CatalogueError(f"there is no topic {self._topic!r} to read: {problem.str()}")

    def read(self, wait: bool) -> list[Record[Message]]:
        # A short wait even where the caller does not want any: joining a group takes a few rounds.
        messages = self._call(self._consumer.consume, AT_ONCE, WAIT_SECONDS if wait else 0.1)
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                self._ended.discard(message.partition())
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(message.partition())
            else:
                raise CatalogueError(error.str())
        if not records and self._error is not None:
            error, self._error = self._error, None
            raise CatalogueError(error.str())
        return records

    @property
    def at_end(self) -> bool:
        return bool(self._assigned) and self._assigned <= self._ended

    def lag(self) -> int | None:
        total = 0
        places = self._call(self._consumer.position, self._consumer.assignment())
        # A partition of which this process has read nothing has no position, but perhaps the group's.
        unread = [place for place in places if place.offset < 0]
        committed = self._call(self._consumer.committed, unread, timeout=_GIVE_UP_SECONDS) if unread else []
        for place in [*(place for place in places if place.offset >= 0), *committed]:
            low, high = self._call(self._consumer.get_watermark_offsets, place, cached=True)
            if high < 0:  # not heard of yet
                return None
            total += high - (place.offset if place.offset >= 0 else low)
        return max(total, 0)

    def close(self) -> None:
        self._consumer.close()

    def _acknowledge(self, records: Sequence[Record[Message]], rejected: Sequence[Rejected[Message]]) -> None:
        self._move(rejected)
        after: dict[tuple[str, int], int] = {}
        for message in (record.source for record in records):
            place = message.topic() or self._topic, message.partition() or 0
            after[place] = max(after.get(place, 0), (message.offset() or 0) + 1)
        if after:
            offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in after.items()]
            self._call(self._consumer.commit, offsets=offsets, asynchronous=False)

    @cached_property
    def _producer(self) -> Producer:
        return Producer(self._shared)

    def _move(self, rejected: Sequence[Rejected[Message]]) -> None:
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)

        for record, reason in rejected:
            headers = [("reason", reason.encode()), ("place", record.place.encode())]
            key, value = record.source.key(), record.source.value()
            self._call(self._producer.produce, self.rejected_name, value, key, headers=headers, on_delivery=delivered)
        left = self._producer.flush(_GIVE_UP_SECONDS) if rejected else 0
        if failed or left:
            raise CatalogueError(f"{self.rejected_name}: {failed[0].str() if failed else 'no answer'}")

    def _on_assign(self, consumer: Consumer, places: Iterable[TopicPartition]) -> None:
        self._assigned, self._ended = {place.partition for place in places}, set()

    def _on_revoke(self, consumer: Consumer, places: Iterable[TopicPartition]) -> None:
        self._assigned = set()

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._last:
            self._last = error.str().partition(" (after ")[0]
        if error.code() in _FATAL:
            self._error = error

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except KafkaException as error:
            raise CatalogueError(_reason(error)) from error


def _record(message: Message) -> Record[Message]:
    kind, milliseconds = message.timestamp()
    # With the time, since a topic that was made anew begins at 0 again.
    place = f"kafka {message.topic()} {message.partition()} {message.offset()} {milliseconds}"
    sent = milliseconds / 1000 if kind and milliseconds > 0 else time.time()
    return Record(None, message.value(), place, sent, message)


def _reason(error: BaseException) -> str:
    first = error.args[0] if error.args else error
    return str(first.str() if isinstance(first, KafkaError) else first)
