from __future__ import annotations

import gzip
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.build.reindex import Result
from index.build.sync import sync
from index.build.sync_cli import sync_items
from index.catalogue.base import CatalogueItem
from index.catalogue.open import open_catalogue
from index.catalogue.redis.catalogue import RedisCatalogue
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from seqrec.data.item_table import read_any_items
from seqrec.data.items import Item, make_item
from seqrec.encoder import Encoder
from seqrec.errors import FileFormatError, InputError, SnapshotError
from tests.index.conftest import Build

Captured = pytest.CaptureFixture[str]


def write(path: Path, items: list[Item]) -> Path:
    lines = [{"item_id": i.item_id, "attributes": dict(i.attributes), "available": i.available} for i in items]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def feed(tmp_path: Path, home: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    assert isinstance(build(), Result)
    return tmp_path / "feed.jsonl"


def answer(capsys: Captured) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_feed_creates_updates_and_hides(
    feed: Path, home: Path, tiny_items: list[Item], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Encoder.encode_item_tokens

    def counting(self: Encoder, items: Any, *arguments: Any) -> Any:
        encoded.append(len(items))
        return encode(self, items, *arguments)

    monkeypatch.setattr(Encoder, "encode_item_tokens", counting)
    gone, hidden, *stay = tiny_items
    new = make_item("kite", {"title": "Paper kite"})
    write(feed, [replace(hidden, available=False), *stay, new])
    sync_items([str(feed), "--json"])
    assert answer(capsys) == {"created": 1, "updated": 1, "unchanged": 6, "gone": 1, "left_out": 0}
    assert sum(encoded) == 1
    with closing(open_catalogue(home)) as catalogue:
        assert catalogue.count() == 9
        stored = catalogue.get(gone.item_id)
        assert stored is not None
        assert (stored[1].item, stored[1].vector is not None) == (replace(gone, available=False), True)
    sync_items([str(feed), "--json"])
    assert answer(capsys) == {"created": 0, "updated": 0, "unchanged": 8, "gone": 0, "left_out": 0}
    write(feed, [*tiny_items, new])
    sync_items([str(feed)])
    assert capsys.readouterr().out == "0 items created, 2 updated, 7 unchanged, 0 gone (unavailable now)\n"
    assert sum(encoded) == 1


def test_half_a_feed_changes_nothing(feed: Path, home: Path, tiny_items: list[Item], capsys: Captured) -> None:
    write(feed, [make_item("kite", {"title": "Paper kite"}), *tiny_items[:4]])
    with pytest.raises(InputError, match=r"4 of 8 available items \(50%\) are not in the file.* --allow-gone"):
        sync_items([str(feed)])
    with closing(open_catalogue(home)) as catalogue:
        assert catalogue.count() == 8
    sync_items([str(feed), "--allow-gone", "--json"])
    assert answer(capsys) == {"created": 1, "updated": 0, "unchanged": 4, "gone": 4, "left_out": 0}
    # Of the five that are available now one may go, whatever lies in the catalogue besides.
    write(feed, tiny_items[:3])
    with pytest.raises(InputError, match="2 of 5 available items"):
        sync_items([str(feed)])


def test_what_is_changed_meanwhile_is_not_hidden(
    encoder: Encoder, catalogue: SqliteCatalogue, tiny_items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(catalogue, encoder, tiny_items)
    put = SqliteCatalogue.put
    posted = CatalogueItem(replace(tiny_items[0], attributes={"title": "Posted now"}))

    def post_first(self: SqliteCatalogue, entries: Any, expected: Any = None) -> Any:
        if expected is not None:
            monkeypatch.setattr(SqliteCatalogue, "put", put)
            put(self, [posted])
        return put(self, entries, expected)

    monkeypatch.setattr(SqliteCatalogue, "put", post_first)
    assert sync(catalogue, encoder, tiny_items[2:], max_gone=0.5).gone == 1
    stored = catalogue.get(tiny_items[0].item_id)
    assert stored is not None
    assert stored[1].item == posted.item


def test_a_feed_in_redis(redis_url: str, encoder: Encoder, tiny_items: list[Item]) -> None:
    with closing(RedisCatalogue(redis_url, create=True)) as catalogue:
        assert sync(catalogue, encoder, tiny_items).created == 8
        assert sync(catalogue, encoder, tiny_items[1:]).gone == 1
        stored = catalogue.get(tiny_items[0].item_id)
        assert stored is not None
        assert not stored[1].item.available


def test_without_a_model_there_is_a_way_out(tmp_path: Path, tiny_items: list[Item]) -> None:
    open_catalogue(tmp_path, create=True).close()
    with pytest.raises(SnapshotError, match="index build"):
        sync_items([str(write(tmp_path / "feed.jsonl", tiny_items)), "--home", str(tmp_path)])


def test_a_table_of_items(tmp_path: Path) -> None:
    path = tmp_path / "products.csv.gz"
    text = 'item_id,title,price,ean,available\n1,"Desk, oak",10.50,0012,true\n2,Lamp,7,4711,no\n3,Mug,,,\n'
    path.write_bytes(gzip.compress(text.encode()))
    assert read_any_items(path) == [
        Item("1", {"title": "Desk, oak", "price": 10.5, "ean": "0012"}),
        Item("2", {"title": "Lamp", "price": 7, "ean": "4711"}, False),
        Item("3", {"title": "Mug"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sku,title\n1,Desk\n", "line 1: there must be a column item_id"),
        ("item_id,title,title\n1,a,b\n", "line 1: each column needs a name"),
        ("item_id,title\n1,Desk,5\n", "line 2: 3 columns; the first line has 2"),
        ("item_id,title\n1,Desk\n1,Lamp\n", "line 3: item '1' occurs already in line 2"),
        ("item_id,title,available\n1,Desk,maybe\n", "line 2: available: true or false, not 'maybe'"),
        ("item_id,title\n,Desk\n", "line 2: item_id: an item id has 1 to 256 bytes"),
        ('item_id,title\n1,"Desk\n', "lines? 2"),
        ("item_id,title\n", "no items in it"),
        ("", "empty"),
    ],
)
def test_a_broken_table_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "products.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileFormatError, match=message):
        read_any_items(path)


SHOP = """format = 1
[items]
path = "produkte.csv"
delimiter = ";"
[items.columns]
"Art.-Nr." = "id"
title = "text"
Preis = { as = "number", decimal = "," }
Bestand = "available"
[events]
path = "log.csv"
item = "sku"
user = "user"
"""


def test_a_shops_export_is_read_as_its_project_says(
    feed: Path, home: Path, tiny_items: list[Item], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = feed.parent
    monkeypatch.chdir(shop)
    (shop / "shop.toml").write_text(SHOP, encoding="utf-8")
    rows = [f'{item.item_id};"{item.attributes["title"]}";1,50;3' for item in tiny_items]
    (shop / "produkte.csv").write_text(
        "\n".join(["Art.-Nr.;title;Preis;Bestand", *rows, "kite;Kite;2,00;0", "blank;;;1", "Summe;;;24"]) + "\n"
    )
    for argv in (["produkte.csv"], []):
        sync_items([*argv, "--json"])
    created, unchanged = map(json.loads, capsys.readouterr().out.splitlines())
    assert (created["created"], created["updated"], unchanged["unchanged"]) == (1, 8, 9)
    assert created["left_out"] == 1  # without a text; the sum is no row
    with pytest.raises(InputError, match="1 items have nothing that the model can read"):
        sync_items(["produkte.csv", "--on-error", "raise"])
    with closing(open_catalogue(home)) as catalogue:
        stored = catalogue.get("kite")
    assert stored is not None
    assert stored[1].item == Item("kite", {"title": "Kite", "Preis": 2}, available=False)
    (shop / "log.csv").write_text("user,sku\nu,kite\n")
    with pytest.raises(FileFormatError, match=r"log\.csv, line 1: no column 'Art\.-Nr\.'; there are user"):
        sync_items(["log.csv"])
    write(feed, tiny_items)  # the program's own format, as before
    sync_items([str(feed), "--json"])
    assert answer(capsys)["gone"] == 0


def test_without_a_project_the_export_is_named(feed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(feed.parent)
    with pytest.raises(InputError, match=r"name the export; only where there is a shop\.toml"):
        sync_items([])
    (feed.parent / "empty.csv").write_text("")
    with pytest.raises(FileFormatError, match=r"empty\.csv: empty"):
        sync_items(["empty.csv"])
