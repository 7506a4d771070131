"""A shop of real items behind a real server process: what the end-to-end tests run against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from seqrec.checkpoint import save_checkpoint
from seqrec.item_text import ItemText, Recipe
from seqrec.items import Item, read_items
from seqrec.models.recformer import Recformer, RecformerConfig
from seqrec.tokenizer import train_bpe
from tests.e2e.processes import Server


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to take the time that it takes."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def items(online_retail: Path) -> list[Item]:
    return read_items(online_retail / "items.jsonl.gz")


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
