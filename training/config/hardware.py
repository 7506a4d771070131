"""Settings that depend on the hardware: the tables [on.cpu] and [on.gpu] of a configuration."""

from __future__ import annotations

import logging
from typing import Any

import torch

from seqrec.errors import InputError

log = logging.getLogger(__name__)

KINDS = ("cpu", "gpu")


def resolve(table: dict[str, Any]) -> dict[str, Any]:
    """The table merged with its `[on.cpu]` or `[on.gpu]`, depending on its `device` or, if empty, on what torch finds.

    Raises InputError for other hardware names.
    """
    choices = table.get("on", {})
    if not isinstance(choices, dict) or not all(isinstance(choice, dict) for choice in choices.values()):
        raise InputError("tables are needed: [on.cpu], [on.gpu]", "on")
    for kind in choices:
        if kind not in KINDS:
            raise InputError(f"there are {', '.join(KINDS)}", f"on.{kind}")
    without = {name: value for name, value in table.items() if name != "on"}
    device = str(table.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    here = "gpu" if device.startswith("cuda") else "cpu"
    if here in choices:
        log.info("settings for a machine %s a GPU: %s", "with" if here == "gpu" else "without", _format(choices[here]))
    return _merge(without, choices.get(here, {}))


def _merge(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for name, value in other.items():
        inner = merged.get(name)
        merged[name] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _format(table: dict[str, Any], path: str = "") -> str:
    return ", ".join(
        _format(value, f"{path}{name}.") if isinstance(value, dict) else f"{path}{name} = {value}"
        for name, value in table.items()
    )
