from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from index.catalogue.open import open_catalogue
from seqrec import cli
from service.doctor import checks
from service.doctor.checks import Finding, examine, memory_limit
from service.settings import Settings


def found(settings: Settings, check: str, level: str) -> list[Finding]:
    return [finding for finding in examine(settings) if (finding.check, finding.level) == (check, level)]


def test_a_healthy_home(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    monkeypatch.setenv("SEQREC_PORT", "0")
    cli.main(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    texts = {finding["check"]: finding["text"] for finding in answer["findings"] if finding["level"] == "ok"}
    assert texts["stores"].startswith("catalogue with 8 items, 0 API keys; served: 2")
    assert set(texts) >= {"versions", "home", "stores", "address", "gpu"}
    cli.main(["doctor"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 errors, ")


def test_a_wrong_setting_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SEQREC_PORT", "eighty")
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "ERROR    settings  SEQREC_PORT: " in out
    assert "versions" in out


def test_a_new_machine_has_no_error(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "var", port=0)
    assert [finding for finding in examine(settings) if finding.level == "error"] == []
    [note] = found(settings, "stores", "note")
    assert "seqrec up" in note.advice
    assert not (tmp_path / "var").exists()


def test_what_is_wrong_with_stores(home: Path, tmp_path: Path) -> None:
    [error] = found(Settings(home=home, host="0.0.0.0", port=0), "stores", "error")
    assert "seqrec keys create" in error.advice
    open_catalogue(tmp_path / "new", create=True).close()
    [warning] = found(Settings(home=tmp_path / "new", port=0), "stores", "warning")
    assert warning.text == "no snapshot is published"
    [away] = found(Settings(home=home, redis_url="redis://127.0.0.1:1/0", port=0), "stores", "error")
    assert "cannot be opened" in away.text
    [cache] = found(Settings(home=home, cache_url="redis://127.0.0.1:1/0", port=0), "stores", "warning")
    assert cache.text.startswith("SEQREC_CACHE_URL does not answer")


def test_a_snapshot_that_is_gone(home: Path) -> None:
    [snapshot] = [path for path in (home / "snapshots").iterdir() if path.name.startswith("2")]
    snapshot.rename(home / "elsewhere")
    [error] = found(Settings(home=home, port=0), "stores", "error")
    assert snapshot.name in error.text


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [error] = found(Settings(home=tmp_path / "file" / "var", port=0), "home", "error")
    assert "is not a directory" in error.text


def test_an_address_in_use() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        [warning] = found(Settings(port=listener.getsockname()[1]), "address", "warning")
    assert "in use" in warning.text


def test_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert any("OMP_NUM_THREADS=1000" in finding.text for finding in found(Settings(port=0), "cores", "warning"))


def test_a_share_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "quota", lambda: 0.5)
    assert any("allows 0.5 processors" in finding.text for finding in found(Settings(port=0), "cores", "warning"))


def test_memory_limits_of_a_container(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert memory_limit(100, (limit,)) is None
    limit.write_text("max\n")
    assert memory_limit(100, (limit,)) is None
    limit.write_text("60\n")
    assert memory_limit(100, (limit,)) == 60
    assert memory_limit(50, (limit,)) is None


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    [error] = found(Settings(port=0), "versions", "error")
    assert "seqrec[cpu]" in error.advice
    assert len(found(Settings(port=0), "versions", "note")) == 2
