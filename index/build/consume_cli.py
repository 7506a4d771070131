"""The command `seqrec consume`."""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from index.arguments import add_common
from index.build.consume import Consumed, StreamConsumer
from index.build.consume_redis import RedisConsumer, connect
from index.catalogue.base import Catalogue
from index.catalogue.open import REDIS_SCHEMES, location_of, open_catalogue, open_histories
from index.snapshot.publication import published
from index.snapshot.served import load_served_encoder
from seqrec.encoder import Encoder
from seqrec.errors import CatalogueError, InputError
from seqrec.runtime.arguments import Parser
from seqrec.runtime.threads import choose, use

log = logging.getLogger(__name__)

DEFAULT = "seqrec"
_RETRY_SECONDS = 1.0
_REPORT_SECONDS = 10.0
_ONCE_SECONDS = 60.0


def consume(argv: list[str]) -> None:
    parser = Parser(
        "seqrec consume",
        description="Store the items and events of a Redis stream or a Kafka topic, as a consumer of a group. An "
        "entry of a stream has a field `event` or `item` with the JSON of one event of POST /events or one item of "
        "POST /items; the value of a Kafka message is either of them. Each is stored at least once and counts once: an "
        "event without an event_id gets one from its place. What cannot be read is moved to STREAM:rejected or "
        "TOPIC.rejected with the reason. Stopped and started again, it continues; Ctrl-C stops it.",
    )
    parser.add_argument(
        "url",
        metavar="URL",
        help="redis://HOST:PORT/DB, which need not be that of SEQREC_REDIS_URL; or "
        "kafka://HOST:PORT/TOPIC?group=NAME, where further parameters are settings of librdkafka, such as "
        "security.protocol=SSL (needs the extra kafka)",
    )
    parser.add_argument("--stream", metavar="KEY", help=f"of Redis; default: {DEFAULT}")
    parser.add_argument("--group", metavar="NAME", help=f"of Redis, made if missing; default: {DEFAULT}")
    parser.add_argument(
        "--consumer",
        default=socket.gethostname(),
        metavar="NAME",
        help="one running process a name; default: the host's name. Entries of one that is gone for a minute go to "
        "others. For items run one consumer only (of Kafka: key messages by item), or an old state of an item may "
        "overwrite a new one",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="stop when the stream has been read to its end. Where it cannot be read, because the server does not "
        "answer, the stream is missing, or nothing arrives and there is no end either, fail within "
        f"{_ONCE_SECONDS:.0f} s; without --once it keeps trying",
    )
    parser.add_argument(
        "--metrics",
        type=int,
        metavar="PORT",
        help="serve what was stored, and the lag, to Prometheus on this port of 127.0.0.1; 0: any",
    )
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    add_common(parser)
    arguments = parser.parse_args(argv)
    open_consumer = _opener(arguments)
    use(choose())
    location = location_of(arguments.home)
    metrics = ConsumerMetrics(arguments.metrics)
    with (
        closing(open_catalogue(location)) as catalogue,
        closing(open_histories(location)) as histories,
        closing(metrics),
    ):
        model = _ServedModel(arguments.home, catalogue, arguments.device)
        total = reported = Consumed()
        consumer: StreamConsumer[Any] | None = None
        said = progress = time.monotonic()
        trouble = ""  # that was logged, and lasts
        try:
            while True:
                try:
                    if consumer is None:
                        consumer = open_consumer()
                    records = consumer.read(wait=not arguments.once)
                    if trouble:
                        log.info("reading again")
                        trouble = ""
                    if records:
                        total += consumer.apply(records, catalogue, histories, model)
                        progress = time.monotonic()
                    elif arguments.once and consumer.at_end:
                        total = replace(total, lag=consumer.lag())
                        break
                    elif arguments.once and time.monotonic() - progress > _ONCE_SECONDS:
                        raise CatalogueError(
                            f"nothing arrived for {_ONCE_SECONDS:.0f} s, and it is not read to its end"
                        )
                    metrics.set(total)
                except CatalogueError as error:
                    if arguments.once:
                        raise CatalogueError(f"{shown_url(arguments.url)}: {error}") from error
                    if str(error) != trouble:
                        trouble = str(error)
                        log.error("%s: %s; trying again until it works", shown_url(arguments.url), trouble)
                    if consumer is not None:
                        consumer.close()
                        consumer = None
                    time.sleep(_RETRY_SECONDS)
                if total != reported and time.monotonic() - said >= _REPORT_SECONDS:
                    said, reported = time.monotonic(), total
                    _print(total, arguments.json)
        finally:
            if consumer is not None:
                consumer.close()
        _print(total, arguments.json)


