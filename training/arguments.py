"""Options that several commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_data(parser: argparse.ArgumentParser) -> None:
    """--items, --interactions, --on-error: what `training.data.read_dataset` is called with."""
    parser.add_argument("--items", type=Path, required=True, metavar="FILE", help="JSON Lines, .gz too")
    parser.add_argument(
        "--interactions",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV (.gz too) or Parquet: user_id, item_id, timestamp",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave broken lines, unknown items and items without text out, and count them; default: raise",
    )
