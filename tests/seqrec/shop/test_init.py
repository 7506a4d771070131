"""`seqrec init` on exports with the warts of real ones: what it takes each column for, and what the import makes."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.items import read_interactions, read_items
from seqrec.errors import FileFormatError, InputError
from seqrec.shop.cli import init
from seqrec.shop.imported import import_shop
from seqrec.shop.project import Project, read_project
from tests.seqrec.shop import exports

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kinds(project: Project) -> dict[str, str]:
    return {name: column.kind for name, column in project.config.items.columns.items()}


def test_semicolons_latin_1_and_decimal_commas(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exports.semicolons(folder)
    init(["--items", "artikel.csv", "--events", "bestellungen.csv"])
    out = capsys.readouterr().out
    project = read_project(folder / "shop.toml")
    items, events = project.config.items, project.config.events
    assert (items.encoding, items.delimiter) == ("cp1252", ";")
    assert kinds(project) == {
        "Artikelnummer": "id",
        "Bezeichnung": "text",
        "Warengruppe": "list",
        "Beschreibung": "text",
        "Lagerbestand": "available",
        "Preis": "number",
        "EAN": "stored",
        "Bild": "stored",
    }
    assert items.columns["Preis"].decimal == ","
    assert items.texts == ("Bezeichnung", "Warengruppe", "Beschreibung")
    assert (events.user, events.item, events.time) == ("Kundennummer", "Artikelnummer", "Datum")
    assert (events.time_format, events.zone, events.value) == ("%d.%m.%Y %H:%M", "UTC", "Menge")
    assert events.on_error == "skip"
    text = (folder / "shop.toml").read_text(encoding="utf-8")
    assert "HTML in" in text
    assert "rows repeat an id; the last one counts" in text
    assert "the first items, as the models read them (Bezeichnung, Warengruppe, Beschreibung):" in out
    assert "one history:" in out
    report = import_shop(project)
    made = {item.item_id: item for item in read_items(project.items)}
    assert report.items["kept"] == len(made)
    first = next(iter(made.values()))
    assert str(first.attributes["Bezeichnung"]).endswith("(neu)")
    priced = [item.attributes["Preis"] for item in made.values()]
    assert all(isinstance(price, int | float) for price in priced)
    assert max(priced) > 1234  # type: ignore[type-var]
    descriptions = [str(item.attributes["Beschreibung"]) for item in made.values() if "Beschreibung" in item.attributes]
    assert any(text.startswith("Schönes") and text.endswith("& mehr") for text in descriptions)
    assert 'Zwei Zeilen; mit "Zitat"' in descriptions
    assert not all(item.available for item in made.values())
    assert len(read_interactions(project.interactions, made)) == report.events["kept"]
    left = report.events["left_out"]
    assert report.events["read"] == report.events["kept"] + sum(left.values())
    assert left["no Kundennummer"] > 0
    assert left["items that are not in the catalogue"] > 0


def test_views_carts_and_purchases_with_times_of_two_zones(folder: Path) -> None:
    exports.event_log(folder)
    init(["--items", "products.tsv", "--events", "log"])
    project = read_project(folder / "shop.toml")
    events = project.config.events
    assert kinds(project) == {
        "handle": "id",
        "name": "text",
        "vendor": "text",
        "tags": "list",
        "status": "available",
        "image_src": "stored",
    }
    assert (events.user, events.session, events.type) == ("visitor_id", "session_id", "event_type")
    assert (events.time_format, events.repeats) == ("iso", "session")
    assert {name: (rule.counts, rule.negative) for name, rule in events.types.items()} == {
        "product_view": (True, False),
        "add_to_cart": (True, False),
        "purchase": (True, False),
        "refund": (False, True),
    }
    report = import_shop(project)
    table = pq.read_table(project.interactions)
    assert set(table.column("type").to_pylist()) == {"product_view", "add_to_cart", "purchase"}
    assert report.events["negatives"] == len(pq.read_table(project.items.parent / "negatives.parquet"))
    assert report.events["left_out"]["repeated within a session"] > 0
    users = {user for user in table.column("user_id").to_pylist() if not user.startswith("session-")}
    assert len(users) == 60  # events without a visitor are those of the visitor of their session


def test_parquet_with_datetimes_and_nulls(folder: Path) -> None:
    exports.parquet(folder)
    init(["--items", "catalog.parquet", "--events", "ratings.parquet"])
    project = read_project(folder / "shop.toml")
    events = project.config.events
    assert kinds(project) == {
        "movie_id": "id",
        "title": "text",
        "genres": "list",
        "in_stock": "available",
        "price": "number",
    }
    assert (events.user, events.item, events.time, events.value) == ("uid", "mid", "rated_at", "stars")
    assert events.time_format == "datetime"
    report = import_shop(project)
    made = read_items(project.items)
    assert made[0].item_id == "1"
    assert report.items["without_text"] == 0  # genres are text too
    assert set(report.events["left_out"]) == {"no uid", "no rated_at"}
    users = set(read_interactions(project.interactions).user_ids)
    assert all(user.isdecimal() for user in users)


def test_woocommerce_in_german(folder: Path) -> None:
    exports.woocommerce(folder)
    init(["--items", "products.csv", "--events", "orders.csv"])
    project = read_project(folder / "shop.toml")
    items, events = project.config.items, project.config.events
    found = kinds(project)
    assert [name for name, kind in found.items() if kind == "available"] == ["Vorrätig?"]
    assert (found["Bilder"], found["Lager"], items.texts) == (
        "stored",
        "stored",
        ("Name", "Kategorien", "Kurzbeschreibung"),
    )
    assert (events.user, events.item, events.type) == ("Kundennummer", "Artikelnummer", "Bestellstatus")
    assert {name for name, kind in events.types.items() if kind.negative} == {"Storniert", "Rückerstattet"}
    assert {name for name, kind in events.types.items() if kind.counts} == {"Abgeschlossen", "In Bearbeitung"}
    report = import_shop(project)
    assert 0 < report.items["unavailable"] < 0.25 * report.items["kept"]


def test_shopify_with_a_row_for_each_variant_and_visitors_that_log_in_later(folder: Path) -> None:
    exports.shopify(folder)
    init(["--items", "products_export.csv", "--events", "tracking.jsonl"])
    project = read_project(folder / "shop.toml")
    items, events = project.config.items, project.config.events
    assert (items.id, items.duplicates) == ("Handle", "merge")
    assert [name for name, kind in kinds(project).items() if kind == "available"] == ["Status"]
    assert (events.user, events.session, events.item) == ("user_id", "anonymous_id", "properties.product_id")
    report = import_shop(project)
    made = list(read_items(project.items))
    assert all(item.attributes["Title"] and "every day." in str(item.attributes["Body (HTML)"]) for item in made)
    assert sum(not item.available for item in made) == len(made) // 10
    assert len(set(read_interactions(project.interactions).user_ids)) == 40, "nobody is two people"
    assert not any(reason.startswith("no ") for reason in report.events["left_out"])


def test_the_bundled_shop_is_guessed_right(online_retail: Path, folder: Path) -> None:
    init(["--items", str(online_retail / "items.jsonl.gz"), "--events", str(online_retail / "interactions.csv.gz")])
    project = read_project(folder / "shop.toml")
    assert kinds(project) == {"item_id": "id", "title": "text", "price": "number"}
    events = project.config.events
    assert (events.user, events.item, events.time, events.time_format) == ("user_id", "item_id", "timestamp", "s")


def test_a_movielens_folder(folder: Path) -> None:
    data = folder / "ml"
    data.mkdir()
    movies = "".join(f"{n},Film {n} ({1990 + n}),{'Crime|' * (n % 2)}Drama\n" for n in range(1, 8))
    (data / "movies.csv").write_text("movieId,title,genres\n" + movies)
    ratings = "".join(f"{u},{1 + (u + p) % 7},{p}.5,{964982703 + p}\n" for u in range(30) for p in range(4))
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    init(["ml"])
    project = read_project(folder / "shop.toml")
    assert project.config.items.format == "movielens"
    assert kinds(project) == {"item_id": "id", "title": "text", "genres": "list", "year": "number"}
    assert project.config.events.value == "rating"
    report = import_shop(project)
    assert (report.items["kept"], report.events["kept"]) == (7, 120)


def test_columns_with_names_that_toml_must_quote(folder: Path) -> None:
    (folder / "a.csv").write_text(
        '"Art. Nr","Titel ""kurz""",größe\n' + "".join(f"A{n},Tisch {n} aus Holz,L\n" for n in range(9))
    )
    (folder / "b.csv").write_text("wer,Art. Nr\n" + "".join(f"u{n % 30},A{n % 9}\n" for n in range(200)))
    init(["--items", "a.csv", "--events", "b.csv"])
    project = read_project(folder / "shop.toml")
    assert kinds(project)["Art. Nr"] == "id"
    assert kinds(project)['Titel "kurz"'] == "text"
    assert project.config.events.time is None
    assert import_shop(project).events["unit"] == "order"


