"""The command `seqrec sync`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from index.arguments import add_common
from index.build.sync import MAX_GONE, sync
from index.catalogue.open import location_of, open_catalogue
from index.snapshot.served import load_served_encoder
from seqrec.cli import SHOP_LIBRARIES
from seqrec.data.item_table import read_any_items
from seqrec.data.items import Item, OnError
from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import StageBars
from seqrec.runtime.threads import choose, use
from seqrec.shop.project import find_project


def sync_items(argv: list[str]) -> None:
    parser = Parser(
        "seqrec sync",
        description="Bring the catalogue to the state of a full export: items that are new are created, those that "
        "changed are updated, those that the file lacks become unavailable (they are kept for histories, and come back "
        "when they are in the file again). The service may run; its next answers have the changes. A text that has not "
        "changed is not encoded again. To change prices or stock alone, PATCH /items is enough.",
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="next to a shop.toml: an export with the columns of its [items]; by default the file that it names. "
        "Otherwise JSON Lines as for `seqrec index build`, or CSV with a column item_id, whose other columns are "
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
        help="skip: leave out items without text, and count them; default: skip for what shop.toml reads, as "
        "`seqrec up` does, else raise",
    )
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    add_common(parser)
    arguments = parser.parse_args(argv)
    items, usual = _items(arguments.file)
    on_error = arguments.on_error or usual
    use(choose())
    with closing(open_catalogue(location_of(arguments.home))) as catalogue, catalogue.lease("sync"):
        encoder = load_served_encoder(arguments.home, catalogue, arguments.device)
        most = 1.0 if arguments.allow_gone else MAX_GONE
        with StageBars(unit=" items") as bars:
            done = sync(catalogue, encoder, items, on_error, most, lambda at, of: bars("sync", at, of))
    if arguments.json:
        print(json.dumps(asdict(done)))
        return
    left_out = f", {done.left_out:,} without text left out" if done.left_out else ""
    print(
        f"{done.created:,} items created, {done.updated:,} updated, {done.unchanged:,} unchanged, {done.gone:,} gone "
        f"(unavailable now){left_out}"
    )


def _items(file: Path | None) -> tuple[list[Item], OnError]:
    """The items, and what to do with those without text unless the command says so."""
    project = find_project()
    if project is not None and all(find_spec(name) for name in SHOP_LIBRARIES):
        # Here, because they need the libraries of the extra `shop`.
        from seqrec.data.tables.base import TableOptions
        from seqrec.data.tables.open import open_table
        from seqrec.shop.imported import read_feed

        columns = () if file is None else open_table(str(file), TableOptions(), "items").columns
        if "item_id" not in columns or project.config.items.id in columns:
            return read_feed(project, file), "skip"
    if file is None:
        raise InputError("name the export; only where there is a shop.toml it can be left out", "FILE")
    return read_any_items(file), "raise"
