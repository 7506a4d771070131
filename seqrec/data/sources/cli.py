"""`seqrec import` and `seqrec export`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from pkgutil import resolve_name

from seqrec.data.items import read_interactions, read_items
from seqrec.data.sources.amazon import ATTRIBUTES, PAPER_ATTRIBUTES, AmazonSource
from seqrec.data.sources.base import Source
from seqrec.data.sources.dataset import Filters, Imported, import_dataset
from seqrec.data.sources.movielens import MovieLensSource
from seqrec.data.sources.recbole import RecBoleFields, RecBoleSource, export_recbole
from seqrec.data.sources.recformer import RecformerSource
from seqrec.data.timestamps import UNITS
from seqrec.runtime.arguments import Parser


def import_data(argv: list[str]) -> None:
    if argv[:1] == ["recformer"]:  # a checkpoint: loads torch, which the others do without
        resolve_name("seqrec.models.recformer.convert:main")(argv)
        return
    parser = Parser(
        "seqrec import",
        description="Convert data sets in other formats to items.jsonl and interactions.csv in a folder, and "
        "checkpoints of other code to seqrec's.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("recformer", help="a checkpoint of the Recformer authors' code", add_help=False)
    folder = kinds.add_parser("recformer-data", help="a data set's folder of the Recformer authors' code")
    folder.add_argument(
        "path", type=Path, metavar="DIR", help="with meta_data.json, smap.json, umap.json, train.json, ..."
    )
    recbole = kinds.add_parser("recbole", help="RecBole's atomic files, .inter and .item")
    recbole.add_argument("path", type=Path, metavar="PATH", help="the data set's folder, or its .inter file")
    own = RecBoleFields()
    recbole.add_argument("--user-field", default=own.user_id, help="the user's id (%(default)s)")
    recbole.add_argument("--item-field", default=own.item_id, help="the item's id (%(default)s)")
    recbole.add_argument("--time-field", default=own.timestamp, help="the event's time (%(default)s)")
    recbole.add_argument("--rating-field", default=own.rating, help="the rating, for --min-rating (%(default)s)")
    recbole.add_argument("--file-order", action="store_true", help="there are no times: use the order of the lines")
    recbole.add_argument(
        "--list-field", nargs="+", default=[], metavar="FIELD", help="token_seq fields that are lists, not one text"
    )
    amazon = kinds.add_parser("amazon", help="Amazon review dumps of 2014, 2018, 2023")
    amazon.add_argument("--reviews", type=Path, nargs="+", required=True, metavar="FILE", help="reviews or ratings")
    amazon.add_argument("--metadata", type=Path, nargs="+", default=[], metavar="FILE", help="the items' metadata")
    amazon.add_argument(
        "--columns",
        nargs=4,
        metavar="NAME",
        choices=("user", "item", "rating", "timestamp"),
        help="of CSV files without a header: user item rating timestamp (2014), item user rating timestamp (2018)",
    )
    movielens = kinds.add_parser("movielens", help="MovieLens, from 100K to the latest")
    movielens.add_argument("path", type=Path, metavar="DIR", help="the unpacked folder")
    for command in (folder, recbole, amazon, movielens):
        _add_filters(command, PAPER_ATTRIBUTES if command is amazon else None)
    arguments = parser.parse_args(argv)
    filters = Filters(
        tuple(arguments.attributes) if arguments.attributes and arguments.kind != "amazon" else None,
        arguments.min_rating,
        arguments.textless,
        arguments.repeated,
        max(arguments.user_core, arguments.core),
        max(arguments.item_core, arguments.core),
        arguments.items,
    )
    source, files = _source(arguments)
    imported = import_dataset(
        source,
        arguments.out,
        filters,
        {"source": arguments.kind, "files": [path.name for path in files]},
        arguments.on_error,
        arguments.gzip,
        arguments.overwrite,
        arguments.time_unit,
    )
    print(json.dumps(asdict(imported)) if arguments.json else _summary(arguments.out, imported))


def export_data(argv: list[str]) -> None:
    parser = Parser("seqrec export", description="Convert items and interactions to other formats.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    recbole = kinds.add_parser(
        "recbole",
        help="RecBole's atomic files",
        description="Writes NAME.inter, NAME.item and NAME.yaml, where NAME is the folder's name: a configuration for "
        "RecBole that reads and splits them as `seqrec evaluate` does (leave-one-out, the whole catalogue).",
    )
    recbole.add_argument("--items", type=Path, required=True, help="items, JSON Lines (.gz too)")
    recbole.add_argument("--interactions", type=Path, required=True, help="events, CSV or Parquet")
    recbole.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write, named as the data set"
    )
    recbole.add_argument("--attributes", nargs="+", metavar="NAME", help="only these, in this order")
    recbole.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    recbole.add_argument("--json", action="store_true", help="print JSON")
    recbole.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with broken lines",
    )
    arguments = parser.parse_args(argv)
    items = read_items(arguments.items, arguments.on_error)
    known = {item.item_id for item in items}
    interactions = read_interactions(arguments.interactions, known, arguments.on_error)
    export_recbole(items, interactions, arguments.out, arguments.attributes, arguments.overwrite)
    facts = {"out": str(arguments.out), "items": len(items), "interactions": len(interactions)}
    print(json.dumps(facts) if arguments.json else arguments.out)


def _add_filters(parser: argparse.ArgumentParser, attributes: tuple[str, ...] | None) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument("--gzip", action="store_true", help="write items.jsonl.gz and interactions.csv.gz")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with broken lines",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument(
        "--time-unit",
        choices=tuple(UNITS),
        help="convert timestamps of coarser units to this one, if the files have several; Amazon's years are always "
        "brought to one unit",
    )
    kept = parser.add_argument_group("what is kept, in this order")
    kept.add_argument(
        "--attributes",
        nargs="+",
        metavar="NAME",
        default=attributes,
        choices=ATTRIBUTES if attributes else None,
        help="these attributes, in this order"
        + (f" ({', '.join(attributes)}; of {', '.join(ATTRIBUTES)})" if attributes else ""),
    )
    kept.add_argument("--min-rating", type=float, metavar="R", help="events with this rating or higher")
    kept.add_argument(
        "--textless",
        choices=("keep", "drop"),
        default="keep",
        help="events of items without text (%(default)s)",
    )
    kept.add_argument(
        "--repeated",
        choices=("keep", "identical", "first", "last"),
        default="keep",
        help="the same user and item again: keep all, one of those with the same time, the first or last (%(default)s)",
    )
    kept.add_argument("--core", type=int, default=0, metavar="K", help="users and items with K events or more")
    kept.add_argument("--user-core", type=int, default=0, metavar="K", help="users with K events or more")
    kept.add_argument("--item-core", type=int, default=0, metavar="K", help="items with K events or more")
    kept.add_argument(
        "--items", choices=("interacted", "all"), default="interacted", help="items with an event, or all (%(default)s)"
    )


def _source(arguments: argparse.Namespace) -> tuple[Source, list[Path]]:
    """The source, and the paths that it reads."""
    if arguments.kind == "amazon":
        files = [*arguments.reviews, *arguments.metadata]
        return AmazonSource(arguments.reviews, arguments.metadata, arguments.attributes, arguments.columns), files
    if arguments.kind == "recbole":
        fields = RecBoleFields(
            arguments.user_field,
            arguments.item_field,
            None if arguments.file_order else arguments.time_field,
            arguments.rating_field,
            tuple(arguments.list_field),
        )
        return RecBoleSource(arguments.path, fields), [arguments.path]
    source = MovieLensSource if arguments.kind == "movielens" else RecformerSource
    return source(arguments.path), [arguments.path]


def _summary(out: Path, done: Imported) -> str:
    reasons = {"rating": "by rating", "textless": "of items without text", "repeated": "repeated", "core": "by core"}
    lines = [f"{out}: {done.users:,} users, {done.items:,} items, {done.events:,} events"]
    lines += [f"  left out {count:,} events {reasons[name]}" for name, count in done.left_out.items() if count]
    if done.items_repeated:
        lines.append(f"  {done.items_repeated:,} items had the id of an earlier one, which was kept")
    if done.items_without_text:
        lines.append(f"  {done.items_without_text:,} items have no text (--textless drop leaves their events out)")
    return "\n".join(lines)
