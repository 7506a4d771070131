"""The saved state of an unfinished training: written atomically, and read when the run is resumed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrec.data.files import new_file
from seqrec.errors import CheckpointError

FORMAT = 1

State = dict[str, Any]
"""Numbers, strings, tensors and containers of these; loading it executes no code."""


def save_state(path: Path, state: State) -> None:
    """Replaces the file atomically: after a crash it has the old state or the new one."""
    path.parent.mkdir(exist_ok=True)
    with new_file(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_state(path: Path) -> State:
    """Raises CheckpointError for a damaged file or another format."""
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises errors of many types
        raise CheckpointError(f"{path} cannot be read ({error}); --overwrite starts from the beginning") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} was written by another version of seqrec; --overwrite starts from the beginning")
    return state


def seed_everything(seed: int) -> None:
    """Two runs with the same seed, threads, limits in steps and machine give the same weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> State:
    """The state of every random generator that training uses in this process."""
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
