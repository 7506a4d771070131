"""RecBole's atomic files, in and out."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqrec.data.items import read_interactions, read_items
from seqrec.data.sources.cli import export_data
from seqrec.data.sources.dataset import Filters, import_dataset
from seqrec.data.sources.recbole import RecBoleFields, RecBoleSource
from seqrec.errors import FileFormatError, InputError

Run = Callable[..., Any]

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t3\t891717742.0\n"
)
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float\tvector:float_seq\n"
    "242\tKolya\t1996\tComedy Sci\u00a0Fi\t3.5\t0.1 0.2\n"
    "302\tL.A. Confidential\t1997\t\t\t\n"
    '303\t"Ulee\'s ""Gold"""\t\tDrama\t7\t0.3\n'
    '304\t"raw" quotes "x"\t\t\t7.0\t\n'
)


def write(folder: Path, inter: str = INTER, item: str = ITEM, name: str = "ml") -> Path:
    folder = folder / "ml"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.inter").write_text(inter, encoding="utf-8")
    if item:
        (folder / f"{name}.item").write_text(item, encoding="utf-8")
    return folder


def test_reading(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path)
    done = run("recbole", folder, "--items", "all", "--list-field", "class")
    assert done.events == [("196", "242", 881250949), ("186", "302", 891717742)]
    assert done.items == {
        "242": {"movie_title": "Kolya", "release_year": "1996", "class": ("Comedy", "Sci Fi"), "price": 3.5},
        "302": {"movie_title": "L.A. Confidential", "release_year": "1997"},
        "303": {"movie_title": 'Ulee\'s "Gold"', "class": ("Drama",), "price": 7},
        "304": {"movie_title": '"raw" quotes "x"', "price": 7.0},
    }
    assert "left out vector" in caplog.text
    assert run("recbole", folder / "ml.inter").items["242"]["class"] == "Comedy Sci Fi"


def test_without_items_every_item_is_an_id(tmp_path: Path, run: Run) -> None:
    done = run("recbole", write(tmp_path, item=""))
    assert done.items == {"242": {}, "302": {}}
    assert done.about["counts"]["items_without_text"] == 2


def test_other_names_and_no_times(tmp_path: Path, run: Run) -> None:
    inter = "listener:token\tartist_id:token\tstars:float\nu1\ta2\t1\nu1\ta1\t5\n"
    folder = write(tmp_path, inter, "artist_id:token\tname:token_seq\na1\tBach\na2\tLully\n")
    names = ["--user-field", "listener", "--item-field", "artist_id", "--rating-field", "stars"]
    with pytest.raises(FileFormatError, match=r"ml\.item, line 1: no field 'item_id', there are artist_id, name; "):
        run("recbole", folder)
    with pytest.raises(
        FileFormatError, match=r"ml\.inter, line 1: no field 'user_id', there are listener, artist_id, "
    ):
        run("recbole", folder, *names[2:])
    with pytest.raises(FileFormatError, match=r"no field 'timestamp'.*--file-order if there are no times"):
        run("recbole", folder, *names)
    done = run("recbole", folder, *names, "--file-order")
    assert done.events == [("u1", "a2", 0), ("u1", "a1", 1)]
    assert done.items == {"a1": {"name": "Bach"}, "a2": {"name": "Lully"}}
    assert run("recbole", folder, *names, "--file-order", "--min-rating", "4").events == [("u1", "a1", 1)]


def test_a_data_set_that_was_split(tmp_path: Path, run: Run) -> None:
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    for place, part in enumerate(("train", "valid", "test")):
        folder = write(tmp_path, f"{head}u\ti{place}\t{place}\n", "", f"toys.{part}")
    (folder / "toys.item.gz").write_bytes(gzip.compress(b"item_id:token\ttitle:token_seq\ni1\tBall\n"))
    done = run("recbole", folder)
    assert done.events == [("u", "i0", 0), ("u", "i1", 1), ("u", "i2", 2)]
    assert done.items["i1"] == {"title": "Ball"}
    (folder / "toys.test.inter").unlink()
    with pytest.raises(FileFormatError, match=r"one \.inter file is needed, found toys\.train\.inter, toys\.valid"):
        run("recbole", folder)
    write(tmp_path, "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\n", "")
    with pytest.raises(FileFormatError, match="use the one with single events"):
        run("recbole", folder)


@pytest.mark.parametrize(
    ("inter", "item", "reason"),
    [
        (INTER + "196\t242\t3\n", ITEM, r"ml\.inter, line 4: 3 fields; the first line has 4"),
        (INTER + "196\t242\t3\tnoon\n", ITEM, r"ml\.inter, line 4: timestamp: 'noon' is not a number"),
        (INTER, ITEM + "305\tx\t\t\tcheap\t\n", r"ml\.item, line 6: 'cheap' is not a number"),
        (INTER, ITEM + "305\tx\n", r"ml\.item, line 6: 2 fields; the first line has 6"),
    ],
)
def test_a_broken_line_is_named_or_skipped(inter: str, item: str, reason: str, tmp_path: Path, run: Run) -> None:
    folder = write(tmp_path, inter, item)
    with pytest.raises(FileFormatError, match=reason):
        run("recbole", folder)
    assert len(run("recbole", folder, "--on-error", "skip").events) == 2


