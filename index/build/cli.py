"""`seqrec index` and `seqrec reindex`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from index.arguments import add_common
from index.build.reindex import JobFile, Request, Result, make_snapshot
from index.catalogue.open import location_of, open_catalogue
from index.snapshot.publication import KEEP, check_servable, publish, published, rollback
from index.snapshot.snapshot import SnapshotStore, read_manifest
from seqrec.data.items import read_items
from seqrec.encoder import Precision
from seqrec.errors import SnapshotError
from seqrec.runtime.progress import StageBars
from seqrec.runtime.threads import choose, use


def index(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec index", description="Make snapshots of the catalogue and say which is served."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    build = commands.add_parser(
        "build",
        help="put items into the catalogue, encode them, write a snapshot",
        description="Put the items of a file into the catalogue (only what is new or changed), encode what is not "
        "encoded yet, and write a snapshot of the catalogue. Items that the file lacks stay.",
    )
    build.add_argument("--checkpoint", type=Path, required=True, metavar="CKPT", help="the model to encode with")
    build.add_argument(
        "--items", type=Path, metavar="FILE", help="JSON Lines, .gz too; default: the catalogue as it is"
    )
    build.add_argument("--publish", action="store_true", help="serve the snapshot from then on")
    _add_making(build)
    add_common(build)

    verify = commands.add_parser("verify", help="hash every byte of a snapshot, check that it can be served")
    verify.add_argument("snapshot", metavar="ID")
    add_common(verify)

    set_served = commands.add_parser("publish", help="serve a snapshot from now on")
    set_served.add_argument("snapshot", metavar="ID")
    add_common(set_served)

    back = commands.add_parser("rollback", help="serve again what was served before; again goes back further")
    add_common(back)

    listing = commands.add_parser("list", help="show all snapshots, the oldest first")
    add_common(listing)

    arguments = parser.parse_args(argv)
    {"build": _build, "verify": _verify, "publish": _publish, "rollback": _rollback, "list": _list}[arguments.command](
        arguments
    )


def reindex(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "seqrec reindex",
        description="Write a snapshot of the catalogue as it is now and serve it. The service goes on meanwhile, and "
        "what is added meanwhile is kept. One at a time.",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="default: that of the snapshot that is served")
    parser.add_argument(
        "--publish", action=argparse.BooleanOptionalAction, default=True, help="serve the snapshot from then on"
    )
    _add_making(parser)
    add_common(parser)
    parser.add_argument("--job", type=Path, metavar="FILE", help="write progress to this JSON file")
    arguments = parser.parse_args(argv)
    with JobFile(arguments.job) as job:
        job.finish(_make(arguments, job).manifest)


def _add_making(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interactions",
        type=Path,
        metavar="FILE",
        help="CSV (.gz too) or Parquet, counted for popularity; default: the counts of the snapshot that is served",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave broken lines, unknown items and items without text out, and count them; default: raise",
    )
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--precision", choices=get_args(Precision), help="to encode in; default: float32")
    parser.add_argument(
        "--index",
        metavar="KIND",
        help="flat (exact), auto (flat, or IVF where there are very many items), or a FAISS factory string that begins "
        "with IVF or HNSW; default: what the snapshot that is served was asked for, flat at first",
    )
    parser.add_argument(
        "--keep", type=int, default=KEEP, metavar="N", help=f"published snapshots to keep; default: {KEEP}"
    )


def _build(arguments: argparse.Namespace) -> None:
    _make(arguments, JobFile(None))


def _make(arguments: argparse.Namespace, job: JobFile) -> Result:
    use(choose())
    items = getattr(arguments, "items", None)
    with StageBars(unit=" items") as bars:

        def progress(stage: str, done: int, total: int) -> None:
            bars(stage, done, total)
            job.progress(stage, done, total)

        request = Request(
            checkpoint=arguments.checkpoint,
            items=read_items(items, arguments.on_error) if items else (),
            interactions=arguments.interactions,
            on_error=arguments.on_error,
            device=arguments.device,
            precision=arguments.precision,
            index=arguments.index,
            publish=arguments.publish,
            keep=arguments.keep,
        )
        result = make_snapshot(arguments.home, request, progress, location_of(arguments.home))
    manifest, imported = result.manifest, result.imported
    if arguments.json:
        _print_json(
            {
                "snapshot": manifest.snapshot_id,
                "seq": manifest.seq,
                "count": manifest.count,
                "index": manifest.index,
                "index_why": manifest.index_why,
                "index_effort": manifest.index_effort,
                "recall": manifest.recall,
                "published": result.published,
                "created": imported.created,
                "updated": imported.updated,
                "unchanged": imported.unchanged,
                "left_out": imported.left_out,
                "removed": list(result.removed),
            }
        )
        return result
    if items:
        print(
            f"catalogue: {imported.created} items created, {imported.updated} updated, {imported.unchanged} unchanged"
            + (f", {imported.left_out} without text left out" if imported.left_out else "")
        )
    state = "served from now on" if result.published else f"not served yet: seqrec index publish {manifest.snapshot_id}"
    print(f"snapshot {manifest.snapshot_id}: {manifest.count} items, recall {manifest.recall:.3f}; {state}")
    if manifest.index_asked != "flat":
        effort = f" with {manifest.index_effort}" if manifest.index_effort else ""
        print(f"index {manifest.index}{effort}: {manifest.index_why}")
    for snapshot_id in result.removed:
        print(f"removed the old snapshot {snapshot_id}")
    return result


def _verify(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        snapshot = SnapshotStore(arguments.home).verify(arguments.snapshot)
        check_servable(arguments.home, catalogue, snapshot.manifest)
    if arguments.json:
        _print_json({"snapshot": snapshot.id, "whole": True, "count": snapshot.manifest.count})
    else:
        print(f"snapshot {snapshot.id} is whole: {snapshot.manifest.count} items, {len(snapshot.manifest.files)} files")


def _publish(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        seq = publish(arguments.home, catalogue, arguments.snapshot)
    _say_served(arguments, arguments.snapshot, seq)


def _rollback(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        snapshot_id = rollback(arguments.home, catalogue)
        seq = catalogue.publications()[0].seq
    _say_served(arguments, snapshot_id, seq)


def _say_served(arguments: argparse.Namespace, snapshot_id: str, seq: int) -> None:
    if arguments.json:
        _print_json({"snapshot": snapshot_id, "seq": seq})
    else:
        print(f"snapshot {snapshot_id} is served from now on")


def _list(arguments: argparse.Namespace) -> None:
    store = SnapshotStore(arguments.home)
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        served = published(catalogue)
    rows: list[dict[str, Any]] = []
    for snapshot_id in store.list():
        row: dict[str, Any] = {"snapshot": snapshot_id, "served": snapshot_id == served, "error": None}
        try:
            manifest = read_manifest(store.path_of(snapshot_id))
            row |= {
                name: getattr(manifest, name)
                for name in ("created", "seq", "count", "model", "checkpoint", "index", "recall")
            }
        except SnapshotError as error:
            row["error"] = str(error)
        rows.append(row)
    if arguments.json:
        _print_json(rows)
        return
    if not rows:
        print(f"no snapshots in {store.directory}; `seqrec index build` makes one")
    for row in rows:
        told = (
            row["error"]
            or f"{row['count']:>9,} items  {row['model']} {row['checkpoint'][:12]}  "
            f"{row['index']} recall {row['recall']:.3f}"
        )
        print(f"{'*' if row['served'] else ' '} {row['snapshot']}  {told}")
    if served is not None and not any(row["served"] for row in rows):
        print(f"{served} is published, but it is not there", file=sys.stderr)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))
