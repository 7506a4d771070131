"""Every error that seqrec raises on purpose. None of them knows HTTP: `service` maps them in one table.

SeqrecError
├── InputError               what was handed in is wrong; `field` says where
│   └── FileFormatError      ... a line of a file
├── ItemNotFound             no such item in the catalogue
├── CheckpointError          a checkpoint is missing, cut short, altered or of another format
├── SnapshotError            the same for a snapshot
├── CatalogueError           the catalogue cannot be read or written
│   ├── LogTruncated         the log no longer reaches back to the asked-for sequence number
│   ├── OutcomeUnknown       a write may or may not have been made; to make it again is safe
│   └── CatalogueReplaced    the catalogue is another one than before (emptied or restored)
├── NotReady                 the service has nothing to answer with yet
├── Overloaded               too much is waiting; `retry_after` says when to come back
└── DeadlineExceeded         the answer would have come too late

A message names the value that is wrong and the way out.
"""

from __future__ import annotations

from pathlib import Path


class SeqrecError(Exception):
    """Base of every error below."""


class InputError(SeqrecError):
    """What was handed in is wrong.

    `field` is a path to the value, such as `items[3].attributes.title`, or None where there is just one value.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.reason = message
        self.field = field


class FileFormatError(InputError):
    """A line of a file is broken. `line` counts from 1; None means the file as a whole."""

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}")
        self.path = path
        self.line = line


class ItemNotFound(SeqrecError):
    def __init__(self, item_id: str, where: str = "in the catalogue") -> None:
        super().__init__(f"no item {item_id!r} {where}")
        self.item_id = item_id


class CheckpointError(SeqrecError):
    pass


class SnapshotError(SeqrecError):
    pass


class CatalogueError(SeqrecError):
    pass


class LogTruncated(CatalogueError):
    pass


class OutcomeUnknown(CatalogueError):
    pass


class CatalogueReplaced(CatalogueError):
    pass


class NotReady(SeqrecError):
    pass


class Overloaded(SeqrecError):
    """`retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(SeqrecError):
    pass
