"""Results of an unfinished job on disk, so that a job that was killed does not compute them again."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.files import new_file, private_directory

log = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]


class Shards:
    """One file a result, named by a digest of everything that the result depends on.

    So a shard is right whatever has changed in between. Files are written atomically and have checksums.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, key: str, arrays: Arrays) -> None:
        private_directory(self._directory)
        with new_file(self._path(key), private=True) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def read(self, key: str) -> Arrays | None:
        """None if there is none, or if it is damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file, np.load(file) as stored:  # checks the CRC of each array
                return dict(stored)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged and is computed again: %s", path, error)
            return None

    def remove(self) -> None:
        """All of them: the job has ended."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npz"
