"""The command `seqrec consume`."""

from __future__ import annotations

import argparse
import json
import logging
import socket
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import redis

from index.arguments import add_common
from index.build.consume import Consumed, StreamConsumer
from index.catalogue.base import Catalogue
from index.catalogue.open import REDIS_SCHEMES, location_of, open_catalogue, open_histories
from index.snapshot.publication import published
from index.snapshot.served import load_served_encoder
from seqrec.encoder import Encoder
from seqrec.errors import CatalogueError, InputError
from seqrec.runtime.threads import choose, use

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_REPORT_SECONDS = 10.0


def consume(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec consume",
        description="Store the items and events that come on a Redis stream, as a consumer of a group. An entry has a "
        "field `event` or `item` with the JSON of one event of POST /events or one item of POST /items. Each is stored "
        "at least once and counts once: an event without an event_id gets one from its entry. What cannot be read is "
        "moved to STREAM:rejected with the reason. Stopped and started again, it continues; Ctrl-C stops it.",
    )
    parser.add_argument("url", metavar="URL", help="redis://HOST:PORT/DB; it need not be that of SEQREC_REDIS_URL")
    parser.add_argument("--stream", default="seqrec", metavar="KEY", help="default: %(default)s")
    parser.add_argument("--group", default="seqrec", metavar="NAME", help="made if missing; default: %(default)s")
    parser.add_argument(
        "--consumer",
        default=socket.gethostname(),
        metavar="NAME",
        help="one running process a name; default: the host's name. Entries of one that is gone for a minute go to "
        "others. For items run one consumer only, or an old state of an item may overwrite a new one",
    )
    parser.add_argument("--once", action="store_true", help="stop when the stream has been read to its end")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    add_common(parser)
    arguments = parser.parse_args(argv)
    if not arguments.url.startswith(REDIS_SCHEMES):
        raise InputError(f"{arguments.url!r} is not the URL of a Redis, such as redis://localhost:6379/0", "URL")
    use(choose())
    location = location_of(arguments.home)
    with closing(open_catalogue(location)) as catalogue, closing(open_histories(location)) as histories:
        model = _ServedModel(arguments.home, catalogue, arguments.device)
        total = reported = Consumed()
        consumer: StreamConsumer | None = None
        said = time.monotonic()
        while True:
            try:
                if consumer is None:
                    client = redis.Redis.from_url(arguments.url)
                    consumer = StreamConsumer(client, arguments.stream, arguments.group, arguments.consumer)
                entries = consumer.read(wait=not arguments.once)
                if not entries and arguments.once:
                    break
                if entries:
                    total += consumer.apply(entries, catalogue, histories, model)
            except (redis.RedisError, CatalogueError) as error:
                if arguments.once:
                    raise CatalogueError(f"{arguments.url}: {error}") from error
                log.error("trying again: %s", error)
                consumer = None
                time.sleep(_RETRY_SECONDS)
            if total != reported and time.monotonic() - said >= _REPORT_SECONDS:
                said, reported = time.monotonic(), total
                _print(total, arguments.json)
        _print(total, arguments.json)


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
