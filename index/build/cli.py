"""The commands `seqrec index` and `seqrec reindex`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from index.arguments import add_common
from index.build.import_items import MAX_DELETE, Imported, shown
from index.build.reindex import JobFile, Request, Result, make_snapshot
from index.catalogue.open import location_of, open_catalogue
from index.cluster.on_ray import Cluster
from index.engines.milvus import open_engine
from index.snapshot.engine_rows import engine_recall
from index.snapshot.named import named_by
from index.snapshot.publication import KEEP, check_servable, publish, remove, rollback
from index.snapshot.snapshot import SnapshotStore, read_manifest
from seqrec.data.items import read_items
from seqrec.encoder import Precision
from seqrec.errors import InputError, SnapshotError
from seqrec.runtime.arguments import Parser
from seqrec.runtime.progress import StageBars
from seqrec.runtime.threads import choose, use
from seqrec.shop.project import find_project


def index(argv: list[str]) -> None:
    parser = Parser("seqrec index", description="Make snapshots of the catalogue, publish them and roll back.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    build = commands.add_parser(
        "build",
        help="import items into the catalogue, encode them, write a snapshot",
        description="Import the items of a file into the catalogue, encode those that are new or whose text has "
        "changed, and write a snapshot of the catalogue. Stored items that the file lacks stay, unless --replace is "
        "given. If nothing has changed since the last snapshot, none is written.",
    )
    project = find_project()
    build.add_argument(
        "--checkpoint",
        type=Path,
        required=project is None,
        metavar="CKPT",
        help="the model to encode with; default: that of shop.toml",
    )
    build.add_argument(
        "--items",
        type=Path,
        metavar="FILE",
        help="JSON Lines, .gz too, or Parquet with item_id and attributes as columns, a directory of such files too; "
        "default: the imported items of shop.toml, without it the catalogue as it is",
    )
    build.add_argument(
        "--replace",
        action="store_true",
        help="FILE is the full catalogue: delete the stored items that it lacks. Every line of it must be readable",
    )
    build.add_argument(
        "--max-delete",
        type=_share,
        default=MAX_DELETE,
        metavar="SHARE",
        help="with --replace: refuse the file if more than this share of the stored items would be deleted "
        f"(default: {MAX_DELETE})",
    )
    build.add_argument("--publish", action="store_true", help="serve the snapshot from then on")
    _add_making(build)
    if project is not None:
        build.set_defaults(checkpoint=project.checkpoint, items=project.items, on_error="skip")
        build.set_defaults(interactions=project.interactions)
    add_common(build)

    verify = commands.add_parser(
        "verify",
        help="hash every byte of a snapshot and check that it can be served; with Milvus measure its recall",
    )
    verify.add_argument("snapshot", metavar="ID")
    add_common(verify)

    set_served = commands.add_parser("publish", help="serve a snapshot from now on")
    set_served.add_argument("snapshot", metavar="ID")
    add_common(set_served)

    back = commands.add_parser("rollback", help="serve the snapshot that was served before; repeat to go further back")
    add_common(back)

    delete = commands.add_parser("remove", help="delete a snapshot that is not served")
    delete.add_argument("snapshot", metavar="ID")
    add_common(delete)

    listing = commands.add_parser("list", help="show all snapshots, oldest first")
    add_common(listing)

    arguments = parser.parse_args(argv)
    run = {
        "build": _build,
        "verify": _verify,
        "publish": _publish,
        "rollback": _rollback,
        "remove": _remove,
        "list": _list,
    }
    run[arguments.command](arguments)


def reindex(argv: list[str]) -> None:
    parser = Parser(
        "seqrec reindex",
        description="Write a snapshot of the current catalogue and serve it. The service keeps running, and items that "
        "are added meanwhile are not lost. Only one runs at a time. If nothing has changed since the served snapshot "
        "was made, none is written.",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="default: the model of the served snapshot")
    parser.add_argument(
        "--publish", action=argparse.BooleanOptionalAction, default=True, help="serve the snapshot when it is written"
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
        help="CSV (.gz too) or Parquet: user_id, item_id, timestamp; stored as events first, each row once",
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: leave out broken lines, unknown items and items without text, and count them; default: raise",
    )
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="of the encoder; default: float32, with the model of the served snapshot that of its vectors",
    )
    parser.add_argument(
        "--index",
        metavar="KIND",
        help="flat (exact), int8 (exact, less memory to read), auto (flat, or IVF for very many items), or a FAISS "
        "factory string that begins with IVF or HNSW; default: as for the served snapshot, flat at first",
    )
    parser.add_argument(
        "--keep", type=_positive, default=KEEP, metavar="N", help=f"published snapshots to keep; default: {KEEP}"
    )
    parser.add_argument("--force", action="store_true", help="write a snapshot even if nothing has changed")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="encode and count on a Ray cluster: HOST:PORT of one that this machine belongs to, or local to start one "
        "here; the same command continues a job that was killed",
    )
    parser.add_argument(
        "--actors", type=_positive, metavar="N", help="with --ray: processes that encode; default: as there is room"
    )
    parser.add_argument(
        "--gpus-per-actor",
        type=_gpus,
        metavar="X",
        help="with --ray: encode on GPUs; a fraction such as 0.5 shares one; default: on CPUs",
    )


def _build(arguments: argparse.Namespace) -> None:
    _make(arguments, JobFile(None))


def _make(arguments: argparse.Namespace, job: JobFile) -> Result:
    use(choose())
    items, replace = getattr(arguments, "items", None), getattr(arguments, "replace", False)
    with StageBars(unit=" items") as bars:

        def progress(stage: str, done: int, total: int) -> None:
            bars(stage, done, total)
            job.progress(stage, done, total)

        request = Request(
            checkpoint=arguments.checkpoint,
            # With --replace a line that is skipped would delete its item.
            items=read_items(items, "raise" if replace else arguments.on_error) if items else (),
            interactions=arguments.interactions,
            on_error=arguments.on_error,
            device=arguments.device,
            precision=arguments.precision,
            index=arguments.index,
            publish=arguments.publish,
            keep=arguments.keep,
            replace=replace,
            max_delete=getattr(arguments, "max_delete", MAX_DELETE),
            force=arguments.force,
            cluster=_cluster(arguments),
        )
        result = make_snapshot(arguments.home, request, progress, location_of(arguments.home))
    manifest, imported = result.manifest, result.imported
    if arguments.json:
        _print_json(
            {
                "snapshot": manifest.snapshot_id,
                "new": result.created,
                "seq": manifest.seq,
                "count": manifest.count,
                "index": manifest.index,
                "index_why": manifest.index_why,
                "search_params": manifest.search_params,
                "recall": manifest.recall,
                "published": result.published,
                "created": imported.created,
                "updated": imported.updated,
                "unchanged": imported.unchanged,
                "reencoded": imported.reencoded,
                "left_out": imported.left_out,
                "not_in_file": imported.not_in_file,
                "deleted": imported.deleted,
                "recreated": list(imported.recreated),
                "removed": list(result.removed),
            }
        )
        return result
    if items:
        _print_imported(imported)
    state = "served from now on" if result.published else f"not served yet: seqrec index publish {manifest.snapshot_id}"
    if not result.created:
        print(
            f"nothing has changed since snapshot {manifest.snapshot_id} was made, so no new one was (--force makes one)"
        )
    print(f"snapshot {manifest.snapshot_id}: {manifest.count} items, recall {manifest.recall:.3f}; {state}")
    if manifest.index_requested != "flat":
        parameters = f" with {manifest.search_params}" if manifest.search_params else ""
        print(f"index {manifest.index}{parameters}: {manifest.index_why}")
    for snapshot_id in result.removed:
        print(f"removed the old snapshot {snapshot_id}")
    return result


def _print_imported(imported: Imported) -> None:
    parts = [f"{imported.created} items created", f"{imported.updated} updated", f"{imported.unchanged} unchanged"]
    if imported.reencoded:
        parts[-1] += f" ({imported.reencoded} of them encoded again by this model)"
    if imported.left_out:
        parts.append(f"{imported.left_out} without text left out")
    if imported.deleted:
        parts.append(f"{imported.deleted} deleted")
    line = f"catalogue: {', '.join(parts)}"
    # On the same line: scripts that keep one line of a nightly import must see it.
    if imported.not_in_file and not imported.deleted:
        line += f"; {imported.not_in_file} stored items are not in the file and stay (--replace deletes them)"
    if imported.recreated:
        line += f"; {len(imported.recreated)} of the created items had been deleted before: {shown(imported.recreated)}"
    print(line)


def _verify(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        snapshot = SnapshotStore(arguments.home).verify(arguments.snapshot)
        check_servable(arguments.home, catalogue, snapshot.manifest)
    engine = open_engine()
    recall = None if engine is None else engine_recall(engine, snapshot)
    if arguments.json:
        more = {} if recall is None else {"engine_recall": recall}
        _print_json({"snapshot": snapshot.id, "whole": True, "count": snapshot.manifest.count} | more)
        return
    searched = "" if recall is None else f"; Milvus has it, recall@10 {recall:.3f}"
    files = len(snapshot.manifest.files)
    print(f"snapshot {snapshot.id} is intact: {snapshot.manifest.count} items, {files} files{searched}")


def _publish(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        seq = publish(arguments.home, catalogue, arguments.snapshot)
    _print_served(arguments, arguments.snapshot, seq)


def _rollback(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        snapshot_id = rollback(arguments.home, catalogue)
        seq = catalogue.publications()[0].seq
    _print_served(arguments, snapshot_id, seq)


def _print_served(arguments: argparse.Namespace, snapshot_id: str, seq: int) -> None:
    if arguments.json:
        _print_json({"snapshot": snapshot_id, "seq": seq})
    else:
        print(f"snapshot {snapshot_id} is served from now on")


def _remove(arguments: argparse.Namespace) -> None:
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        remove(arguments.home, catalogue, arguments.snapshot)
    if arguments.json:
        _print_json({"removed": arguments.snapshot})
    else:
        print(f"removed snapshot {arguments.snapshot}")


def _list(arguments: argparse.Namespace) -> None:
    store = SnapshotStore(arguments.home)
    with closing(open_catalogue(location_of(arguments.home))) as catalogue:
        catalogue_id, publications = catalogue.catalogue_id, catalogue.publications()
        placements = named_by(catalogue.placements())
    served = publications[0].snapshot_id if publications else None
    ever_published = {publication.snapshot_id for publication in publications}
    rows: list[dict[str, Any]] = []
    for snapshot_id in store.list():
        row: dict[str, Any] = {"snapshot": snapshot_id, "served": snapshot_id == served, "state": None, "error": None}
        row["placements"] = placements.get(snapshot_id, [])
        try:
            manifest = read_manifest(store.path_of(snapshot_id))
            row["state"] = (
                "other catalogue"
                if manifest.catalogue_id != catalogue_id
                else "served"
                if snapshot_id == served
                else "kept"
                if snapshot_id in ever_published
                else "not published"
            )
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
        text = (
            row["error"]
            or f"{row['count']:>9,} items  {row['model']} {row['checkpoint'][:12]}  "
            f"{row['index']} recall {row['recall']:.3f}  {row['state']}"
        )
        named = f", in the placement {', '.join(row['placements'])}" if row["placements"] else ""
        print(f"{'*' if row['served'] else ' '} {row['snapshot']}  {text}{named}")
    if served is not None and not any(row["served"] for row in rows):
        print(f"{served} is published, but not in {store.directory}", file=sys.stderr)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a share from 0 to 1, not {text!r}")
    return value


def _cluster(arguments: argparse.Namespace) -> Cluster | None:
    if arguments.ray is not None:
        return Cluster(arguments.ray, arguments.actors, arguments.gpus_per_actor or 0)
    for name in ("actors", "gpus_per_actor"):
        if getattr(arguments, name) is not None:
            raise InputError("it needs --ray, which names the cluster", f"--{name.replace('_', '-')}")
    return None


def _gpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1 and not (value >= 1 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"a whole number from 1, or a fraction of a GPU such as 0.5, not {text!r}")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1, not {text!r}")
    return int(text)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))
