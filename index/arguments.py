"""Command-line options that the commands of index share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_common(parser: argparse.ArgumentParser) -> None:
    home = Path(os.environ.get("SEQREC_HOME") or "var")
    parser.add_argument("--home", type=Path, default=home, metavar="DIR", help="default: SEQREC_HOME, else ./var")
    parser.add_argument("--json", action="store_true", help="print JSON")
