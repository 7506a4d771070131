"""`seqrec bench overload --floods`, as small as can be: what it measures is for a quiet machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.behaviour import overload


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_modest_key_is_answered_beside_floods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overload, "FLOODS", {name: overload.FLOODS[name] for name in ("items", "batches")})
    args = overload.arguments(
        ["--layers", "1", "--hidden", "32", "--threads", "1", "--flood-seconds", "1", "--rounds", "1"]
    )
    found = overload.measure_floods(tmp_path, args)
    assert list(found) == ["quiet", "items", "batches", "a process"]
    assert all(one.modest.statuses == {200: len(one.modest.seconds)} for one in found.values())
    assert all(found[name].statuses[200] for name in ("items", "batches"))
    overload.report_floods(found)
    assert "items" in capsys.readouterr().out