def test_one_line_changes_a_guess(folder: Path) -> None:
    exports.parquet(folder)
    init(["--items", "catalog.parquet", "--events", "ratings.parquet"])
    text = (folder / "shop.toml").read_text(encoding="utf-8")
    (folder / "shop.toml").write_text(text.replace('price = "number"', 'price = "drop"'), encoding="utf-8")
    import_shop(read_project(folder / "shop.toml"))
    assert all("price" not in item.attributes for item in read_items(Path("var/data/items.jsonl")))


@pytest.mark.parametrize(
    ("items", "events", "reason"),
    [
        ("id,title\n", "user,id,time\n", "there is no row in it"),
        ("id,title\n1,a\n2,b\n", "user,id,time\nu,8,1700000000\nv,9,1700000001\n", "no column of the events has ids"),
        ("colour\nred\nred\nred\n", "user,id\nu,1\n", "no column has a different value in every row"),
    ],
)  # fmt: skip
def test_files_that_are_not_of_one_shop(folder: Path, items: str, events: str, reason: str) -> None:
    (folder / "a.csv").write_text(items)
    (folder / "b.csv").write_text(events)
    with pytest.raises(InputError, match=reason):
        init(["--items", "a.csv", "--events", "b.csv"])
    assert not (folder / "shop.toml").exists()


