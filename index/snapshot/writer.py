"""Writes a snapshot to a temporary directory that gets its name once all files are on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from index.catalogue.base import CatalogueItem
from index.catalogue.item_json import attributes_to_json
from index.snapshot.attribute_columns import ColumnWriter
from index.snapshot.columns import NpyWriter, map_npy
from index.snapshot.manifest import FileRecord, Manifest
from index.snapshot.snapshot import MANIFEST, files_of
from index.snapshot.sparse import TermVectors, TermWriter, write_counts
from index.vectors.approximate import build_approximate
from index.vectors.factory import FLAT, INDEX_FILE, choose_factory
from index.vectors.flat import FlatIndex
from index.vectors.quantized import INT8, build_quantized
from index.vectors.recall import RecallSample, measure_recall
from seqrec.data.files import new_directory, sha256_file
from seqrec.data.items import check_item_id
from seqrec.errors import SnapshotError
from seqrec.hybrid.event_counts import BaseCounts
from seqrec.metric import Metric
from seqrec.text.item_text import ItemTokens


def write_snapshot(
    path: Path,
    manifest: Manifest,
    batches: Iterable[Sequence[CatalogueItem]],
    popularity: Callable[[str], float],
    counts: BaseCounts | None = None,
    term_vectors: TermVectors | None = None,
) -> Manifest:
    """Write a snapshot to `path` atomically; returns the completed manifest.

    `manifest` lacks count, recall and files, and `index` is the requested one. `batches`: the items in the order of
    their ids, all with token ids and vector. `counts` of events as of `counts.seq`; `term_vectors` for a hybrid model.
    With a flat index memory does not grow with the number of items. Raises SnapshotError for items out of order or a
    vector that cannot be searched, InputError for an index that cannot be built from these vectors.
    """
    with new_directory(path, private=True) as directory:
        with ExitStack() as stack:
            terms = None if term_vectors is None else stack.enter_context(TermWriter(directory, term_vectors))
            count = _write_items(directory, manifest.dim, batches, popularity, terms)
        if terms is not None:
            terms.write_postings()
        if counts is not None:
            write_counts(directory, counts)
        vectors, metric = map_npy(directory / "vectors.npy"), Metric(manifest.metric)
        choice = choose_factory(manifest.index, count, manifest.dim)
        if choice.factory == FLAT:
            search_params, recall = "", measure_recall(vectors, metric, FlatIndex(vectors, metric))
        else:
            sample = RecallSample(vectors, metric)
            path = directory / INDEX_FILE
            if choice.factory == INT8:
                search_params, recall = build_quantized(path, vectors, metric, sample)
            else:
                search_params, recall = build_approximate(path, vectors, metric, choice.factory, sample)
        manifest = replace(
            manifest,
            index=choice.factory,
            index_requested=manifest.index,
            events_seq=None if counts is None else counts.seq,
            events_log="" if counts is None else counts.log_id,
            event_times=counts is not None and counts.times is not None,
            hybrid=terms is not None,
            columns=True,
        )
        names = files_of(manifest)
        files = {name: FileRecord((directory / name).stat().st_size, sha256_file(directory / name)) for name in names}
        manifest = replace(
            manifest,
            count=count,
            index_why=choice.why,
            search_params=search_params,
            recall=recall,
            files=files,
        )
        (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _write_items(
    directory: Path,
    dim: int,
    batches: Iterable[Sequence[CatalogueItem]],
    popularity: Callable[[str], float],
    terms: TermWriter | None,
) -> int:
    last, count = "", 0
    token_end = attribute_end = 0
    with ExitStack() as stack:

        def column(name: str, dtype: type[np.generic], *row_shape: int) -> NpyWriter:
            return stack.enter_context(NpyWriter(directory / f"{name}.npy", dtype, row_shape))

        vectors = column("vectors", np.float32, dim)
        token_ids, token_types = column("token_ids", np.int32), column("token_types", np.uint8)
        token_offsets, attribute_offsets = column("token_offsets", np.int64), column("attribute_offsets", np.int64)
        available, popularities = column("available", np.bool_), column("popularity", np.float64)
        item_ids = stack.enter_context((directory / "item_ids.txt").open("wb"))
        attributes = stack.enter_context((directory / "attributes.jsonl").open("wb"))
        for offsets in (token_offsets, attribute_offsets):
            offsets.append([0])
        columns = ColumnWriter()
        for batch in batches:
            lines = []
            for entry in batch:
                item_id = check_item_id(entry.item.item_id)
                if item_id <= last:
                    raise SnapshotError(f"item {item_id!r} comes after {last!r}: the items are not sorted by id")
                last = item_id
                _check_vector(entry, dim)
                columns.append(entry.item.attributes)
                lines.append((attributes_to_json(entry.item.attributes) + "\n").encode())
            if not batch:
                continue
            own_tokens = [entry.tokens for entry in batch if entry.tokens is not None]
            if terms is not None:
                terms.append(own_tokens)
            tokens = ItemTokens.concatenate(own_tokens)
            vectors.append(np.stack([entry.vector for entry in batch if entry.vector is not None]))
            token_ids.append(tokens.ids)
            token_types.append(tokens.types)
            token_offsets.append(token_end + tokens.offsets[1:])
            attributes.writelines(lines)
            attribute_offsets.append(attribute_end + np.cumsum([len(line) for line in lines]))
            item_ids.write("".join(f"{entry.item.item_id}\n" for entry in batch).encode())
            available.append([entry.item.available for entry in batch])
            popularities.append([popularity(entry.item.item_id) for entry in batch])
            token_end += int(tokens.offsets[-1])
            attribute_end += sum(map(len, lines))
            count += len(batch)
    columns.write(directory)
    return count


def _check_vector(entry: CatalogueItem, dim: int) -> None:
    vector = entry.vector
    if entry.tokens is None:
        raise SnapshotError(f"item {entry.item.item_id!r} has no token ids")
    if vector is None or vector.shape != (dim,) or not np.isfinite(vector).all():
        what = "none" if vector is None else f"shape {list(vector.shape)}" if vector.shape != (dim,) else "NaN in it"
        raise SnapshotError(f"item {entry.item.item_id!r} needs a vector of {dim} finite numbers; it has {what}")
