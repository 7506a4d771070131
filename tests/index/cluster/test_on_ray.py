"""Ray computes the same bytes as one process, also if the job is killed and started again."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from index.build.reindex import Request, Result, make_snapshot
from index.catalogue.histories import Event
from index.catalogue.open import open_histories
from index.cluster.on_ray import Cluster, ray_workers
from index.cluster.workers import ThisProcess
from index.snapshot.snapshot import SnapshotStore
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item, read_items
from seqrec.encoder import load_model
from seqrec.errors import ClusterError, InputError
from seqrec.hybrid import cooccurrence
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, Pairs
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.settings import HybridSettings
from seqrec.models.hybrid import Hybrid
from seqrec.models.recformer.model import Recformer, RecformerConfig
from seqrec.text.item_text import ItemText, Recipe

ROOT = Path(__file__).parents[3]
WORDS = [f"{first}{second}{third}" for first in "bdklmnprst" for second in "aeiou" for third in "bdklmnprst"]
SETTINGS = HybridSettings(
    CooccurrenceSettings(window=4, half_life=50.0, origin=900.0, mass=700.0), last_text=0.8, dense=0.6, cold_boost=1.0
)
START_SECONDS = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install 'seqrec[ray]')"),
]


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Of all lengths, in the order of their ids; their texts repeat hardly a word."""
    chance = random.Random(7)
    return [
        Item(f"{row:05d}", {"title": " ".join(chance.choices(WORDS, k=chance.randrange(1, 24)))}) for row in range(3500)
    ]