def test_an_existing_project_is_kept(folder: Path) -> None:
    exports.parquet(folder)
    (folder / "shop.toml").write_text("mine")
    with pytest.raises(InputError, match=r"shop\.toml exists already; add --overwrite"):
        init(["--items", "catalog.parquet", "--events", "ratings.parquet"])
    assert (folder / "shop.toml").read_text() == "mine"


def test_an_import_that_fails_keeps_the_one_before(folder: Path) -> None:
    exports.parquet(folder)
    init(["--items", "catalog.parquet", "--events", "ratings.parquet"])
    project = read_project(folder / "shop.toml")
    import_shop(project)
    before = project.items.read_bytes()
    text = (folder / "shop.toml").read_text(encoding="utf-8").replace('on_error = "skip"', 'on_error = "raise"')
    (folder / "shop.toml").write_text(text, encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"ratings\.parquet: row \d+: (uid|rated_at) is empty"):
        import_shop(read_project(folder / "shop.toml"))
    assert project.items.read_bytes() == before
    assert not list(project.home.glob(".tmp-*"))
    (folder / "shop.toml").write_text(text.replace('title = "text"', 'titel = "text"'), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"no column 'titel', did you mean 'title'\?; there are movie_id, title"):
        import_shop(read_project(folder / "shop.toml"))


