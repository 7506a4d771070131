"""The state of a training that was stopped: written whole or not at all, and read by the run that goes on from it."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrec.data.files import fsync_directory
from seqrec.errors import CheckpointError

FORMAT = 1

State = dict[str, Any]
"""Numbers, strings, tensors and containers of them; read without running code from the file."""


def save_state(path: Path, state: State) -> None:
    """Replace the file at once: whoever reads it, after a crash as well, sees the old state or the new one."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path) -> State:
    """Raises CheckpointError for a file that is no state."""
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the reader raise all sorts of errors
        raise CheckpointError(f"{path} cannot be read ({error}); --overwrite trains anew") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is of another version of seqrec; --overwrite trains anew")
    return state


def seed_everything(seed: int) -> None:
    """Two runs with the same seed, threads, limits in steps and machine give the same weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> State:
    """Of every generator that a training draws from in this process."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    return {
        "python": random.getstate(),
        "numpy": [
            numpy["state"]["key"].tolist(),
            *(numpy[name] for name in ("has_gauss", "gauss")),
            numpy["state"]["pos"],
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    key, has_gauss, gauss, position = state["numpy"]
    version, numbers, gauss_next = state["python"]
    random.setstate((version, tuple(numbers), gauss_next))
    np.random.set_state(("MT19937", np.array(key, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