@pytest.mark.parametrize(
    ("inter", "reason"),
    [("user_id\titem_id\n", r"line 1: 'user_id' is not field:type"), ("a:b\n", "'a:b' is not"), ("", "empty")],
)
def test_a_file_without_types_is_refused(inter: str, reason: str, tmp_path: Path, run: Run) -> None:
    with pytest.raises(FileFormatError, match=reason):
        run("recbole", write(tmp_path, inter), "--on-error", "skip")
    with pytest.raises(FileFormatError, match=r"ml\.item, line 1: no field 'genre'"):
        run("recbole", write(tmp_path), "--list-field", "genre")
    with pytest.raises(FileFormatError, match="no such folder"):
        run("recbole", tmp_path / "nowhere")


def export(folder: Path, items: list[dict[str, Any]], events: list[tuple[str, str, object]], *more: str) -> Path:
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    with (folder / "events.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "timestamp"), *events])
    files = ["--items", str(folder / "items.jsonl"), "--interactions", str(folder / "events.csv")]
    export_data(["recbole", *files, "--out", str(folder / "shop"), "--overwrite", *more])
    return folder / "shop"


ITEMS: list[dict[str, Any]] = [
    {"item_id": "a", "attributes": {"title": "Oak\tdesk\nof 1", "tags": ["office", "solid wood"], "price": 120}},
    {"item_id": '"b', "attributes": {"title": '"Best" lamp', "price": 9.5, "size": "L"}},
    {"item_id": "c", "attributes": {"size": 3}},
]
EVENTS: list[tuple[str, str, object]] = [("u1", "a", 20), ("u1", '"b', 10), ("ü 2", "a", 10)]


def test_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = export(tmp_path, ITEMS, EVENTS)
    assert capsys.readouterr().out == f"{shop}\n"
    assert (shop / "shop.inter").read_text(encoding="utf-8").splitlines() == [
        "user_id:token\titem_id:token\ttimestamp:float",
        'u1\t"""b"\t10',
        "ü 2\ta\t10",
        "u1\ta\t20",
    ]
    assert (shop / "shop.item").read_text(encoding="utf-8").split("\n") == [
        "item_id:token\ttitle:token\ttags:token_seq\tprice:float\tsize:token",
        "a\tOak desk of 1\toffice solid\u00a0wood\t120\t",
        '"""b"\t"""Best"" lamp"\t\t9.5\tL',
        "c\t\t\t\t3",
        "",
    ]
    configuration = json.loads((shop / "shop.yaml").read_text(encoding="utf-8"))
    assert configuration["load_col"]["item"] == ["item_id", "title", "tags", "price", "size"]
    assert configuration["eval_args"]["split"] == {"LS": "valid_and_test"}


def test_writing_some_attributes(tmp_path: Path) -> None:
    shop = export(tmp_path, ITEMS, EVENTS, "--attributes", "price", "title")
    assert (shop / "shop.item").read_text(encoding="utf-8").startswith("item_id:token\tprice:float\ttitle:token\n")
    with pytest.raises(InputError, match="no item has 'color'; there are title, tags, price, size"):
        export(tmp_path, ITEMS, EVENTS, "--attributes", "color")


@pytest.mark.parametrize(
    ("items", "events", "reason"),
    [
        ([{"item_id": "NA", "attributes": {}}], [("u", "NA", 1)], "'NA' is read as a missing value"),
        ([{"item_id": "a", "attributes": {}}], [("null", "a", 1)], "'null' is read as a missing value"),
        ([{"item_id": "a", "attributes": {"a:b": "x"}}], [("u", "a", 1)], "the name 'a:b' cannot be written"),
        ([{"item_id": "a", "attributes": {"item_id": "x"}}], [("u", "a", 1)], "the name 'item_id' cannot be written"),
        ([{"item_id": "a", "attributes": {}}], [("u", "b", 1)], "item 'b' is not in the items file"),
    ],
)
def test_what_the_files_cannot_hold_is_refused(
    items: list[dict[str, Any]], events: list[tuple[str, str, object]], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        export(tmp_path, items, events)
    assert not (tmp_path / "shop").exists()


def test_a_name_that_recbole_keeps_for_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its own copy"):
        export(tmp_path, ITEMS, EVENTS, "--out", str(tmp_path / "ml-100k"))


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    shop = export(tmp_path, ITEMS, EVENTS)
    files = ["--items", str(tmp_path / "items.jsonl"), "--interactions", str(tmp_path / "events.csv")]
    with pytest.raises(InputError, match="exists already; add --overwrite"):
        export_data(["recbole", *files, "--out", str(shop)])
    export_data(["recbole", *files, "--out", str(shop), "--overwrite"])
    (tmp_path / "plain").touch()
    with pytest.raises(InputError, match=r"plain/x cannot be created, since .*plain is a file; choose another path"):
        export_data(["recbole", *files, "--out", str(tmp_path / "plain" / "x")])
    (shop / "shop.inter").rename(shop / "thesis.txt")
    with pytest.raises(InputError, match=r"shop is not replaced, since it has other files and no shop\.inter"):
        export_data(["recbole", *files, "--out", str(shop), "--overwrite"])
    assert (shop / "thesis.txt").is_file()


@pytest.mark.parametrize("closed", [False, True])
def test_a_stray_quote_hides_no_rows(closed: bool, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "ml"
    folder.mkdir()
    rows = ['u\t"a\t0', *(f"u{n}\ta{n}\t{n}" for n in range(900)), 'u\tb"\t1' if closed else "u\tb\t1"]
    (folder / "ml.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows))
    assert len(run("recbole", folder).events) == 902


text = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=12)
name = st.text("abcdefgh_", min_size=1, max_size=4).filter(lambda value: value != "item_id")
part = st.text(st.characters(whitelist_categories=("L", "N", "P")), min_size=1, max_size=6)
phrase = st.lists(part, min_size=1, max_size=2).map(" ".join)
value = st.one_of(text, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
tags = st.lists(phrase, min_size=1, max_size=3)
ids = st.lists(
    text.filter(lambda value: value == unicodedata.normalize("NFC", value).strip()), min_size=1, max_size=4, unique=True
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=ids, users=ids, data=st.data())
def test_what_is_exported_comes_back(ids: list[str], users: list[str], data: st.DataObject, tmp_path: Path) -> None:
    """Texts, numbers and lists; an attribute that is a number here and a text there comes back as text."""
    missing = {"NA", "nan", "null", "None", "NULL", "N/A", "NaN", "n/a"}
    ids, users = (
        [one for one in some if one not in missing and not one.startswith(("#", "-", "1.#", "<"))] or ["x"]
        for some in (ids, users)
    )
    items = [
        {"item_id": one, "attributes": {"title": data.draw(text), "price": data.draw(value), "tags": data.draw(tags)}}
        for one in ids
    ]
    events = data.draw(
        st.lists(
            st.tuples(st.sampled_from(users), st.sampled_from(ids), st.integers(-(2**40), 2**40)),
            min_size=1,
            max_size=6,
        )
    )
    shop = export(tmp_path, items, events)
    back = tmp_path / "back"
    source = RecBoleSource(shop, RecBoleFields(lists=("tags",)))
    import_dataset(source, back, Filters(items="all"), {}, overwrite=True)
    mixed = any(isinstance(item["attributes"]["price"], str) for item in items)
    for item in items:
        item["attributes"]["tags"] = tuple(item["attributes"]["tags"])
        if mixed:
            item["attributes"]["price"] = str(item["attributes"]["price"])
    found = [{"item_id": one.item_id, "attributes": dict(one.attributes)} for one in read_items(back / "items.jsonl")]
    assert found == items
    read = read_interactions(back / "interactions.csv")
    assert list(zip(read.user_ids, read.item_ids, read.timestamps, strict=True)) == sorted(events, key=lambda e: e[2])


@pytest.mark.slow
def test_real_data_come_back(online_retail: Path, tmp_path: Path) -> None:
    """The first 20,000 events of the bundled shop, whose texts are as a shop writes them, and all its items."""
    events = tmp_path / "events.csv"
    with gzip.open(online_retail / "interactions.csv.gz", "rt", encoding="utf-8") as file:
        events.write_text("".join(itertools.islice(file, 20_001)), encoding="utf-8")
    items = online_retail / "items.jsonl.gz"
    export_data(["recbole", "--items", str(items), "--interactions", str(events), "--out", str(tmp_path / "retail")])
    back = tmp_path / "back"
    import_dataset(RecBoleSource(tmp_path / "retail", RecBoleFields()), back, Filters(items="all"), {}, compress=True)
    assert read_items(back / "items.jsonl.gz") == read_items(items)
    assert histories(read_interactions(back / "interactions.csv.gz")) == histories(read_interactions(events))


def histories(interactions: Any) -> dict[str, list[tuple[int, str]]]:
    events: dict[str, list[tuple[int, str]]] = {}
    for row in interactions.timestamps.argsort(kind="stable").tolist():
        event = int(interactions.timestamps[row]), interactions.item_ids[row]
        events.setdefault(interactions.user_ids[row], []).append(event)
    return events