def _opener(arguments: argparse.Namespace) -> Callable[[], StreamConsumer[Any]]:
    """Raises InputError for a URL of another kind, and without the library that Kafka needs."""
    url = arguments.url
    if url.startswith(REDIS_SCHEMES):
        stream, group = arguments.stream or DEFAULT, arguments.group or DEFAULT
        connect(url).close()
        return lambda: RedisConsumer(connect(url), stream, group, arguments.consumer, existing=arguments.once)
    if not url.startswith("kafka://"):
        raise InputError(
            f"{shown_url(url)!r} is neither the URL of a Redis, such as redis://localhost:6379/0, nor of a topic of "
            "Kafka, such as kafka://localhost:9092/shop",
            "URL",
        )
    if arguments.stream or arguments.group:
        raise InputError("topic and group of Kafka are in its URL: kafka://HOST:PORT/TOPIC?group=NAME", "URL")
    try:
        from index.build.consume_kafka import KafkaConsumer, parse_url
    except ModuleNotFoundError:
        raise InputError("Kafka needs confluent-kafka; pip install 'seqrec[kafka]'", "URL") from None
    location = parse_url(url)
    return lambda: KafkaConsumer(location, arguments.consumer, existing=arguments.once)


def shown_url(url: str) -> str:
    """Without passwords: neither that of the user nor of parameters."""
    return re.sub(r"(//[^/@]*:)[^/@]*@", r"\1...@", re.sub(r"(password=)[^&]*", r"\1...", url))


class ConsumerMetrics:
    """Gauges for Prometheus, if there is a port."""

    def __init__(self, port: int | None) -> None:
        """Raises InputError if nothing can listen there."""
        self._server: Any = None
        self.registry = CollectorRegistry()
        texts = {
            "events": "Events stored since the start",
            "items": "Items stored since the start",
            "rejected": "Records that could not be read since the start",
            "lag": "Records of the stream that no consumer has read yet",
        }
        self._gauges = {
            name: Gauge(f"seqrec_consumer_{name}", text, registry=self.registry) for name, text in texts.items()
        }
        self._gauges["lag"].set(math.nan)
        if port is None:
            return
        try:
            self._server, _ = start_http_server(port, "127.0.0.1", self.registry)
            print(f"metrics at http://127.0.0.1:{self._server.server_port}/metrics", file=sys.stderr, flush=True)
        except (OSError, OverflowError) as error:
            raise InputError(f"cannot listen on port {port}: {error}", "--metrics") from None

    def set(self, done: Consumed) -> None:
        for name, gauge in self._gauges.items():
            value = getattr(done, name)
            gauge.set(math.nan if value is None else value)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _ServedModel:
    """The encoder of the model that is served, loaded when it is needed and again when another one is published."""

    def __init__(self, home: Path, catalogue: Catalogue, device: str | None) -> None:
        self._home, self._catalogue, self._device = home, catalogue, device
        self._snapshot: str | None = None
        self._encoder: Encoder | None = None

    def __call__(self) -> Encoder:
        snapshot = published(self._catalogue)
        if self._encoder is None or snapshot != self._snapshot:
            self._encoder = load_served_encoder(self._home, self._catalogue, self._device)
            self._snapshot = snapshot
        return self._encoder


def _print(done: Consumed, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(done)), flush=True)
        return
    lag = "" if done.lag is None else f"; {done.lag:,} entries to read"
    rejected = f", {done.rejected:,} rejected" if done.rejected else ""
    print(f"{done.events:,} events and {done.items:,} items stored{rejected}{lag}", flush=True)
