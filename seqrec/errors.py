"""All errors that seqrec raises deliberately. `service` maps them to HTTP in one table.

SeqrecError
├── InputError               wrong input; `field` is its place
│   └── FileFormatError      wrong input in a line of a file
├── ItemNotFound             no such item in the catalogue
├── PlacementNotFound        no placement of this name
├── UserNotFound             nothing is stored of this user
├── CheckpointError          a checkpoint is missing, truncated, altered or of another format
├── SnapshotError            the same for a snapshot
├── CatalogueError           the catalogue cannot be read or written
│   ├── LogTruncated         the log no longer contains the requested sequence number
│   ├── ItemChanged          an item was changed by another writer since it was read
│   ├── OutcomeUnknown       a write may or may not have succeeded; repeating it is safe
│   └── CatalogueReplaced    the catalogue was emptied or restored
├── EngineUnavailable        the external vector engine does not answer
├── ClusterError             the Ray cluster of a batch job does not answer, or its processes fail
├── NotReady                 no snapshot is loaded yet
├── Overloaded               too many requests are queued; retry after `retry_after`
└── DeadlineExceeded         the deadline of a request has passed

A message names the wrong value and how to correct it.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class SeqrecError(Exception):
    """Base class of all errors."""


class InputError(SeqrecError):
    """Wrong input. `field`: the path of the value, such as `items[3].attributes.title`; None if there is only one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.reason = message
        self.field = field


class FileFormatError(InputError):
    """A file cannot be read. `line` counts from 1; None means the file as a whole.

    `last_line`: the last line of a record that spans several.
    """

    def __init__(self, path: Path, line: int | None, reason: str, last_line: int | None = None) -> None:
        where = f"{path}" if line is None else f"{path}, line {line}"
        if line is not None and last_line is not None and last_line > line:
            where = f"{path}, lines {line}-{last_line}"
        super().__init__(f"{where}: {reason}")
        self.path = path
        self.line = line


class ItemNotFound(SeqrecError):
    def __init__(self, item_id: str, where: str = "in the catalogue") -> None:
        super().__init__(f"no item {item_id!r} {where}")
        self.item_id = item_id


class PlacementNotFound(SeqrecError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no placement {name!r}")
        self.name = name


class SnapshotNotFound(SeqrecError):
    def __init__(self, snapshot_id: str) -> None:
        super().__init__(f"no snapshot {snapshot_id!r} in this home")


class UserNotFound(SeqrecError):
    """Nothing is stored of this user."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"no events are stored of the user {user_id!r}")


class CheckpointError(SeqrecError):
    pass


class SnapshotError(SeqrecError):
    pass


class CatalogueError(SeqrecError):
    pass


class LogTruncated(CatalogueError):
    pass


class ItemChanged(CatalogueError):
    def __init__(self, item_id: str) -> None:
        super().__init__(f"item {item_id!r} was changed by another request at the same time; nothing was written")
        self.item_id = item_id


class OutcomeUnknown(CatalogueError):
    pass


class CatalogueReplaced(CatalogueError):
    pass


class EngineUnavailable(SeqrecError):
    pass


class ClusterError(SeqrecError):
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


def did_you_mean(given: str, choices: Sequence[str], likeness: float = 0.6) -> str:
    """`, did you mean 'train'?` for the nearest choice, or nothing. `likeness`: at least, from 0 to 1."""
    names = {choice.lstrip("-"): choice for choice in choices}  # the dashes, which all have, are no likeness
    near = get_close_matches(given.lstrip("-"), names, n=1, cutoff=likeness)
    return f", did you mean {names[near[0]]!r}?" if near else ""


def there_are(given: str, choices: Sequence[str]) -> str:
    """The end of a message about an unknown name: the nearest choice and all choices."""
    return f"{did_you_mean(given, choices)}; there are {', '.join(choices)}"
