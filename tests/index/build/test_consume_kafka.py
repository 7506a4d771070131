"""Messages of a topic are stored at least once and count once, whoever dies on the way.

The server is the mock cluster within librdkafka: the protocol, groups and offsets of Kafka, in this process.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("confluent_kafka")
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from index.build.consume import Consumed, Record, parsed
from index.build.consume_cli import consume
from index.build.consume_kafka import KafkaConsumer, parse_url
from index.catalogue.histories import HistoryStore
from index.catalogue.open import open_catalogue, open_histories
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from seqrec.encoder import Encoder
from seqrec.errors import CatalogueError, InputError
from tests.index.conftest import Build

pytestmark = pytest.mark.slow
QUICK = "&session.timeout.ms=6000&heartbeat.interval.ms=500"


@dataclass
class Topic:
    servers: str
    producer: Producer
    name: str

    @property
    def url(self) -> str:
        return f"kafka://{self.servers}/{self.name}?group=shop{QUICK}"

    def send(self, value: object, key: str = "") -> None:
        text = value if isinstance(value, bytes | None) else json.dumps(value)
        self.producer.produce(self.name, text, key)

    def event(self, item_id: str, **more: Any) -> None:
        self.send({"user_id": "u", "item_id": item_id, **more}, "u")

    def consumer(self) -> KafkaConsumer:
        self.producer.flush()
        return KafkaConsumer(parse_url(self.url), "test")


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, Producer]]:
    producer = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1})
    [broker] = producer.list_topics(timeout=30).brokers.values()
    yield f"{broker.host}:{broker.port}", producer
    producer.flush(10)


@pytest.fixture
def topic(cluster: tuple[str, Producer]) -> Topic:
    return Topic(*cluster, f"topic-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def histories(home: Path) -> Iterator[HistoryStore]:
    with closing(open_histories(home)) as store:
        yield store


def read(consumer: KafkaConsumer, count: int) -> list[Record[Message]]:
    found: list[Record[Message]] = []
    while len(found) < count:
        found += consumer.read(wait=True)
    return found


def items(histories: HistoryStore) -> Sequence[str]:
    return [event.item_id for event in histories.recent("u", 10_000)]


def test_a_killed_consumer_s_messages_are_stored_once(
    topic: Topic, catalogue: SqliteCatalogue, histories: HistoryStore, encoder: Encoder
) -> None:
    topic.event("a", timestamp=1, type="view", value=2)
    topic.event("b", timestamp=2, event_id="mine")
    topic.send({"item_id": "kite", "attributes": {"title": "Paper kite"}})
    topic.event("c")
    first = topic.consumer()
    records = read(first, 4)
    histories.add(parsed(records).events)  # it stores, and dies before it can commit
    first.close()
    again = topic.consumer()
    done = again.apply(read(again, 4), catalogue, histories, lambda: encoder)
    again.close()
    assert done == Consumed(events=0, items=1, rejected=0, lag=0)
    stored = histories.recent("u", 9)
    assert [(e.item_id, e.type, e.value) for e in stored] == [("a", "view", 2.0), ("b", "", None), ("c", "", None)]
    assert stored[-1].timestamp > 1.7e9, "when its message was sent"
    assert catalogue.get("kite") is not None


def test_what_fails_to_be_stored_comes_again(
    topic: Topic,
    catalogue: SqliteCatalogue,
    histories: HistoryStore,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic.event("a", timestamp=1)
    consumer = topic.consumer()
    records = read(consumer, 1)

    def full(events: Any) -> int:
        raise CatalogueError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(histories, "add", full)
        with pytest.raises(CatalogueError):
            consumer.apply(records, catalogue, histories, lambda: encoder)
    consumer.close()
    again = topic.consumer()
    assert again.apply(read(again, 1), catalogue, histories, lambda: encoder).events == 1
    again.close()


def test_what_cannot_be_read_is_moved_with_the_reason(
    topic: Topic, catalogue: SqliteCatalogue, histories: HistoryStore, encoder: Encoder
) -> None:
    for value in (b"{", b"\xff", None, {"item_id": "x", "colour": "red"}):
        topic.send(value, "key")
    topic.send({"item_id": "mute", "attributes": {"title": "!!"}})
    topic.event("desk", timestamp=3)
    consumer = topic.consumer()
    done = consumer.apply(read(consumer, 6), catalogue, histories, lambda: encoder)
    consumer.close()
    assert (done.events, done.items, done.rejected) == (1, 0, 5)
    rejected = Consumer({"bootstrap.servers": topic.servers, "group.id": "r", "auto.offset.reset": "earliest"})
    places = rejected.list_topics(f"{topic.name}.rejected", timeout=30).topics[f"{topic.name}.rejected"].partitions
    rejected.assign([TopicPartition(f"{topic.name}.rejected", partition, 0) for partition in places])
    reasons: list[str] = []
    while len(reasons) < 5:
        message = rejected.poll(1.0)
        if message is not None and message.error() is None:
            headers: Any = dict(message.headers() or [])
            assert headers["place"].startswith(f"kafka {topic.name} ".encode())
            reasons.append(headers["reason"].decode())
    rejected.close()
    assert {"colour: unknown field", "the model finds no text in it", "there is neither an event nor an item"} <= set(
        reasons
    )


def test_the_command_reads_to_the_end_and_continues(
    topic: Topic, home: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    build()
    argv = [topic.url, "--home", str(home), "--once"]
    for n in range(1500):
        topic.event(f"i{n}", timestamp=n)
    for key in "abcdefgh":  # in all partitions
        topic.send({"item_id": f"kite-{key}", "attributes": {"title": "Paper kite"}}, key)
    topic.producer.flush()
    consume(argv)
    assert capsys.readouterr().out == "1,500 events and 8 items stored; 0 entries to read\n"
    topic.event("late", timestamp=5000)
    topic.producer.flush()
    consume([*argv, "--json"])
    assert json.loads(capsys.readouterr().out) == {"events": 1, "items": 0, "rejected": 0, "lag": 0}


def test_a_killed_process_loses_nothing_and_counts_nothing_twice(topic: Topic, home: Path, build: Build) -> None:
    build()
    command = [sys.executable, "-m", "seqrec", "consume", topic.url, "--home", str(home)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--metrics", "0"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(line for line in process.stderr if line.startswith("metrics at ")).split()[-1]
        sent = 0
        with closing(open_histories(home)) as histories:
            while not items(histories):
                topic.event(f"i{sent}", timestamp=sent)
                sent += 1
                topic.producer.flush()
                assert process.poll() is None
                time.sleep(0.01)
            gauges = ""
            while not re.search(r"^seqrec_consumer_events [1-9]", gauges, re.MULTILINE):
                gauges = urlopen(url).read().decode()
            assert re.search(r"^seqrec_consumer_lag \d", gauges, re.MULTILINE)
            for _ in range(3000):
                topic.event(f"i{sent}", timestamp=sent)
                sent += 1
            process.send_signal(signal.SIGKILL)
            process.wait()
            topic.producer.flush()
            subprocess.run([*command, "--once"], check=True)
            assert items(histories) == [f"i{n}" for n in range(sent)]
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_is_away_is_one_line(
    home: Path, build: Build, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("index.build.consume_kafka.ANSWER_SECONDS", 1.0)
    build()
    shown = r"kafka://127\.0\.0\.1:1/shop\?sasl\.password=\.\.\.: no broker answers within 1 s \(.*Connection refused\)"
    with pytest.raises(CatalogueError, match=shown):
        consume(["kafka://127.0.0.1:1/shop?sasl.password=secret", "--home", str(home), "--once"])
    assert "FAIL" not in capfd.readouterr().err  # librdkafka's own lines, one for each attempt
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(CatalogueError, match="no broker answers within 1 s"),
    ):
        consume([f"kafka://127.0.0.1:{silent.getsockname()[1]}/shop", "--home", str(home), "--once"])


def test_a_topic_that_is_missing(topic: Topic, home: Path, build: Build) -> None:
    build()
    with pytest.raises(CatalogueError, match=f"there is no topic '{topic.name}' to read: .*Unknown topic"):
        consume([topic.url, "--home", str(home), "--once"])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("kafka://host:9092", "is not kafka://HOST:PORT/TOPIC"),
        ("kafka:///topic", "is not kafka://HOST:PORT/TOPIC"),
        ("kafka://host:9092/topic?group.id=x", "group.id is set by seqrec"),
        ("kafka://host:9092/topic?no.such=x", "No such configuration property"),
    ],
)
def test_urls_that_cannot_be_used(url: str, reason: str, home: Path, build: Build) -> None:
    build()
    with pytest.raises(InputError, match=reason):
        consume([url, "--home", str(home), "--once"])
    with closing(open_catalogue(home)):
        pass


def test_parameters_of_a_url() -> None:
    location = parse_url("kafka://a:1,b:2/my%20topic?group=g&security.protocol=SSL")
    assert (location.servers, location.topic, location.group) == ("a:1,b:2", "my topic", "g")
    assert location.settings == {"security.protocol": "SSL"}
