"""The precision that a snapshot is served in."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch

from index.build.reindex import Request, make_snapshot
from index.catalogue.open import open_catalogue
from service.live.loader import Loader
from service.settings import Settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vnni", "wanted", "served"),
    [(True, None, "int8"), (False, None, "float32"), (False, "int8", "int8"), (True, "float32", "float32")],
)
def test_int8_is_chosen_only_where_it_is_faster(
    home: Path, monkeypatch: pytest.MonkeyPatch, vnni: bool, wanted: str | None, served: str
) -> None:
    made = make_snapshot(home, Request(precision="int8")).manifest
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    with closing(open_catalogue(home)) as catalogue:
        settings = Settings(home=home, precision=wanted)  # type: ignore[arg-type]
        state = Loader(settings, catalogue)(made.snapshot_id, None)
    assert made.precision == "int8"
    assert state.towers.encoder.precision == served
