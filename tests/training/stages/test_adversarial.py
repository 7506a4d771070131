"""The stage that aligns users of several data sets: its batches, that it aligns them, and a run through it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seqrec.checkpoint import load_checkpoint
from seqrec.errors import InputError
from seqrec.models.recguru import RecGURU, RecGURUSettings
from seqrec.text.item_text import TokenizedHistory
from tests.training.conftest import write_world
from tests.training.engine.killing import train_and_die
from training.config.load import load_config
from training.config.schema import AdversarialConfig, OptimizerConfig
from training.config.validation import build
from training.engine.loop import adamw
from training.engine.run import train
from training.stages.adversarial import AdversarialStage

CPU = torch.device("cpu")
CONFIG = """
stages = ["adversarial", "sequence"]
seed = 3
device = "cpu"
threads = 1
save_minutes = 0.0
[model]
name = "recguru"
[model.settings]
dim = 8
heads = 2
layers = 1
inner = 8
max_length = 8
dropout = 0.1
[adversarial]
data = [{others}]
batch_size = 16
warmup_epochs = 1
[sequence]
batch_size = 16
[optimizer]
max_steps = 6
learning_rate = 0.01
[validation]
checks = 2
patience = 0
"""
"""Four batches an epoch, so every stage is in its second epoch when it ends."""


def planted(adversary: float, epochs: int = 40) -> tuple[RecGURU, AdversarialStage, list[float]]:
    """Three domains of users who go through ten items in steps of one or three, from anywhere; the first twenty of the
    last domain are users of the first, where they do the same. -> the model, the stage, its reconstruction by step"""
    torch.manual_seed(1)
    settings = RecGURUSettings(
        dim=32, layers=1, inner=32, max_length=8, dropout=0.0, alignment_negatives=9, discriminator=32
    )
    model = RecGURU.from_ids(settings, [f"item {n}" for n in range(10)], [], others=(10, 10))
    own = [model.item_ids.token(f"item {n}") for n in range(10)]
    domains = []
    for name, items, count in (("a", own, 80), ("b", model.other_items(1), 60), ("c", model.other_items(2), 100)):
        steps = [[(user + (1, 3)[user // 10 % 2] * step) % 10 for step in range(4 + user % 5)] for user in range(count)]
        names = [f"{'a' if name == 'c' and user < 20 else name} {user}" for user in range(count)]
        domains.append(
            [TokenizedHistory([items[n] for n in had], user_id) for had, user_id in zip(steps, names, strict=True)]
        )
    config = AdversarialConfig(batch_size=16, warmup_epochs=5, confusion_weight=adversary, overlap_weight=adversary)
    stage = AdversarialStage(domains, config, seed=1)
    optimizer = adamw(model, OptimizerConfig(max_epochs=1))
    losses = []
    model.train()
    for number in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - number / epochs)
        for batch in stage.epoch(number):
            loss, tokens = stage.loss(model, batch, CPU)
            assert tokens > 0
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(stage.parts["reconstruction"]))
    return model.eval(), stage, losses


def users_of(model: RecGURU, stage: AdversarialStage) -> list[torch.Tensor]:
    """The representations of each domain's users."""
    with torch.no_grad():
        return [model.represented(model.prepare_histories(sequences)) for sequences in stage.domains]


def told_apart(of_domain: list[torch.Tensor]) -> float:
    """How often a fresh linear probe, fitted to half of the users, says the domain of the others; by chance: 1 / 3."""
    users = torch.cat(of_domain)
    users = (users - users.mean(0)) / users.std()
    labels = torch.cat([torch.full((len(own),), domain) for domain, own in enumerate(of_domain)])
    fitted, held = torch.randperm(len(users), generator=torch.Generator().manual_seed(0)).chunk(2)
    weights = 1 / torch.bincount(labels).float()
    probe = torch.nn.Linear(users.shape[1], 3)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200)

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(users[fitted]), labels[fitted], weights) + 1e-2 * probe.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    right = (probe(users[held]).argmax(1) == labels[held]).float()
    return float(np.mean([right[labels[held] == domain].mean() for domain in range(3)]))


@pytest.mark.slow
def test_users_of_different_domains_become_alike_and_stay_users() -> None:
    without, stage, _ = planted(adversary=0.0)
    aligned, _, losses = planted(adversary=1.0)
    before, after = users_of(without, stage), users_of(aligned, stage)
    assert told_apart(before) > 0.6, "what is not hindered keeps domains apart"
    assert told_apart(after) < 0.5
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:3]), "and they still tell their sequences"

    def apart(users: list[torch.Tensor]) -> float:
        """Of the same users in two domains, by how far users of the two are from each other."""
        one, other = users[0][:20], users[2][:20]
        return float((one - other).norm(dim=1).mean() / (one[:, None] - other).norm(dim=2).mean())

    assert apart(before) > 0.7
    assert apart(after) < 0.2


