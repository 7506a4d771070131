"""`seqrec demo`: `seqrec up` on the bundled purchases. All files are in SEQREC_HOME/demo."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from seqrec.errors import SeqrecError
from seqrec.shop.project import FILE, read_project
from seqrec.shop.up import up

DATA = Path(__file__).parents[1] / "data" / "online-retail"


def main(argv: Sequence[str]) -> None:
    """Raises SeqrecError without the repository's data; InputError for a used port."""
    parser = argparse.ArgumentParser(
        prog="seqrec demo",
        description="Train a hybrid model on the bundled purchases, evaluate it, index the items and serve them: "
        "`seqrec up` with data/online-retail/shop.toml.",
        epilog="Environment variables: SEQREC_HOME (./var): files are in its folder demo; SEQREC_HOST (127.0.0.1) and "
        "SEQREC_PORT (8000): the address of the service.",
    )
    parser.add_argument("--fresh", action="store_true", help="repeat all stages, also those that are up to date")
    options = parser.parse_args(argv)
    for name in ("items.jsonl.gz", "interactions.csv.gz", FILE):
        if not (DATA / name).is_file():
            raise SeqrecError(
                f"{DATA / name} does not exist: the demo needs a clone of the repository, which contains its data. "
                "For your own data: seqrec init --items FILE --events FILE, then seqrec up"
            )
    os.environ["SEQREC_HOME"] = str(Path(os.environ.get("SEQREC_HOME") or "var") / "demo")
    up(read_project(DATA / FILE), options.fresh)
