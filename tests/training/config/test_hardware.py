from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec.errors import InputError
from training.config.hardware import resolve
from training.config.load import PRESETS, dump_config, load_config


def table(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


CHOICE = (
    "[joint]\nbatch_size = 8\n[on.gpu]\nseed = 2\n[on.gpu.joint]\nbatch_size = 64\n[on.cpu.text]\nvocab_size = 500\n"
)


@pytest.mark.parametrize(
    ("gpu", "batch_size", "others"), [(True, 64, {"seed": 2}), (False, 8, {"text": {"vocab_size": 500}})]
)
def test_settings_follow_the_hardware(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gpu: bool,
    batch_size: int,
    others: dict[str, Any],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    given = table(CHOICE)
    with caplog.at_level(logging.INFO):
        assert resolve(given) == {"joint": {"batch_size": batch_size}} | others
    assert given == table(CHOICE)
    said = "with a GPU: seed = 2, joint.batch_size = 64" if gpu else "without a GPU: text.vocab_size = 500"
    assert said in caplog.text


def test_the_device_asked_for_decides() -> None:
    assert resolve(table('device = "cuda"\n' + CHOICE))["joint"] == {"batch_size": 64}
    assert resolve(table('device = "cpu"\n' + CHOICE))["joint"] == {"batch_size": 8}


def test_an_override_comes_after_the_hardware(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('device = "cpu"\n[optimizer]\nmax_steps = 3\n[on.cpu.optimizer]\nmax_steps = 4\nchunk = 2\n')
    config = load_config(path, ["optimizer.chunk=5"])
    assert (config.optimizer.max_steps, config.optimizer.chunk) == (4, 5)
    assert "on" not in tomllib.loads(dump_config(config))


def test_other_hardware_is_refused() -> None:
    with pytest.raises(InputError, match=r"on\.tpu: there are cpu, gpu"):
        resolve(table("[on.tpu]\nseed = 1\n"))
    with pytest.raises(InputError, match=r"on: tables are needed"):
        resolve(table("on = 3\n"))


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("gpu", [False, True])
def test_every_preset_is_whole_on_either(monkeypatch: pytest.MonkeyPatch, path: Path, gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert load_config(path).stages
