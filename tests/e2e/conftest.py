"""A shop of real items behind a real server process: what the end-to-end tests run against."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item, read_interactions, read_items
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.text.item_text import ItemText, Recipe
from seqrec.text.tokenizer import train_bpe
from tests.e2e.processes import Server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All start services; `make check` leaves them out. With --soak one may take two hours."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if config.getoption("--soak"):
                item.add_marker(pytest.mark.timeout(7200))


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to take the time that it takes."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def items(online_retail: Path) -> list[Item]:
    return read_items(online_retail / "items.jsonl.gz")


@pytest.fixture(scope="session")
def shoppers(online_retail: Path, items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The items and events of the first users of the bundled data, at most 15 events each."""
    folder = tmp_path_factory.mktemp("shoppers")
    events = read_interactions(online_retail / "interactions.csv.gz", {item.item_id for item in items})
    chosen: dict[str, list[tuple[str, Any]]] = {}
    for user, item_id, time in zip(events.user_ids, events.item_ids, events.timestamps.tolist(), strict=True):
        if user in chosen or len(chosen) < 60:
            chosen.setdefault(user, []).append((item_id, time))
    lines = [
        f"{user},{item_id},{time}" for user, had in chosen.items() for item_id, time in sorted(set(had), key=_time)[:15]
    ]
    there = {line.split(",")[1] for line in lines}
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n", encoding="utf-8")
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for item in items:
            if item.item_id in there:
                file.write(json.dumps({"item_id": item.item_id, "attributes": dict(item.attributes)}) + "\n")
    return folder / "items.jsonl", folder / "interactions.csv"


def _time(event: tuple[str, Any]) -> Any:
    return event[1]


@pytest.fixture(scope="session")
def recformer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, items: list[Item]) -> Path:
    """A checkpoint: that of --checkpoint, or a small Recformer with random weights, since nothing asks for quality."""
    given: Path | None = request.config.getoption("--checkpoint")
    if given is not None:
        return given.absolute()
    torch.manual_seed(0)
    text = ItemText(Recipe(("title",), 1, 16), train_bpe((str(item.attributes["title"]) for item in items), 1000))
    config = RecformerConfig(
        vocab_size=text.vocab_size,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        max_token_num=128,
        max_position_embeddings=130,
        mask_id=3,
    )
    model = Recformer(config, text)
    with torch.no_grad():  # vectors that differ, whatever the initialisation: [CLS] must see its tokens
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[1] ** -0.5 if "layers" in name else 0.1)
    path = tmp_path_factory.mktemp("recformer") / "checkpoint"
    save_checkpoint(path, "recformer", model)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Start servers; those that still run at the end are killed."""
    running: list[Server] = []

    def _start(home: Path) -> Server:
        server = Server(home, tmp_path / f"server-{len(running)}.log")
        running.append(server)
        return server.start()

    yield _start
    for server in running:
        server.kill()
