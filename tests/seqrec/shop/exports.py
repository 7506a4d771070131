"""Small exports with the warts of real ones, made of the bundled purchases; also used by the tutorial's test."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).parents[3] / "data" / "online-retail"
GROUPS = ["Küche > Töpfe", "Küche > Gläser", "Garten", "Büro > Stifte", "Café"]


CATEGORIES = ["Home & Garden > Decor", "Home & Garden > Kitchen, Sale", "Toys > Party, Gifts > Cards", "Gifts > Wrap"]
Args = list[str]


def purchases(users: int) -> tuple[list[tuple[str, str]], list[tuple[str, str, int]]]:
    """Items (id, title) that the first users bought, and their purchases (user, item, seconds)."""
    with gzip.open(DATA / "interactions.csv.gz", "rt", encoding="utf-8") as file:
        rows = [(row["user_id"], row["item_id"], int(row["timestamp"])) for row in csv.DictReader(file)]
    chosen = set(list(dict.fromkeys(user for user, _, _ in rows))[:users])
    rows = [row for row in rows if row[0] in chosen]
    bought = {item for _, item, _ in rows}
    with gzip.open(DATA / "items.jsonl.gz", "rt", encoding="utf-8") as file:
        items = [(item["item_id"], item["attributes"]["title"]) for item in map(json.loads, file)]
    return [item for item in items if item[0] in bought], rows


def when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def baskets(rows: Sequence[tuple[str, str, int]]) -> Iterator[tuple[int, str, int, list[str]]]:
    """Number, user, second and items of each order."""
    orders: dict[tuple[str, int], list[str]] = {}
    for user, item_id, seconds in rows:
        orders.setdefault((user, seconds), []).append(item_id)
    for number, ((user, seconds), items) in enumerate(sorted(orders.items(), key=lambda one: one[0][1])):
        yield number, user, seconds, items


def arguments(items: str, events: str) -> Args:
    return ["--items", items, "--events", events]


def semicolons(folder: Path, users: int = 60) -> None:
    """artikel.csv and bestellungen.csv: Latin-1, semicolons, decimal commas, HTML, dates with days first, repeats."""
    items, rows = purchases(users)
    draw = random.Random(1)
    articles: list[Sequence[object]] = []
    for number, (item_id, title) in enumerate(items):
        description = f"<p>Schönes {title.lower()} &amp; mehr</p>" if number % 3 else ""
        if number % 100 == 1:
            description = 'Zwei Zeilen;\n mit "Zitat"'
        price = f"{1234 + number / 100:,.2f}" if number % 9 == 0 else f"{number % 70 + 0.95:.2f}"
        price = price.replace(",", "_").replace(".", ",").replace("_", ".")
        image = f"https://shop.example/img/{item_id}.jpg"
        stock = draw.choice([0, 3, 10, 55])
        articles.append((item_id, title, description, GROUPS[number % 5], price, 4 * 10**12 + number, image, stock))
        if number % 200 == 0:
            articles.append((item_id, f"{title} (neu)", "", GROUPS[0], "1,00", 4 * 10**12 + number, "", 1))
    names = ("Artikelnummer", "Bezeichnung", "Beschreibung", "Warengruppe", "Preis", "EAN", "Bild", "Lagerbestand")
    _write(folder / "artikel.csv", names, articles)
    orders: list[Sequence[object]] = []
    for number, (user, item_id, seconds) in enumerate(rows):
        when = datetime.fromtimestamp(seconds, UTC).strftime("%d.%m.%Y %H:%M")
        customer, article = ("" if number % 97 == 0 else user), ("VERSAND" if number % 500 == 1 else item_id)
        orders.append((number // 7, customer, article, draw.randint(1, 12), when, "Onlineshop"))
    _write(
        folder / "bestellungen.csv", ("Bestellnr", "Kundennummer", "Artikelnummer", "Menge", "Datum", "Kanal"), orders
    )


def _write(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str = ";", encoding: str = "latin-1"
) -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
        writer.writerow(names)
        writer.writerows(rows)


def event_log(folder: Path, users: int = 60) -> None:
    """products.tsv, and a folder log of CSV files: ISO times of two zones, views, carts, purchases, refunds."""
    items, rows = purchases(users)
    draw = random.Random(2)
    with (folder / "products.tsv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("handle", "name", "vendor", "tags", "image_src", "status"))
        for number, (item_id, title) in enumerate(items):
            tags = "|".join(draw.sample(["home", "gift", "kids", "party", "paper"], 2))
            status = "draft" if number % 10 == 3 else "active"
            writer.writerow(
                (item_id, title, draw.choice(["Acme", "Lumen", ""]), tags, f"//cdn.example/{number}.png", status)
            )
    events: list[tuple[datetime, str, str, str]] = []
    for number, (user, item_id, seconds) in enumerate(rows):
        when = datetime.fromtimestamp(seconds + number % 7 * 9000, timezone(timedelta(hours=1)))
        events.append((when, "product_view", item_id, user))
        if draw.random() < 0.4:
            events.append((when + timedelta(seconds=40), "add_to_cart", item_id, user))
        if draw.random() < 0.2:
            events.append((when + timedelta(seconds=300), "purchase", item_id, user))
        if draw.random() < 0.02:
            events.append((when + timedelta(days=1), "refund", item_id, user))
    events.sort()
    (folder / "log").mkdir()
    half = len(events) // 2
    for name, part in (("1", events[:half]), ("2", events[half:])):
        with (folder / "log" / f"events-{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("event_time", "event_type", "product", "visitor_id", "session_id"))
            for when, kind, item_id, user in part:
                written = when.isoformat() if draw.random() < 0.5 else f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
                visitor = "" if draw.random() < 0.03 else user
                writer.writerow((written, kind, item_id, visitor, f"s{user}-{when:%Y%m%d}"))


def parquet(folder: Path, users: int = 60) -> None:
    """catalog.parquet and ratings.parquet: typed columns, lists, nulls, ids that became floats because of nulls."""
    items, rows = purchases(users)
    draw = random.Random(3)
    number_of = {item_id: number + 1 for number, (item_id, _) in enumerate(items)}
    catalog = {
        "movie_id": pa.array([number_of[item_id] for item_id, _ in items]),
        "title": [None if number % 100 == 7 else title for number, (_, title) in enumerate(items)],
        "genres": pa.array([None if n % 77 == 5 else draw.sample(["a", "b", "c"], 2) for n in range(len(items))]),
        "price": pa.array([None if n % 10 == 1 else round(draw.random() * 20, 2) for n in range(len(items))]),
        "in_stock": pa.array([draw.random() < 0.9 for _ in items]),
    }
    pq.write_table(pa.table(catalog), folder / "catalog.parquet")
    naive = [datetime.fromtimestamp(when, UTC).replace(tzinfo=None) for _, _, when in rows]
    moments = [None if number % 500 == 3 else when for number, when in enumerate(naive)]
    ratings = {
        "uid": pa.array([None if number % 100 == 9 else float(user) for number, (user, _, _) in enumerate(rows)]),
        "mid": pa.array([float(number_of[item_id]) for _, item_id, _ in rows]),
        "rated_at": pa.array(moments, pa.timestamp("us")),
        "stars": pa.array([draw.randint(1, 5) for _ in rows]),
    }
    pq.write_table(pa.table(ratings), folder / "ratings.parquet")


def woocommerce(folder: Path, users: int = 40) -> None:
    """products.csv and orders.csv as WooCommerce exports them in German: Latin-1, several pictures in one field, a
    stock that nobody counts next to a flag, a published flag, and a status and a way of payment for each order."""
    items, rows = purchases(users)
    names = ("ID", "Typ", "Artikelnummer", "Name", "Veröffentlicht", "Kurzbeschreibung", "Vorrätig?", "Lager",
             "Regulärer Preis", "Kategorien", "Bilder")  # fmt: skip
    _write(
        folder / "products.csv",
        names,
        [
            (1000 + number, "simple", item_id, title, 1, f"<b>{title}</b> für Sie", int(number % 5 > 0),
             ("", 12, 0)[number % 3], f"{number % 70},95", GROUPS[number % 5],
             f"https://shop.example/{item_id}.jpg, https://shop.example/{item_id}-1.jpg")
            for number, (item_id, title) in enumerate(items)
        ],
    )  # fmt: skip
    states = ("Abgeschlossen", "Abgeschlossen", "In Bearbeitung", "Storniert", "Rückerstattet")
    orders = [
        (seconds, states[seconds // 60 % 5], datetime.fromtimestamp(seconds, UTC).strftime("%d.%m.%Y %H:%M"), user,
         "Jörg", "PayPal", item_id, 1 + seconds % 3, "1.034,50")
        for user, item_id, seconds in rows
    ]  # fmt: skip
    names = ("Bestellnummer", "Bestellstatus", "Bestelldatum", "Kundennummer", "Vorname (Rechnung)", "Zahlungsmethode",
             "Artikelnummer", "Menge", "Gesamtbetrag der Bestellung")  # fmt: skip
    _write(folder / "orders.csv", names, orders)


def shopify(folder: Path, users: int = 40) -> None:
    """products_export.csv as Shopify exports it, with a row for each variant that has the handle and little else, and
    HTML bodies of several lines; tracking.jsonl with nested records, of visitors that log in now and then."""
    items, rows = purchases(users)
    names = ("Handle", "Title", "Body (HTML)", "Vendor", "Tags", "Published", "Option1 Name", "Option1 Value",
             "Variant SKU", "Variant Inventory Qty", "Variant Price", "Image Src", "Status")  # fmt: skip
    products: list[Sequence[object]] = []
    for number, (item_id, title) in enumerate(items):
        body = f"<h2>{title}</h2>\n<p>For&nbsp;<em>every</em>\nday.</p>"
        status = "draft" if number % 10 == 9 else "active"
        for variant in range(1 + number % 4):
            own = ("Size", "SML?"[variant], f"{item_id}-{variant}", number % 7 * variant, f"{number % 50}.95")
            first = (title, body, "Acme", "home, gift" if number % 2 else "kids, paper", "true")
            more = (f"https://cdn.example/{item_id}.jpg", status)
            products.append(
                (f"h-{item_id}", *(first if not variant else [""] * 5), *own, *(more if not variant else ["", ""]))
            )
    _write(folder / "products_export.csv", names, products, ",", "utf-8")
    with (folder / "tracking.jsonl").open("w", encoding="utf-8") as file:
        for number, (user, item_id, seconds) in enumerate(rows):
            for step, name in enumerate(("view_item", "add_to_cart", "purchase")[: 1 + number % 3]):
                zone = timezone(timedelta(hours=1 + number % 2))
                record = {
                    "event": name,
                    "sent_at": datetime.fromtimestamp(seconds + 40 * step, zone).isoformat(timespec="milliseconds"),
                    "anonymous_id": f"device-{user}",
                    "user_id": user if number % 4 else None,
                    "properties": {"product_id": f"h-{item_id}", "currency": "EUR"},
                }
                file.write(json.dumps(record) + "\n")


def order_lines(folder: Path, users: int = 40) -> None:
    """Artikelstamm.csv and Bestellpositionen.csv: Latin-1, prices with a currency, states of orders, sums."""
    items, rows = purchases(users)
    names = ("Art.-Nr.", "Hersteller", "Artikelname", "Langtext", "VK brutto", "Gewicht (kg)")
    articles = [
        (
            item_id,
            ("Müller", "Bösch & Co.", "")[n % 3],
            title,
            f"Größe: {n % 40} cm, {title}",
            f"{n % 70},95 EUR",
            "0,5",
        )
        for n, (item_id, title) in enumerate(items)
    ]
    _write(folder / "Artikelstamm.csv", names, articles)
    states = ("bezahlt", "bezahlt", "bezahlt", "storniert", "erstattet", "offen")
    orders: list[Sequence[object]] = [
        (
            n // 7,
            datetime.fromtimestamp(at, UTC).strftime("%d.%m.%y %H:%M"),
            f"K{user}",
            item_id,
            n % 12 + 1,
            states[n % 6],
        )
        for n, (user, item_id, at) in enumerate(rows)
    ]
    orders += [("", "", "", "", " ", ""), ("Summe", "", "", "", len(rows) * 6, ""), ("Erstellt am 09.12.2011",)]
    names = ("Auftrag", "Bestelldatum", "Kunden-Nr.", "Art.-Nr.", "Stück", "Status")
    _write(folder / "Bestellpositionen.csv", names, orders)


def numbers_and_texts(folder: Path) -> None:
    """films.parquet with ids such as "00007" and structs, plays.parquet with whole numbers as ids and nanoseconds."""
    films = {
        "film_id": [f"{number:05d}" for number in range(1, 41)],
        "title": [f"The film of day {number}" for number in range(1, 41)],
        "dims": [{"w": number, "h": 2} for number in range(40)],
    }
    pq.write_table(pa.table(films), folder / "films.parquet")
    begin = 1_600_000_000_123_456_789
    plays = {
        "viewer": pa.array([None if n == 5 else n % 30 for n in range(300)], pa.int64()),
        "film_id": pa.array([n * 7 % 40 + 1 for n in range(300)], pa.int64()),
        "watched_at": pa.array([begin + n * 10**12 for n in range(300)], pa.timestamp("ns", "Europe/Berlin")),
        "action": pa.array([("watch", "like")[n % 2] for n in range(300)]).dictionary_encode(),
    }
    pq.write_table(pa.table(plays), folder / "plays.parquet")