@pytest.fixture(scope="module")
def checkpoints(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A transformer whose vectors depend in their last bits on what else is in a batch, alone and in a hybrid."""
    words = {word: row for row, word in enumerate(["<unk>", "title", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    torch.manual_seed(5)
    config = RecformerConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        intermediate_size=128,
        max_token_num=64,
        max_position_embeddings=66,
        mask_id=0,
    )
    dense = Recformer(config, ItemText(Recipe(("title",)), tokenizer)).eval()
    hybrid = Hybrid.of("recformer", dense, Vocabulary.of(items), ["title"], SETTINGS)
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(folder / "recformer", "recformer", dense)
    save_checkpoint(folder / "hybrid", "hybrid", hybrid)
    return {name: folder / name for name in ("recformer", "hybrid")}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two cores that outlives the jobs."""
    script = (
        "import logging, ray, sys\n"
        "ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL,"
        " _node_ip_address='127.0.0.1', _temp_dir=sys.argv[1])\n"
        "print(ray.get_runtime_context().gcs_address, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AUTH_MODE": "token",
            "AUTH_TOKEN": "5" * 64,
            "USAGE_STATS_ENABLED": "0",
            "worker_niceness": "0",
        }.items():
            patch.setenv(f"RAY_{name}", value)
        command = [sys.executable, "-c", script, folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as head:
            assert head.stdout is not None
            yield head.stdout.readline().strip()
            head.communicate()


def store_events(home: Path, items: list[Item]) -> None:
    chance = random.Random(3)
    with closing(open_histories(home)) as histories:
        for user in range(60):
            times = sorted(chance.uniform(0, 1000) for _ in range(12))
            histories.add([Event(f"u{user}", chance.choice(items[:300]).item_id, when) for when in times])


def parquet(folder: Path, items: list[Item]) -> Sequence[Item]:
    """The items, written to Parquet and read again."""
    table = pa.table(
        {"item_id": [item.item_id for item in items], "title": [item.attributes["title"] for item in items]}
    )
    pq.write_table(table, folder / "items.parquet")
    return read_items(folder / "items.parquet")


def files(home: Path, result: Result) -> dict[str, str]:
    """The sha256 of each file of a snapshot whose bytes are as its manifest says."""
    manifest = SnapshotStore(home).verify(result.manifest.snapshot_id).manifest
    return {name: record.sha256 for name, record in manifest.files.items()}


def test_items_of_a_file_and_of_the_log_get_the_bytes_of_one_process(
    address: str, checkpoints: dict[str, Path], items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first build imports the items of a file, the second encodes what the log has with another model."""
    monkeypatch.setattr(cooccurrence, "PAIRS_AT_ONCE", 2000)  # several blocks
    built: dict[str, list[dict[str, str]]] = {}
    for name, cluster in (("alone", None), ("ray", Cluster(address, actors=1))):
        home = tmp_path / name
        store_events(home, items)
        first = make_snapshot(home, Request(checkpoints["hybrid"], parquet(tmp_path, items), cluster=cluster))
        second = make_snapshot(home, Request(checkpoints["recformer"], cluster=cluster))
        assert first.manifest.count == second.manifest.count == len(items)
        built[name] = [files(home, first), files(home, second)]
        assert not (home / "shards").exists()
    assert built["ray"] == built["alone"]
    assert {"vectors.npy", "term_weights.npy", "pair_values.npy"} <= built["ray"][0].keys()


def test_finished_shards_are_not_computed_again(
    address: str,
    checkpoints: dict[str, Path],
    items: list[Item],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    encoder = load_model(checkpoints["recformer"])
    tokens = encoder.tokenize_items(items)
    batches = [list(tokens)[begin : begin + 1000] for begin in range(0, len(items), 1000)]
    batches.insert(2, [])  # nothing to encode in it: all vectors were known
    expected = list(ThisProcess(encoder).encode(batches))
    rows = np.random.default_rng(2).integers(0, 50, 600)
    pairs = Pairs(CooccurrenceSettings(window=3), rows.astype(np.int32), np.arange(0, 601, 20), np.ones(600), 50)
    pairs.events_at_once = 100
    assert len(list(pairs.bounds())) > 4

    def compute() -> str:
        caplog.clear()
        with ray_workers(Cluster(address, actors=1), encoder, tmp_path / "shards") as workers:
            found = list(workers.encode(batches))
            blocks = list(workers.count_blocks(pairs))
        assert [vectors.shape for vectors in found] == [vectors.shape for vectors in expected]
        assert all(one.tobytes() == other.tobytes() for one, other in zip(found, expected, strict=True))
        for one, other in zip(blocks, pairs.blocks(), strict=True):
            for name in ("data", "indices", "indptr"):
                assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
        return caplog.text

    text = compute()
    assert "Ray encodes by 1 actors, 1 threads each" in text
    assert "earlier run" not in text
    text = compute()
    assert "Ray encodes" not in text
    assert "4 results of an earlier run were not computed again" in text


def test_a_job_that_is_killed_leaves_no_process_and_ends_with_the_same_bytes_when_it_is_started_again(
    bag_of_words_checkpoint: Path, checkpoints: dict[str, Path], items: list[Item], tmp_path: Path
) -> None:
    make_snapshot(tmp_path / "ray", Request(bag_of_words_checkpoint, items))
    shutil.copytree(tmp_path / "ray", tmp_path / "alone")
    expected = files(tmp_path / "alone", make_snapshot(tmp_path / "alone", Request(checkpoints["recformer"])))
    home, temporary = tmp_path / "ray", tempfile.mkdtemp(prefix="t-", dir="/tmp")  # sockets need a short path
    command = [sys.executable, "-m", "seqrec", "reindex", "--home", str(home), "--ray", "local", "--actors", "1"]
    command += ["--checkpoint", str(checkpoints["recformer"])]
    environment = os.environ | {"TMPDIR": temporary}
    job = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert job.stderr is not None
    with job.stderr:
        deadline = time.monotonic() + START_SECONDS
        while len(list((home / "shards").glob("[0-9a-f]*.npz"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
            assert job.poll() is None, job.stderr.read()
        started = psutil.Process(job.pid).children(recursive=True)
        assert len(started) > 3
        job.send_signal(signal.SIGKILL)
        job.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert list(Path(temporary).iterdir()) == []
    finished = len(list((home / "shards").glob("[0-9a-f]*.npz")))
    assert 2 <= finished < 4

    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=250, check=True)
    assert f"{finished} results of an earlier run were not computed again" in ended.stderr
    # Nothing that Ray says reaches the terminal.
    lines = [line for line in ended.stderr.splitlines() if line]
    assert all(" INFO index." in line or "items/s" in line for line in lines), ended.stderr
    [_, manifest] = [SnapshotStore(home).open(name).manifest for name in SnapshotStore(home).list()]
    assert {name: record.sha256 for name, record in manifest.files.items()} == expected
    assert not (home / "shards").exists()
    assert list(Path(temporary).iterdir()) == []
    Path(temporary).rmdir()


def test_what_the_cluster_cannot_do_is_one_line(address: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    encoder = load_model(checkpoints["recformer"])
    for cluster, message in (
        (Cluster(address, actors=3), r"room for 2 actors of 1 cores each, not 3: it has 2 cores, 0 GPUs; OMP_NUM_THR"),
        (Cluster(address, gpus_per_actor=1), r"room for 0 actors of 1 cores and 1 GPUs each, not 1: it has 2 cores"),
        (Cluster("nowhere"), "ray: local or HOST:PORT of a Ray cluster, not 'nowhere'"),
    ):
        with pytest.raises(InputError, match=message), ray_workers(cluster, encoder, tmp_path):
            pass
    quantized = load_model(checkpoints["recformer"], precision="int8")
    on_gpus = ray_workers(Cluster(address, gpus_per_actor=0.5), quantized, tmp_path)
    with pytest.raises(InputError, match="int8 runs on the CPU"), on_gpus:
        pass
    away = ray_workers(Cluster("127.0.0.1:9"), encoder, tmp_path)
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at 127.0.0.1:9: "), away:
        pass


def test_an_error_of_an_actor_ends_the_job_in_one_line(
    address: str, checkpoints: dict[str, Path], items: list[Item], tmp_path: Path
) -> None:
    encoder = load_model(checkpoints["recformer"])
    tokens = list(encoder.tokenize_items(items[:10]))
    encoder.item_tower = "another"
    failed = pytest.raises(ClusterError, match="a process on the Ray cluster failed: the checkpoint was changed")
    with ray_workers(Cluster(address), encoder, tmp_path) as workers, failed:
        list(workers.encode([tokens]))