def test_an_epoch_is_every_user_of_the_own_domain_and_as_many_of_the_others() -> None:
    _, stage, _ = planted(adversary=1.0, epochs=0)
    epochs = [list(stage.epoch(number)) for number in (3, 3, 4, 5)]
    assert stage.steps_per_epoch == len(epochs[0]) == 5
    names = [[[str(s.user_id) for b in epoch for s in b.domains[k]] for k in range(3)] for epoch in epochs]
    assert names[0] == names[1]
    assert names[0] != names[2]
    assert sorted(names[0][0]) == sorted(str(sequence.user_id) for sequence in stage.domains[0])
    assert all(len(users) == 80 for users in names[0])
    assert len(set(names[0][1])) == 60, "all before one comes again"
    for batch in epochs[0]:
        assert not batch.twins[0].any()
        own, other = ([str(sequence.user_id) for sequence in batch.domains[k]] for k in (0, 2))
        assert batch.twins[1].tolist() == [int(name.split()[1]) < 20 for name in own]
        assert [name for name, twin in zip(other, batch.twins[1], strict=True) if twin] == [
            name for name, twin in zip(own, batch.twins[1], strict=True) if twin
        ]
    assert [batch.confused for epoch in epochs for batch in epoch] == [False] * 15 + [True] * 5
    stage = AdversarialStage(stage.domains, replace(stage.config, overlap_weight=0.0), seed=1)
    assert not any(batch.twins.any() for batch in stage.epoch(0))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Of equal item ids; users of different ones, but for the first."""
    made = []
    for number, (users, events) in enumerate(((60, 12), (30, 8), (45, 9))):
        folder = tmp_path / f"data {number}"
        folder.mkdir()
        write_world(folder, users, events)
        if number:
            path = folder / "interactions.csv"
            path.write_text(path.read_text().replace("\nu", f"\n{number}u").replace(f"\n{number}u0,", "\nu0,"))
        made.append(folder)
    return made


def config_of(folder: Path, others: list[Path]) -> Path:
    path = folder / "run.toml"
    path.write_text(CONFIG.replace("{others}", ", ".join(json.dumps(str(other)) for other in others)))
    return path


def run(path: Path, folder: Path, out: Path, *changes: str) -> dict[str, Any]:
    train(load_config(path, changes), folder / "items.jsonl", folder / "interactions.csv", out)
    about: dict[str, Any] = json.loads((out / "run.json").read_text())
    return about


@pytest.mark.slow
def test_a_run_is_of_its_own_items_and_going_on_ends_the_same(folders: list[Path], tmp_path: Path) -> None:
    own, *others = folders
    config = config_of(tmp_path, others)
    about = run(config, own, tmp_path / "run")
    before, after = about["by_stage"]
    assert (before["stage"], before["steps"], before["best_step"]) == ("adversarial", 6, 6)
    assert after["stage"] == "sequence"
    assert len(about["data_digest"].split(",")) == 3
    model = load_checkpoint(tmp_path / "run" / "checkpoint").history_model
    assert isinstance(model, RecGURU)
    assert (model.known.items, list(model.known.others), len(model.items.weight)) == (30, [], 31)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    parts = [line for line in lines if line["kind"] == "step" and line["stage"] == "adversarial"]
    assert {"reconstruction", "discriminator", "confusion", "overlap"} <= parts[0].keys()

    files = own / "items.jsonl", own / "interactions.csv"
    out = tmp_path / "killed"
    deaths = [
        (
            "training.stages.adversarial:AdversarialStage.loss",
            6,
        ),  # in the second epoch, when users begin to be confused
        ("training.stages.sequence:SequenceStage.loss", 1),  # between the stages, other domains forgotten
        ("training.stages.sequence:SequenceStage.loss", 5),
    ]
    for at, call in deaths:
        assert train_and_die(at, call, config, *files, out) == -9, at
    with pytest.raises(InputError, match=r"adversarial\.data is .* and was"):
        run(config, own, out, "adversarial.data=[]")
    assert run(config, own, out)["checkpoint_digest"] == about["checkpoint_digest"]


@pytest.mark.slow
def test_one_data_set_alone(folders: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An autoencoder, without anything to align."""
    assert run(config_of(tmp_path, []), folders[0], tmp_path / "run")["state"] == "done"
    assert "adversarial.data names no other data set" in caplog.text


def test_what_cannot_be_aligned_is_refused(folders: list[Path], tmp_path: Path) -> None:
    own = folders[0]
    with pytest.raises(InputError, match=r"adversarial\.data: a data set is listed twice"):
        run(config_of(tmp_path, [own]), own, tmp_path / "run")
    settings = CONFIG[CONFIG.index("[model.settings]") : CONFIG.index("[adversarial]")]
    other = tmp_path / "gru.toml"
    other.write_text(CONFIG.replace(settings, "").replace("recguru", "gru4rec").replace("{others}", ""))
    with pytest.raises(InputError, match="gru4rec does not align data sets; leave the stage out"):
        run(other, own, tmp_path / "run")
    with pytest.raises(InputError, match="nowhere is not a folder with items"):
        run(config_of(tmp_path, [tmp_path / "nowhere"]), own, tmp_path / "run")
    with pytest.raises(InputError, match=r"adversarial\.warmup_epochs: -1 is below 0"):
        build(AdversarialConfig, {"warmup_epochs": -1}, "adversarial.")
