from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seqrec.data.files import new_directory, sha256_file, write_text


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def fail_halfway(path: Path, error: BaseException, replace: bool = False) -> None:
    with new_directory(path, replace) as directory:
        (directory / "file").write_text("half")
        raise error


def test_a_new_directory_appears_whole(tmp_path: Path) -> None:
    with new_directory(tmp_path / "deep" / "new") as directory:
        (directory / "sub").mkdir()
        (directory / "sub" / "file").write_text("x")
        assert not (tmp_path / "deep" / "new").exists()
    assert (tmp_path / "deep" / "new" / "sub" / "file").read_text() == "x"
    assert names(tmp_path / "deep") == ["new"]


@pytest.mark.parametrize(
    "error", [ValueError("wrong"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail_halfway(tmp_path / "new", error)
    assert names(tmp_path) == []


def test_a_failure_while_replacing_leaves_the_old(tmp_path: Path) -> None:
    with new_directory(tmp_path / "it") as directory:
        (directory / "file").write_text("old")
    with pytest.raises(ValueError):
        fail_halfway(tmp_path / "it", ValueError(), replace=True)
    assert (tmp_path / "it" / "file").read_text() == "old"
    assert names(tmp_path) == ["it"]


def test_a_sync_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delayed allocation: some file systems report a full disk only when a file is synced."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), new_directory(tmp_path / "new") as directory:
        (directory / "file").write_text("x")
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "file", "x")
    assert names(tmp_path) == []


def test_what_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with new_directory(tmp_path / "it", replace=True) as directory:
            (directory / text).write_text(text)
    assert names(tmp_path / "it") == ["new"]
    assert names(tmp_path) == ["it"]
    with pytest.raises(FileExistsError, match="exists already"), new_directory(tmp_path / "it"):
        pytest.fail("the block must not run")


def test_a_killed_process_leaves_the_old_under_its_name(tmp_path: Path) -> None:
    with new_directory(tmp_path / "it") as directory:
        (directory / "file").write_text("old")
    code = (
        "import os, sys, signal, pathlib\nfrom seqrec.data.files import new_directory\n"
        "with new_directory(pathlib.Path(sys.argv[1]), replace=True) as directory:\n"
        "    (directory / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "it")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "it" / "file").read_text() == "old"
    assert [name for name in names(tmp_path) if not name.startswith(".tmp-")] == ["it"]


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "new \ud800")
    assert (tmp_path / "file").read_text() == "old"
    write_text(tmp_path / "file", "חדש\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "חדש\n"
    assert names(tmp_path) == ["file"]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