def test_the_import_is_the_same_each_time(folder: Path) -> None:
    exports.event_log(folder)
    init(["--items", "products.tsv", "--events", "log"])
    project = read_project(folder / "shop.toml")
    first = import_shop(project)
    assert import_shop(project) == first
    assert json.loads((project.items.parent / "import.json").read_text()) == {
        "items": first.items,
        "events": first.events,
        "digests": first.digests,
    }


def test_a_database_json_and_excel_give_the_same_shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("sqlalchemy")
    items = [{"sku": f"A{n}", "title": f"Oak desk {n}", "tags": ["office", "wood"][: 1 + n % 2]} for n in range(30)]
    events = [(f"u{u}", f"A{(u + p) % 30}", 1_700_000_000 + 60 * p) for u in range(40) for p in range(5)]
    (folder / "items.json").write_text(json.dumps({"products": items}))
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    book = openpyxl.Workbook()
    book.active.append(["customer", "sku", "bought at"])
    for user, item, when in events:
        book.active.append([user, item, datetime.fromtimestamp(when, UTC).replace(tzinfo=None)])
    book.save(folder / "events.xlsx")
    database = sqlite3.connect(folder / "shop.db")
    database.execute("create table orders (customer text, sku text, at integer)")
    database.executemany("insert into orders values (?, ?, ?)", events)
    database.commit()
    database.close()
    query = "SELECT customer, sku, at FROM orders WHERE at > 0"
    made = []
    for number, options in enumerate(
        (
            ["--items", "items.json", "--events", "sqlite:///shop.db", "--events-query", query],
            ["--items", "items.jsonl", "--events", "events.xlsx"],
        )
    ):
        init([*options, "--out", f"shop-{number}.toml"])
        project = read_project(folder / f"shop-{number}.toml")
        import_shop(project)
        events_read = read_interactions(project.interactions)
        made.append(
            (read_items(project.items), events_read.user_ids, events_read.item_ids, events_read.timestamps.tolist())
        )
    assert made[0] == made[1]
    assert made[0][3][0] == 1_700_000_000
    assert made[0][0][1].attributes["tags"] == ("office", "wood")
    assert "sqlite:///shop.db" in (folder / "shop-0.toml").read_text()
    assert read_project(folder / "shop-0.toml").config.events.query == query
    text = (folder / "shop-0.toml").read_text(encoding="utf-8").replace("sqlite:///shop.db", "${SHOP_DATABASE}")
    (folder / "shop-0.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("SHOP_DATABASE", "sqlite:///shop.db")
    assert import_shop(read_project(folder / "shop-0.toml")).events["kept"] == 200


def test_german_order_lines_with_states_sums_and_a_currency(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exports.order_lines(folder)
    init(["--items", "Artikelstamm.csv", "--events", "Bestellpositionen.csv"])
    project = read_project(folder / "shop.toml")
    columns = project.config.items.columns
    assert project.config.items.texts == ("Artikelname", "Hersteller", "Langtext")
    assert (columns["VK brutto"].kind, columns["VK brutto"].decimal) == ("number", ",")
    events = project.config.events
    assert (events.user, events.item, events.type, events.value) == ("Kunden-Nr.", "Art.-Nr.", "Status", "Stück")
    kinds = {name: "negative" if rule.negative else rule.counts for name, rule in events.types.items()}
    assert kinds == {"bezahlt": True, "storniert": "negative", "erstattet": "negative", "offen": False}
    text = (folder / "shop.toml").read_text(encoding="utf-8")
    assert "not paid, or came to nothing" in text
    [skip] = [line for line in text.splitlines() if "on_error" in line]
    assert "offen" not in skip
    assert "of type offen" in text
    report = import_shop(project)
    assert report.events["left_out"]["without user, item and time, as sums and blank rows are"] == 2


def test_ids_that_are_numbers_in_one_file_and_padded_texts_in_the_other(folder: Path) -> None:
    exports.numbers_and_texts(folder)
    init(["--items", "films.parquet", "--events", "plays.parquet"])
    project = read_project(folder / "shop.toml")
    assert project.config.events.item_numbers
    assert {project.config.items.columns[name].kind for name in ("dims.w", "dims.h")} == {"number"}
    report = import_shop(project)
    assert report.events["left_out"] == {"no viewer": 1}
    assert set(read_interactions(project.interactions).item_ids) <= {f"{number:05d}" for number in range(1, 41)}


def test_files_in_the_wrong_order(folder: Path) -> None:
    (folder / "products.csv").write_text("sku,title\n" + "".join(f"P{n},Thing number {n}\n" for n in range(50)))
    (folder / "log.csv").write_text("sku,user\n" + "".join(f"P{n * 7 % 50},u{n % 30}\n" for n in range(500)))
    with pytest.raises(InputError, match=r"log\.csv: each sku occurs 10 times in it.*--items names the products"):
        init(["--items", "log.csv", "--events", "products.csv"])


def test_a_column_of_users_that_is_empty(folder: Path) -> None:
    pq.write_table(pa.table({"sku": ["1", "2"], "title": ["a b", "c d"]}), folder / "items.parquet")
    pq.write_table(pa.table({"user": pa.nulls(2), "sku": ["1", "2"]}), folder / "events.parquet")
    with pytest.raises(InputError, match=r"no column says who acted; there are user \(empty\), sku"):
        init(["--items", "items.parquet", "--events", "events.parquet"])


def test_a_feed_with_a_code_for_each_variant_and_events_of_the_product(folder: Path) -> None:
    rows = [f"P{n}-{size},P{n},Shirt of kind {n}" for n in range(40) for size in "SM"]
    stock = [f"{row},{'in stock' if '-S,' in row else 'out of stock'}" for row in rows]
    (folder / "feed.csv").write_text("\n".join(["id,item_group_id,title,availability", *stock]) + "\n")
    (folder / "log.csv").write_text("user,sku\n" + "".join(f"u{n % 30},P{n * 7 % 40}\n" for n in range(300)))
    init(["--items", "feed.csv", "--events", "log.csv"])
    project = read_project(folder / "shop.toml")
    assert (project.config.items.id, project.config.items.duplicates) == ("item_group_id", "merge")
    assert import_shop(project).items["unavailable"] == 0


FRENCH = (
    ";Réf. article;Désignation;Descriptif;Marque;Rayon;Prix TTC;Poids (kg);En stock",
    '{n};R{n};Ponceuse de {n} cm;"Livrée en 48 h ;\nqualité {n}";{brand};{group};{n},50 €;{n},635;{stock}',
)


def french(folder: Path) -> None:
    """catalogue.csv and commandes.csv: cp1252, an index column, weights in thousandths, sums at the end."""
    names, row = FRENCH
    rows = [row.format(n=n, brand="BF"[n % 2] + "osch", group=f"Outils {n % 3}", stock="NonOui"[3 * (n % 2) :][:3])
            for n in range(1, 41)]  # fmt: skip
    text = "\n".join([names, *rows, ";Total;;;;;820,00 €;;", ";;;;;;;;", ""])
    (folder / "catalogue.csv").write_bytes(text.encode("cp1252"))
    bought = [f"{n};{n // 3};R{n * 7 % 40 + 1};C{n % 30};{n % 28 + 1:02d}/03/2024 14:05;2" for n in range(300)]
    text = "\n".join(
        [";N° commande;Réf. article;Code client;Date commande;Quantité", *bought, ";Total général;;;;600", ""]
    )
    (folder / "commandes.csv").write_bytes(text.encode("cp1252"))


def test_french_names_an_index_and_sums_at_the_end(folder: Path) -> None:
    french(folder)
    init(["--items", "catalogue.csv", "--events", "commandes.csv"])
    project = read_project(folder / "shop.toml")
    columns, events = project.config.items.columns, project.config.events
    assert project.config.items.texts == ("Désignation", "Marque", "Rayon", "Descriptif")
    assert kinds(project)["column 1"] == "drop"
    assert (columns["Prix TTC"].decimal, columns["Poids (kg)"].decimal) == (",", ",")
    assert (events.user, events.item, events.time, events.value) == (
        "Code client", "Réf. article", "Date commande", "Quantité")  # fmt: skip
    assert (project.config.items.on_error, events.on_error) == ("raise", "raise")
    report = import_shop(project)
    assert report.items["left_out"] == {"rows of totals": 1, "empty rows": 1}
    assert report.events["left_out"]["without user, item and time, as sums and blank rows are"] == 1
    assert [item.attributes["Poids (kg)"] for item in read_items(project.items)][:2] == [1.635, 2.635]


@pytest.mark.parametrize(
    "sums",
    [
        pytest.param("Total,,,", id="of the user"),
        pytest.param(",Grand Total:,,", id="of the item"),
        pytest.param(",,Summe,", id="of the time"),
        pytest.param(",,,1200", id="unnamed"),
    ],
)
def test_sums_at_the_end_of_the_events_are_no_broken_rows(folder: Path, sums: str) -> None:
    (folder / "items.csv").write_text("sku,title\n" + "".join(f"P{n},Thing number {n}\n" for n in range(40)))
    bought = "".join(f"u{n % 30},P{n * 7 % 40},2024-03-{n % 28 + 1:02d},4\n" for n in range(300))
    (folder / "log.csv").write_text(f"customer,sku,date,quantity\n{bought}{sums}\n")
    init(["--items", "items.csv", "--events", "log.csv"])
    project = read_project(folder / "shop.toml")
    assert (project.config.events.on_error, project.config.events.time_format) == ("raise", "iso")
    assert import_shop(project).events["kept"] == 300


def test_a_total_in_place_of_a_user_who_did_something_is_an_id(folder: Path) -> None:
    (folder / "items.csv").write_text("sku,title\n" + "".join(f"P{n},Thing number {n}\n" for n in range(40)))
    bought = "".join(f"u{n % 30},P{n * 7 % 40},2024-03-{n % 28 + 1:02d}\n" for n in range(300))
    (folder / "log.csv").write_text(f"customer,sku,date\n{bought}total,P1,2024-03-30\n")
    init(["--items", "items.csv", "--events", "log.csv"])
    assert import_shop(read_project(folder / "shop.toml")).events["kept"] == 301


def test_a_code_of_each_event_is_no_session(folder: Path) -> None:
    (folder / "items.csv").write_text("sku,title\n" + "".join(f"P{n},Thing number {n}\n" for n in range(40)))
    rows = [f"{'' if n % 10 == 0 else f'u{n % 30}'},P{n * 7 % 40},{n}" for n in range(300)]
    for name, code in (("each", "{n:08x}"), ("shared", "{n7:08x}")):
        log = [f"{row},{code.format(n=n * 7919, n7=n // 7)}" for n, row in enumerate(rows)]
        (folder / "log.csv").write_text("\n".join(["customer,sku,position,visit", *log, ""]))
        init(["--items", "items.csv", "--events", "log.csv", "--out", f"{name}.toml"])
    assert read_project(folder / "each.toml").config.events.session is None
    assert read_project(folder / "shared.toml").config.events.session == "visit"
    assert "30 no customer" in (folder / "each.toml").read_text()


def test_a_type_without_items_says_so(folder: Path) -> None:
    (folder / "items.csv").write_text("sku,title\n" + "".join(f"P{n},Thing number {n}\n" for n in range(40)))
    log = [{"event_name": "PageView", "user_id": f"u{n % 30}", "event_time": f"2024-03-{n % 28 + 1:02d}T10:00:00+02:00"}
           for n in range(100)]  # fmt: skip
    log += [{**one, "event_name": "Purchase", "contents": [{"id": f"P{n % 40}"}, {"id": f"P{n * 7 % 40}"}]}
            for n, one in enumerate(log)]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in log))
    init(["--items", "items.csv", "--events", "log.jsonl"])
    assert (
        "PageView = { history = true, weight = 1.0 }  # no row of it has user, item and time; looked at"
        in (folder / "shop.toml").read_text()
    )
