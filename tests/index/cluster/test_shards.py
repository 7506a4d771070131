from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.cluster.shards import Shards


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "shards")
    assert shards.read("a") is None
    arrays = {"vectors": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 4))}
    shards.write("a", arrays)
    found = shards.read("a")
    assert found is not None
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["a.npz"]
    shards.remove()
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_shard_is_none(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    shards = Shards(tmp_path)
    shards.write("a", {"vectors": np.random.default_rng(1).random((1000, 8))})
    path = tmp_path / "a.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "cut": content[:-100], "empty": b""}[damage])
    assert shards.read("a") is None
    assert f"{path} is damaged and is computed again" in caplog.text
