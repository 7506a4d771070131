"""The command `seqrec sync`."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from index.arguments import add_common
from index.build.sync import MAX_GONE, sync
from index.catalogue.open import location_of, open_catalogue
from index.snapshot.served import load_served_encoder
from seqrec.data.item_table import read_any_items
from seqrec.runtime.progress import StageBars
from seqrec.runtime.threads import choose, use


def sync_items(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec sync",
        description="Bring the catalogue to the state of a full export: items that are new are created, those that "
        "changed are updated, those that the file lacks become unavailable (they are kept for histories, and come back "
        "when they are in the file again). The service may run, and answers with it at once. A text that has not "
        "changed is not encoded again. To change prices or stock alone, PATCH /items is enough.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="JSON Lines as for `seqrec index build`, or CSV with a column item_id, whose other columns are "
        "attributes; .gz too. Every line must be readable",
    )
    parser.add_argument(
        "--allow-gone",
        action="store_true",
        help=f"also if more than {MAX_GONE:.0%}% of the available items are not in the file",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave out items without text, and count them; default: raise",
    )
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    add_common(parser)
    arguments = parser.parse_args(argv)
    items = read_any_items(arguments.file)
    use(choose())
    with closing(open_catalogue(location_of(arguments.home))) as catalogue, catalogue.lease("sync"):
        encoder = load_served_encoder(arguments.home, catalogue, arguments.device)
        most = 1.0 if arguments.allow_gone else MAX_GONE
        with StageBars(unit=" items") as bars:
            done = sync(catalogue, encoder, items, arguments.on_error, most, lambda at, of: bars("sync", at, of))
    if arguments.json:
        print(json.dumps(asdict(done)))
        return
    left_out = f", {done.left_out:,} without text left out" if done.left_out else ""
    print(
        f"{done.created:,} items created, {done.updated:,} updated, {done.unchanged:,} unchanged, {done.gone:,} gone "
        f"(unavailable now){left_out}"
    )
