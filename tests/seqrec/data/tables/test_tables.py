"""Tables of every kind give the same rows, and a broken row is named by its place."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.tables.base import Rejects, TableOptions
from seqrec.data.tables.open import open_table
from seqrec.data.tables.source_table import recognize
from seqrec.errors import FileFormatError, InputError

ROWS = [("1", "Café – rouge", "2.5"), ("2", 'Desk 5" wide', "10"), ("3", "two\nlines; and, more", None)]
NAMES = ["id", "title", "price"]


def rows_of(path: Path | str, rejects: Rejects | None = None, **options: Any) -> list[tuple[Any, ...]]:
    table = open_table(str(path), TableOptions(**options), "items")
    return [
        row
        for batch in table.batches(None, rejects or Rejects("raise"))
        for row in zip(*batch.to_pydict().values(), strict=True)
    ]


def csv_text(delimiter: str, end: str = "\n") -> str:
    def quoted(value: str | None) -> str:
        if value is None:
            return ""
        special = any(sign in value for sign in (delimiter, '"', "\n"))
        return '"' + value.replace('"', '""') + '"' if special else value

    return "".join(delimiter.join(quoted(value) for value in row) + end for row in [NAMES, *ROWS])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_encoding_and_delimiter(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(csv_text(delimiter).encode(encoding))
    assert rows_of(path) == ROWS


def test_line_ends_and_compression(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_text(";", "\r\n").encode())
    assert rows_of(tmp_path / "a.csv") == ROWS
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(csv_text(";").encode("cp1252")))
    assert rows_of(tmp_path / "a.csv.gz") == ROWS


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Красный стол и стул для кухни"),
        ("shift_jis", "赤い机と椅子の台所用品を売る店"),
        ("gb18030", "红色的桌子和椅子以及厨房用品商店"),
    ],
)
def test_other_scripts_are_recognised(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(("id,title\n" + "".join(f"{n},{text} {n}\n" for n in range(40))).encode(encoding))
    assert rows_of(path)[0] == ("0", f"{text} 0")


def test_an_encoding_can_be_set_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("id,title\n1,Œuvre Łódź\n".encode("cp1250", "replace"))
    assert rows_of(path, encoding="cp1250")[0][1].endswith("Łódź")
    with pytest.raises(FileFormatError, match="no encoding 'klingon'"):
        rows_of(path, encoding="klingon")


def test_damaged_characters_are_named_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    lines = [f"{n},Café {n}".encode() for n in range(9)]
    lines[4] = b"4,Caf\xe9 4"
    path.write_bytes(b"id,title\n" + b"\n".join(lines) + b"\n")
    with pytest.raises(FileFormatError, match=r"items\.csv, line 6: bytes that are not UTF-8, as 1 lines have"):
        rows_of(path)
    assert rows_of(path, Rejects("skip"))[4] == ("4", "Caf\ufffd 4")


def test_rows_of_another_width_are_named_by_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('id,title\n1,"two\nlines"\n2,a,b\n3,c\n4\n')
    with pytest.raises(FileFormatError, match=r"items\.csv, line 4: 3 columns; the first line has 2"):
        rows_of(path)
    rejects = Rejects("skip")
    assert rows_of(path, rejects) == [("1", "two\nlines"), ("3", "c")]
    assert rejects.counts == {"rows with another number of columns": 2}
    table = open_table(str(path), TableOptions(), "items")
    list(table.batches(None, Rejects("skip")))
    assert str(table.error(1, "no")).endswith("items.csv, line 5: no")


def test_a_stray_quote_does_not_hide_rows(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,title\n" + "".join(f"{n},t{n}\n" for n in range(5)) + '5,"oops\n6,a\n7,b\n8,"c"\n9,d\n')
    with pytest.raises(FileFormatError, match=r"items\.csv, lines? 7") as caught:
        rows_of(path)
    assert "quote" in str(caught.value)


def test_quotes_that_mean_nothing(tmp_path: Path) -> None:
    path = tmp_path / "items.tsv"
    path.write_text('id\ttitle\n1\t"Quoted" title\n2\t"5 inch monitor\n3\t"open\n')
    assert rows_of(path) == [("1", '"Quoted" title'), ("2", '"5 inch monitor'), ("3", '"open')]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u1,i1,1700000000\nu2,i2,1700000001\n")
    table = open_table(str(path), TableOptions(), "events")
    assert list(table.columns) == ["column 1", "column 2", "column 3"]
    assert rows_of(path)[0] == ("u1", "i1", "1700000000")
    assert str(table.error(1, "no")).endswith("log.csv, line 2: no")


def test_json_lines_and_json(tmp_path: Path) -> None:
    records = [
        {"id": 1, "title": "a", "tags": ["x", "y"], "brand": {"name": "Acme", "id": 7}},
        {"id": 2, "title": None},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "a.json").write_text(json.dumps({"products": records, "total": 2}))
    wanted = [(1, "a", ["x", "y"], "Acme", 7), (2, None, None, None, None)]
    assert rows_of(tmp_path / "a.jsonl") == wanted
    assert rows_of(tmp_path / "a.json") == wanted
    table = open_table(str(tmp_path / "a.jsonl"), TableOptions(), "items")
    assert list(table.columns) == ["id", "title", "tags", "brand.name", "brand.id"]


def test_broken_json_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": \n{"id": 3}\n')
    with pytest.raises(FileFormatError, match=r"a\.jsonl, line 2: not JSON"):
        rows_of(path)
    rejects = Rejects("skip")
    assert rows_of(path, rejects) == [(1,), (3,)]
    assert rejects.count == 1
    (tmp_path / "b.json").write_text('{\n"id": 1}\n{"id": 2}\n')
    with pytest.raises(FileFormatError, match=r"b\.json, line 3: not JSON.*name the file \.jsonl"):
        rows_of(tmp_path / "b.json")


@pytest.mark.slow
def test_parquet_excel_and_sql(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "title": ["a", None], "tags": [["x"], ["y", "z"]]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [(1, "a", ["x"]), (2, None, ["y", "z"])]
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["id", "title"])
    book.active.append([1, "Café"])
    book.active.append([None, None])
    book.active.append([2, None])
    book.save(tmp_path / "a.xlsx")
    assert rows_of(tmp_path / "a.xlsx") == [(1, "Café"), (2, None)]
    with pytest.raises(FileFormatError, match="no sheet 'Other'; there are Sheet"):
        rows_of(tmp_path / "a.xlsx", sheet="Other")
    pytest.importorskip("sqlalchemy")
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("create table products (id integer, title text, price real)")
    connection.executemany("insert into products values (?, ?, ?)", [(1, "a", 2.5), (2, None, None)])
    connection.commit()
    connection.close()
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    assert rows_of(url) == [(1, "a", 2.5), (2, None, None)]
    assert rows_of(url, query="select id from products where id > 1") == [(2,)]
    with pytest.raises(InputError, match="no such column: nope"):
        rows_of(url, query="select nope from products")
    with pytest.raises(InputError, match="no such SQLite file"):
        rows_of(f"sqlite:///{tmp_path / 'none.db'}")


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name, rows in (("b", "3,c\n"), ("a", "1,a\n2,b\n")):
        (tmp_path / f"{name}.csv").write_text("id,title\n" + rows)
    assert rows_of(tmp_path) == [("1", "a"), ("2", "b"), ("3", "c")]
    assert rows_of(tmp_path / "*.csv") == rows_of(tmp_path)
    table = open_table(str(tmp_path), TableOptions(), "events")
    list(table.batches(None, Rejects("raise")))
    assert str(table.error(2, "no")).endswith("b.csv, line 2: no")
    (tmp_path / "c.csv").write_text("id,name\n4,d\n")
    with pytest.raises(FileFormatError, match=r"c\.csv: no column 'title', which .*a\.csv has"):
        rows_of(tmp_path)
    (tmp_path / "d.jsonl").write_text("{}\n")
    with pytest.raises(FileFormatError, match="files of several kinds"):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"PK\x03\x04 xl/workbook", "an Excel workbook"),
        ("a.csv", b"\x1f\x8b\x08\x00", "compressed with gzip, but its name does not end in .gz"),
        ("a.parquet", b"not parquet", "not a Parquet file"),
        ("a.xls", b"x", "files of the kind .xls are not read"),
        ("a.json", b"[1, 2]", "not a list of objects"),
        ("a.jsonl", b"\n", "no objects in it"),
        ("a.json", b'[{"id": 1}, {"id', r"line 1: not JSON: .*; it is damaged or cut off"),
        ("a.csv", b"<!DOCTYPE html>\n<title>Log in</title>\n", "line 1: a page of HTML, not a table"),
        (
            "a.csv",
            b"<?xml version='1.0'?>\n<rss><channel>\n",
            "line 1: XML, not a table; export it as CSV, TSV or JSON",
        ),
        ("a.json", b'{"a": 1}', "not a list of objects, nor an object with one"),
        ("a.json", b'[{"id": 1}, 2]', "line 1: a number in a list of objects"),
        ("a.json", b'[\n{"id": 1},\n{"id": 1 "x": 2}]', "line 3: not JSON: Expecting '.' delimiter"),
        ("a.json", b'{"id": "open', "line 1: not JSON: Unterminated string"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        rows_of(tmp_path / name)


def test_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path / "*.csv"):
        with pytest.raises(FileFormatError, match=r"no such file or folder|no file has a name of this pattern"):
            rows_of(path)
    with pytest.raises(FileFormatError, match="a folder without a file whose name ends in"):
        rows_of(tmp_path)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(csv_text(",").encode() * 2000)[:-20])
    with pytest.raises(FileFormatError, match=r"cut\.csv\.gz.*(cut off|cannot be)"):
        rows_of(tmp_path / "cut.csv.gz")


def test_movielens_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n2,Heat,Crime\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,4.0,964982703\n7,2,2.5,964982704\n")
    items = open_table(str(tmp_path), TableOptions(format="movielens"), "items")
    assert list(items.columns) == ["item_id", "title", "year", "genres"]
    [batch] = items.batches(None, Rejects("raise"))
    assert batch.to_pylist()[0]["genres"] == ["Animation", "Comedy"]
    events = open_table(str(tmp_path), TableOptions(format="movielens"), "events")
    [batch] = events.batches(["user_id", "rating"], Rejects("raise"))
    assert batch.to_pydict() == {"user_id": ["7", "7"], "rating": [4.0, 2.5]}


def test_folders_of_recbole_and_amazon_are_recognised(tmp_path: Path) -> None:
    recbole, amazon, other = (tmp_path / name for name in ("ml", "beauty", "shop"))
    for folder in (recbole, amazon, other):
        folder.mkdir()
    (recbole / "ml.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n7\t1\t5\n7\t2\t6\n")
    (recbole / "ml.item").write_text("item_id:token\ttitle:token_seq\n1\tToy Story\n2\tHeat\n")
    review = {"reviewerID": "u", "asin": "B1", "overall": 5.0, "unixReviewTime": 1400000000}
    (amazon / "Beauty.json").write_text(json.dumps(review) + "\n")
    (amazon / "meta_Beauty.json").write_text(json.dumps({"asin": "B1", "title": "Soap", "brand": "Acme"}) + "\n")
    (other / "metadata.csv").write_text("id,title\n1,a\n")
    (other / "orders.csv").write_text("id,user\n1,u\n")
    assert [recognize(folder) for folder in (recbole, amazon, other)] == ["recbole", "amazon", None]
    for folder, kind, titles in ((recbole, "recbole", ["Toy Story", "Heat"]), (amazon, "amazon", ["Soap"])):
        items = open_table(str(folder), TableOptions(format=kind), "items")
        [batch] = items.batches(["title"], Rejects("raise"))
        assert batch.to_pydict() == {"title": titles}
        events = open_table(str(folder), TableOptions(format=kind), "events")
        assert {"user_id", "item_id", "timestamp"} <= set(events.columns)


@pytest.mark.parametrize(
    ("before", "delimiter"),
    [
        ("sep=;\n", ";"),
        ("# export of 2024-01-01\n#\n", ","),
        ("Sales report 2024\n\n", ","),
        ("Sales report 2024;;\n", ";"),
    ],
)
def test_lines_before_the_names_are_no_part_of_the_table(tmp_path: Path, before: str, delimiter: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text(before + csv_text(delimiter) + delimiter.join("abcd") + "\n")
    rejects = Rejects("skip")
    assert rows_of(path, rejects) == ROWS
    line = before.count("\n") + 6
    assert f"line {line}: 4 columns; the first line has 3" in str(rejects.examples[0])


def test_null_as_databases_write_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,title\n1,NULL\n\\N,"\\N"\n3,Null and void\n')
    assert rows_of(tmp_path / "a.csv") == [("1", None), (None, None), ("3", "Null and void")]


def test_names_of_groups_over_the_names_of_the_columns(tmp_path: Path) -> None:
    """Only where numbers stand below a name: a first column without a name is that of a running number."""
    (tmp_path / "a.csv").write_text("Article,,Sales,\nNo.,Name,Net,Gross\nA1,Lamp,1.5,2\nA2,Desk,3,4\n")
    assert rows_of(tmp_path / "a.csv") == [("A1", "Lamp", "1.5", "2"), ("A2", "Desk", "3", "4")]
    table = open_table(str(tmp_path / "a.csv"), TableOptions(), "items")
    assert list(table.columns) == ["No.", "Name", "Net", "Gross"]
    assert str(table.error(1, "no")).endswith("a.csv, line 4: no")
    (tmp_path / "b.csv").write_text("id,,title\nA1,red,Lamp\nA2,blue,Desk\n")
    assert len(rows_of(tmp_path / "b.csv")) == 2


def test_a_table_whose_first_name_is_empty_keeps_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",title\n0,a\n1,b\n")
    assert rows_of(tmp_path / "a.csv") == [("0", "a"), ("1", "b")]
    (tmp_path / "b.csv").write_text("title\na\n")
    assert rows_of(tmp_path / "b.csv") == [("a",)]


@pytest.mark.slow
def test_a_title_over_the_table_of_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["Sales report 2024"])
    book.active.merge_cells("A1:C1")
    book.active.append([])
    for row in (["id", "title", "price"], [1, "a", 2], [2, "b", 3]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert rows_of(tmp_path / "a.xlsx") == [(1, "a", 2), (2, "b", 3)]
    table = open_table(str(tmp_path / "a.xlsx"), TableOptions(), "items")
    assert str(table.error(1, "no")).endswith("a.xlsx: sheet 'Sheet', row 5: no")
    openpyxl.Workbook().save(tmp_path / "b.xlsx")
    with pytest.raises(FileFormatError, match="sheet 'Sheet' is empty"):
        rows_of(tmp_path / "b.xlsx")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.xlsx", "a.json", "a.jsonl"])
def test_a_file_that_may_not_be_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FileFormatError, match=rf"{name}: cannot be read: Permission denied"):
        rows_of(tmp_path / name)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nosuch://u:secret@h/db", "nosuch is not the URL of a database that SQLAlchemy knows; such as postgresql://"),
        ("https://h/items.csv", "https is not the URL of a database .*; download the file first"),
        ("postgresql://u:secret@h:port/db", "not the URL of a database: "),
        ("postgresql+absent://u:secret@h/db", "is not the URL of a database"),
    ],
)
def test_urls_that_are_of_no_database(url: str, reason: str) -> None:
    pytest.importorskip("sqlalchemy")
    with pytest.raises(InputError, match=reason) as caught:
        rows_of(url)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_missing_and_a_server_that_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    asked: dict[str, Any] = {}

    def create(url: Any, connect_args: dict[str, Any]) -> None:
        asked.update(connect_args)
        raise ModuleNotFoundError("No module named 'pymysql'", name="pymysql")

    monkeypatch.setattr(sqlalchemy, "create_engine", create)
    with pytest.raises(InputError, match="its driver is not installed: pip install pymysql"):
        rows_of("mysql+pymysql://h/db?read_timeout=9")
    assert asked == {"connect_timeout": 20}  # what the URL sets stays


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "a.csv.gz",
            b"id,title\n1,a\n",
            r"ends in \.gz but it is not compressed; rename it: mv \S*a\.csv\.gz \S*a\.csv$",
        ),
        ("a.csv", b'[{"id": 1, "title": "a"}]', r"line 1: JSON, not a table: rename it: mv \S*a\.csv \S*a\.json$"),
        ("a.txt", b'{"id": 1}\n{"id": 2}\n', r"line 1: JSON, not a table: rename it: mv \S*a\.txt \S*a\.jsonl$"),
        ("a.csv.gz", gzip.compress(b'{"id": 1}\n{"id": 2}', mtime=0), r"mv \S*a\.csv\.gz \S*a\.jsonl\.gz$"),
        ("a.parquet", b"PAR1" + bytes(99), r"not a Parquet file, or cut off \([^\n]*\); export it again$"),
        ("a.xlsx", b"id,title\n1,a\n", r"not an Excel workbook \(.*\); if it is text, rename it to \.csv$"),
        ("a.pdf", b"%PDF-1.7\n" + bytes(99), r"a PDF document; export the table as CSV$"),
        ("a.xls", b"x", r"are not read; save it as \.xlsx or CSV$"),
        ("a.csv.gz", gzip.compress(bytes(range(32, 120)) * 999, mtime=0)[:-9], r"cut off; export it again$"),
    ],
)
def test_what_is_no_table_has_a_way_out(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=reason):
        rows_of(tmp_path / name)


def test_fields_in_single_quotes(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("'id','title'\n'1','a, b'\n'2','c'\n")
    assert rows_of(path) == [("1", "a, b"), ("2", "c")]
    path.write_text("id,title\n1,'a'\n2,don't\n")
    assert rows_of(path) == [("1", "'a'"), ("2", "don't")]


def test_one_damaged_line_of_two_is_not_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("id,title\n1,numéro\n2,num".encode() + b"\xe9ro\n")
    assert rows_of(path, Rejects("skip")) == [("1", "numéro"), ("2", "num\ufffdro")]


def test_text_of_a_macintosh(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(("id,title\n" + "".join(f"{n},Küche Größe {n}\n" for n in range(40))).encode("mac_roman"))
    assert rows_of(path)[0] == ("0", "Küche Größe 0")


def test_the_process_waits_for_pyarrows_threads_before_it_ends(tmp_path: Path) -> None:
    """One in thirty aborted without it, too few for a test to see; so the pause itself is looked at."""
    (tmp_path / "a.csv").write_text("id,title\n1,a\n")
    code = (
        "import time; time.sleep = lambda seconds: print('waited', seconds)\n"
        "from seqrec.data.tables.base import Rejects, TableOptions\n"
        "from seqrec.data.tables.open import open_table\n"
        f"list(open_table({str(tmp_path / 'a.csv')!r}, TableOptions(), 'items').batches(None, Rejects('raise')))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "waited 0.1\n"
