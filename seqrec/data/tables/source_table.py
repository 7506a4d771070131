"""Public data sets (MovieLens, RecBole, Amazon) as tables, by the readers of `seqrec.data.sources`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from seqrec.data.sources.amazon import ATTRIBUTES, AmazonSource
from seqrec.data.sources.base import Source
from seqrec.data.sources.movielens import MovieLensSource
from seqrec.data.sources.recbole import RecBoleFields, RecBoleSource
from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns, text_or_values
from seqrec.errors import FileFormatError, InputError

FORMATS = ("movielens", "recbole", "amazon")
_SAMPLE = 2000


def recognize(folder: Path) -> str | None:
    """The format of a data set's folder, or None."""
    if not folder.is_dir():
        return None
    for name in FORMATS:
        try:
            open_source(folder, name)
        except InputError:
            continue
        return name
    return None


def open_source(folder: Path, name: str) -> Source:
    """Raises FileFormatError if the folder has not the files of the format."""
    if name == "movielens":
        return MovieLensSource(folder)
    if name == "recbole":
        return RecBoleSource(folder, RecBoleFields())
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    metadata = [path for path in files if path.name.lower().startswith("meta_")]
    data = (".json", ".jsonl", ".csv")
    reviews = [
        path for path in files if path not in metadata and set(path.suffixes) & set(data) and path.suffix != ".toml"
    ]
    if not metadata or not reviews:
        reason = "not a folder of Amazon's files, which has meta_NAME.json and NAME.json (or .jsonl, .gz)"
        raise FileFormatError(folder, None, reason)
    return AmazonSource(reviews, metadata, ATTRIBUTES, None)


class SourceTable:
    def __init__(self, folder: Path, name: str, what: Literal["items", "events"]) -> None:
        self.path, self.name, self._what = folder, str(folder), what
        self._source = open_source(folder, name)
        names = dict.fromkeys(
            name
            for row in islice(self._rows(Rejects("skip")), _SAMPLE)
            for name, value in row.items()
            if value is not None
        )
        self.columns: Sequence[str] = tuple(names)
        self.lists: Sequence[str] = ()
        self.notes: dict[str, Any] = {"format": name}

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(self.path, None, self.columns, wanted)
        rows = self._rows(rejects)
        while part := list(islice(rows, BATCH_ROWS)):
            arrays = [text_or_values([row.get(name) for row in part]) for name in wanted]
            yield pa.RecordBatch.from_arrays(arrays, list(wanted))

    def error(self, row: int, reason: str) -> FileFormatError:
        return FileFormatError(self.path, None, f"{self._what[:-1]} {row + 1}: {reason}")

    def _rows(self, rejects: Rejects) -> Iterator[dict[str, Any]]:
        if self._what == "items":
            for item in self._source.items(rejects.on_error):
                yield {"item_id": item.item_id, **item.attributes}
        else:
            for event in self._source.events(rejects.on_error):
                yield event._asdict()
