"""`seqrec demo`: `seqrec up` on the bundled purchases. All files are in SEQREC_HOME/demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from seqrec.errors import SeqrecError
from seqrec.runtime.arguments import Parser
from seqrec.shop.project import FILE, read_project
from seqrec.shop.up import up

_PLACES = (Path(__file__).parent / "demo_data", Path(__file__).parents[1] / "data" / "online-retail")
"""In a wheel (setup.py), and in a clone."""
DATA = next((folder for folder in _PLACES if folder.is_dir()), _PLACES[1])


def main(argv: Sequence[str]) -> None:
    """Raises SeqrecError without the repository's data; InputError for a used port."""
    parser = Parser(
        prog="seqrec demo",
        description="Train a hybrid model on the bundled purchases, evaluate it, index the items and serve them: "
        "`seqrec up` with the shop.toml of the bundled data, from any directory.",
        epilog="Environment variables: SEQREC_HOME (./var): files are in its folder demo; SEQREC_HOST (127.0.0.1) and "
        "SEQREC_PORT (8000): the address of the service.",
    )
    parser.add_argument("--fresh", action="store_true", help="repeat all stages, also those that are up to date")
    options = parser.parse_args(argv)
    for name in ("items.jsonl.gz", "interactions.csv.gz", FILE):
        if not (DATA / name).is_file():
            raise SeqrecError(
                f"{DATA / name} does not exist: this installation is incomplete. "
                "For your own data: seqrec init --items FILE --events FILE, then seqrec up"
            )
    os.environ["SEQREC_HOME"] = str(Path(os.environ.get("SEQREC_HOME") or "var") / "demo")
    up(read_project(DATA / FILE), options.fresh)
