from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from index.catalogue.sqlite.catalogue import SqliteCatalogue
from index.catalogue.sqlite.connections import Connections
from seqrec.errors import CatalogueError, CatalogueReplaced
from tests.contracts.catalogue_contract import CatalogueContract, entry


class TestSqliteCatalogue(CatalogueContract):
    factory = "index.catalogue.sqlite.catalogue:SqliteCatalogue"

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "home" / "catalogue.sqlite3")


def test_every_commit_is_synced(tmp_path: Path) -> None:
    connections = Connections(tmp_path / "c.sqlite3")
    with connections.use() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connections.close()


def test_head_costs_microseconds(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "c.sqlite3")
    catalogue.put([entry(str(i)) for i in range(2000)])
    best = min(_seconds(catalogue) for _ in range(200))
    assert best < 1e-3  # some 10 µs; a scan of the log takes milliseconds
    catalogue.close()


def _seconds(catalogue: SqliteCatalogue) -> float:
    start = time.perf_counter()
    assert catalogue.head() == 2000
    return time.perf_counter() - start


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    path.write_text("not a database, " * 100)
    with pytest.raises(CatalogueError, match=r"c\.sqlite3: it is not an SQLite database"):
        SqliteCatalogue(path)


def test_a_file_in_place_of_its_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(CatalogueError, match=r"home is a file, not a directory; set SEQREC_HOME to a directory"):
        SqliteCatalogue(tmp_path / "home" / "c.sqlite3")
    with pytest.raises(CatalogueError, match=r"home is a file, not a directory"):
        SqliteCatalogue(tmp_path / "home" / "shop" / "c.sqlite3")


def test_the_check_is_what_a_process_that_starts_would_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.sqlite3"
    catalogue = SqliteCatalogue(path)
    catalogue.put([entry("a")])
    catalogue.check()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        with pytest.raises(CatalogueError, match=r"c\.sqlite3: the disk is full"):
            catalogue.check()
    with closing(sqlite3.connect(path)) as connection:  # what is in the write-ahead log can still be read
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    with pytest.raises(CatalogueError, match=r"c\.sqlite3: it is not an SQLite database"):
        catalogue.check()
    path.unlink()
    with pytest.raises(CatalogueReplaced, match="was removed or replaced"):
        catalogue.check()
    catalogue.close()


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be opened"):
        SqliteCatalogue(tmp_path)


def test_a_file_where_its_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(CatalogueError, match="home"):
        SqliteCatalogue(tmp_path / "home" / "c.sqlite3")


def test_damage_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    catalogue = SqliteCatalogue(path)
    catalogue.put([entry(str(i)) for i in range(500)])
    catalogue.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match="it is damaged; restore it"):
        list(SqliteCatalogue(path).scan())


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_batch_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, opened = sqlite3.connect, list[sqlite3.Connection]()

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **options))
        opened[-1].execute("PRAGMA max_page_count = 60")
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", limited)
    catalogue = SqliteCatalogue(tmp_path / "c.sqlite3")
    catalogue.put([entry("a")])
    with pytest.raises(CatalogueError, match="the disk is full; free some space"):
        catalogue.put([entry(f"b{i}") for i in range(5000)])
    assert catalogue.head() == catalogue.count() == 1
    for connection in opened:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert catalogue.put([entry("c")]).seq == 2
    catalogue.close()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    SqliteCatalogue(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    connection.close()
    with pytest.raises(CatalogueError, match="schema 99; this version reads 1"):
        SqliteCatalogue(path)


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    catalogue = SqliteCatalogue(path)
    catalogue.put([entry("a")])
    for name in ("c.sqlite3", "c.sqlite3-wal", "c.sqlite3-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(CatalogueReplaced, match="another file"):
        catalogue.put([entry("b")])
    SqliteCatalogue(path).close()
    with pytest.raises(CatalogueReplaced):
        catalogue.head()
    catalogue.close()


def test_a_backup_restored_in_place_is_noticed(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "c.sqlite3")
    catalogue.put([entry("a")])
    connection = sqlite3.connect(tmp_path / "c.sqlite3")
    older = sqlite3.connect(":memory:")
    connection.backup(older)
    catalogue.put([entry("b")])
    assert catalogue.head() == 2
    older.backup(connection)
    with pytest.raises(CatalogueReplaced, match="it ends at change 1, and change 2 was read before"):
        catalogue.head()
    with connection:
        connection.execute("UPDATE meta SET value = 'other' WHERE name = 'catalogue_id'")
    with pytest.raises(CatalogueReplaced, match="replaced by another one, other"):
        catalogue.head()
    connection.close()
    older.close()
    catalogue.close()


def test_a_closed_catalogue_says_so(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "c.sqlite3")
    catalogue.close()
    with pytest.raises(CatalogueError, match="was closed"):
        catalogue.head()


def test_closing_waits_for_a_scan(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "c.sqlite3")
    catalogue.put([entry("a"), entry("b")])
    rows = catalogue.scan()
    next(rows)
    catalogue.close()
    assert next(rows)[1].item.item_id == "b"
    rows.close()  # type: ignore[attr-defined]


def test_a_missing_fts5_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.catalogue.sqlite.catalogue._SCHEMA", "CREATE VIRTUAL TABLE words USING fts5x (text)")
    with pytest.raises(CatalogueError, match="without FTS5"):
        SqliteCatalogue(tmp_path / "c.sqlite3")


def test_connections_are_used_again(tmp_path: Path) -> None:
    connections = Connections(tmp_path / "c.sqlite3")
    with connections.use() as one:
        pass
    with connections.use() as two:
        assert two is one
        with connections.use() as three:
            assert three is not one
    connections.close()


def test_a_search_looks_at_a_bounded_number_of_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = SqliteCatalogue(tmp_path / "c.sqlite3")
    catalogue.put([entry(f"{n}", {"title": f"oak number{n}"}) for n in range(50)])
    assert len(catalogue.find("oak", 100)) == 50
    monkeypatch.setattr("index.catalogue.sqlite.catalogue._MOST_CONSIDERED", 10)
    assert catalogue.find("oak", 100) == [f"{n}" for n in range(40, 50)]  # the newest
    assert catalogue.find("number7 oa", 100) == ["7"]
    catalogue.close()


def test_a_change_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    catalogue = SqliteCatalogue(path)
    catalogue.put([entry("desk")])
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO log (op, item_id, time) VALUES ('merge', 'desk', 0)")
    with pytest.raises(CatalogueError, match="change 2 of the log is 'merge', which this version does not know"):
        list(catalogue.changes(0, 10))
    assert [change.op for change in catalogue.changes(0, 1)] == ["put"]
    catalogue.close()
