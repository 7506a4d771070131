"""What tests of every package share: the bundled data, a small catalogue, a checkpoint that costs no training."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Models in tests are tiny, and a machine that runs tests is often busy: two threads can be ten times as slow there
# as one (OpenMP waits for a thread that has no core). It is read when torch is imported; processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl-C ignored, and so would be the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item, make_item
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from tests.milvus_server import MilvusServer

ROOT = Path(__file__).parents[1]

TINY = [
    ("desk-1", {"title": "Oak desk", "brand": "Acme", "price": 120}),
    ("desk-2", {"title": "Pine desk", "brand": "Acme", "price": 80}),
    ("lamp-1", {"title": "Desk lamp brass", "brand": "Lumen", "price": 30.5}),
    ("lamp-2", {"title": "Floor lamp brass", "brand": "Lumen", "price": 60}),
    ("mug-1", {"title": "Tea mug blue", "brand": "Potter", "tags": ["kitchen", "gift"]}),
    ("mug-2", {"title": "Tea mug red", "brand": "Potter", "tags": ["kitchen"]}),
    ("pot/1", {"title": "Tea pot blue", "brand": "Potter"}),
    ("ערב", {"title": "ספל תה", "brand": "🫖"}),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the proofs of tests/e2e long, with other random numbers")
    parser.addoption("--console", metavar="URL", help="run tests/e2e/console with the service at URL")
    parser.addoption("--pictures", action="store_true", help="make docs/images/console*.png with tests/e2e/console")
    parser.addoption("--checkpoint", type=Path, help="run tests/e2e with this model, not a small untrained one")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """The bundled data set: items.jsonl.gz and interactions.csv.gz."""
    return ROOT / "data" / "online-retail"


@pytest.fixture
def tiny_items() -> list[Item]:
    """Eight items: pairs that share words, an id with a slash, one in Hebrew."""
    return [make_item(item_id, attributes) for item_id, attributes in TINY]


@pytest.fixture
def items_file(tmp_path: Path, tiny_items: list[Item]) -> Path:
    path = tmp_path / "items.jsonl"
    lines = [json.dumps({"item_id": item.item_id, "attributes": dict(item.attributes)}) for item in tiny_items]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bag_of_words_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of the model without weights. Read only: several tests share it."""
    path = tmp_path_factory.mktemp("bag_of_words") / "checkpoint"
    save_checkpoint(path, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=32)))
    return path


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own SEQREC_* settings reach no test. Requests have more time than by default, on a busy machine."""
    for name in [name for name in os.environ if name.startswith("SEQREC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SEQREC_DEADLINE", "10")


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A running server; whoever kills it starts it again."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()
