"""Tables and logs as shop tools and trackers write them, made of the bundled purchases.

Each function writes its files and returns the arguments of `seqrec init`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.seqrec.shop.exports import CATEGORIES, Args, arguments, baskets, purchases, when


def prestashop(folder: Path, users: int = 60) -> Args:
    """Semicolons, prices with a comma and a currency, states as words."""
    items, rows = purchases(users)
    number_of = {item_id: number + 1 for number, (item_id, _) in enumerate(items)}
    with (folder / "product.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";", quoting=csv.QUOTE_ALL)
        writer.writerow(
            [
                "Product ID",
                "Image",
                "Name",
                "Reference",
                "Category",
                "Price (tax excl.)",
                "Price (tax incl.)",
                "Quantity",
                "Status",
            ]
        )
        for number, (item_id, title) in enumerate(items):
            writer.writerow(
                [
                    number_of[item_id],
                    f"http://x.example/{number}-small.jpg",
                    title,
                    item_id,
                    CATEGORIES[number % 4].split(" > ")[0],
                    f"{number % 40},95 €",
                    f"{number % 40 + 4},74 €",
                    number % 7,
                    1 if number % 11 else 0,
                ]
            )
    with (folder / "orders.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(
            [
                "id_order",
                "reference",
                "id_customer",
                "product_id",
                "product_quantity",
                "unit_price_tax_incl",
                "date_add",
                "current_state",
            ]
        )
        for number, user, seconds, bought in baskets(rows):
            for item_id in bought:
                writer.writerow(
                    [
                        number + 1,
                        f"XKB{number:06d}",
                        user,
                        number_of[item_id],
                        1,
                        "4,74",
                        f"{when(seconds):%Y-%m-%d %H:%M:%S}",
                        ["Livré", "Paiement accepté", "Annulé"][0 if number % 10 else 2],
                    ]
                )
    return arguments("product.csv", "orders.csv")


def shopware(folder: Path, users: int = 60) -> Args:
    """Columns with dots, ids that are hashes, German orders with lines."""
    items, rows = purchases(users)
    key_of = {item_id: f"{number * 7919 + 13:032x}" for number, (item_id, _) in enumerate(items)}
    with (folder / "product.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(
            [
                "id",
                "parent_id",
                "product_number",
                "active",
                "stock",
                "translations.DEFAULT.name",
                "translations.DEFAULT.description",
                "price_net",
                "price_gross",
                "tax_name",
                "manufacturer_name",
                "categories",
                "media_url",
            ]
        )
        for number, (item_id, title) in enumerate(items):
            writer.writerow(
                [
                    key_of[item_id],
                    "",
                    item_id,
                    int(number % 12 > 0),
                    number % 30,
                    title,
                    f"<p>Schön: {title}</p>",
                    f"{number % 40 + 0.11}",
                    f"{number % 40 + 0.95}",
                    "Standard",
                    ["Acme", "Lumen"][number % 2],
                    "|".join(c[:9] for c in CATEGORIES[: number % 3 + 1]),
                    f"https://x.example/{number}.jpg",
                ]
            )
    with (folder / "bestellungen.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(
            ["Bestellnummer", "Bestelldatum", "Kundennummer", "Zahlungsstatus", "Produktnummer", "Anzahl", "Preis"]
        )
        for number, user, seconds, bought in baskets(rows):
            for item_id in [*bought, "Versandkosten"] if number % 5 == 0 else bought:
                writer.writerow(
                    [
                        10_000 + number,
                        f"{when(seconds):%d.%m.%Y, %H:%M}",
                        user,
                        "Bezahlt" if number % 8 else "Offen",
                        item_id,
                        1,
                        "4,95",
                    ]
                )
    return arguments("product.csv", "bestellungen.csv")


def amazon_seller(folder: Path, users: int = 60) -> Args:
    """The listings report in Windows-1252, and the order report, whose buyers are addresses."""
    items, rows = purchases(users)
    with (folder / "All+Listings+Report.txt").open("w", encoding="cp1252", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(
            [
                "item-name",
                "item-description",
                "listing-id",
                "seller-sku",
                "price",
                "quantity",
                "open-date",
                "image-url",
                "item-is-marketplace",
                "product-id-type",
                "zshop-shipping-fee",
                "item-condition",
                "asin1",
                "status",
            ]
        )
        for number, (item_id, title) in enumerate(items):
            writer.writerow(
                [
                    f'{title} – 5" Café',
                    "",
                    f"0101{number:07d}",
                    item_id,
                    f"{number % 40 + 0.95:.2f}",
                    number % 9,
                    "01/12/2009 10:11:12 GMT",
                    "",
                    "y",
                    "1",
                    "",
                    "11",
                    f"B{number:09d}",
                    "Inactive" if number % 13 == 2 else "Active",
                ]
            )
    with (folder / "orders.txt").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(
            [
                "amazon-order-id",
                "order-item-id",
                "purchase-date",
                "payments-date",
                "buyer-email",
                "buyer-name",
                "sku",
                "product-name",
                "quantity-purchased",
                "currency",
                "item-price",
                "ship-city",
                "ship-postal-code",
            ]
        )
        for number, user, seconds, bought in baskets(rows):
            for place, item_id in enumerate(bought):
                writer.writerow(
                    [
                        f"203-{number:07d}-1",
                        f"{number * 100 + place:014d}",
                        f"{when(seconds):%Y-%m-%dT%H:%M:%S}+00:00",
                        f"{when(seconds):%Y-%m-%dT%H:%M:%S}+00:00",
                        f"{user}x@marketplace.example",
                        "A B",
                        item_id,
                        item_id,
                        1 + place % 2,
                        "GBP",
                        "1.95",
                        "Ulm",
                        "89073",
                    ]
                )
    return arguments("All+Listings+Report.txt", "orders.txt")


def workbook(folder: Path, users: int = 60) -> Args:
    """Excel: groups of columns over their names, a row of totals at the end; orders on a sheet of their own."""
    import openpyxl

    items, rows = purchases(users)
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Article", None, None, "Sales", None, "Stock"])
    sheet.merge_cells("A1:C1")
    sheet.append(["Article no.", "Description", "Group", "Net price", "Gross price", "Qty on hand"])
    for number, (item_id, title) in enumerate(items):
        sheet.append(
            [item_id, title, CATEGORIES[number % 4].split(" > ")[0], number % 40 + 0.5, number % 40 + 0.95, number % 6]
        )
    sheet.append(["Total", None, None, 12345.5, 14000.25, 4321])
    book.save(folder / "articles.xlsx")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Sales by customer, all branches"])
    sheet.append(["Customer no.", "Article no.", "Date", "Pieces", "Amount"])
    for user, item_id, seconds in rows[:3000]:
        sheet.append([int(user), item_id, when(seconds).replace(tzinfo=None), 1, 1.95])
    sheet.append(["Total", None, None, len(rows), 1.95 * len(rows)])
    book.save(folder / "sales.xlsx")
    return arguments("articles.xlsx", "sales.xlsx")


def merchant_feed(folder: Path, items: Sequence[tuple[str, str]]) -> str:
    """A Google Merchant feed as TSV with the names of its XML."""
    with (folder / "feed.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(
            [
                "g:id",
                "g:title",
                "g:description",
                "g:link",
                "g:image_link",
                "g:availability",
                "g:price",
                "g:sale_price",
                "g:brand",
                "g:gtin",
                "g:condition",
                "g:google_product_category",
                "g:product_type",
            ]
        )
        for number, (item_id, title) in enumerate(items):
            writer.writerow(
                [
                    item_id,
                    title,
                    f"{title} for every day.",
                    f"https://x.example/p/{item_id}",
                    f"https://x.example/{item_id}.jpg",
                    "in_stock" if number % 6 else "out_of_stock",
                    f"{number % 40 + 0.95:.2f} GBP",
                    "" if number % 9 else "0.50 GBP",
                    ["Acme", "Lumen"][number % 2],
                    f"{4006381333931 + number}",
                    "new",
                    "Home & Garden > Decor",
                    CATEGORIES[number % 4].split(",")[0],
                ]
            )
    return "feed.tsv"


def ga4(folder: Path, users: int = 60) -> Args:
    """The BigQuery export of GA4, a file a day: numbers as texts, page views without items, products in an array."""
    items, rows = purchases(users)
    (folder / "ga4").mkdir()
    events: list[dict[str, Any]] = []
    for number, user, seconds, bought in baskets(rows):
        own = {
            "user_id": user if number % 3 == 0 else None,
            "user_pseudo_id": f"{user}.1290000000",
            "platform": "WEB",
            "device": {"category": "mobile", "language": "en-gb"},
            "geo": {"country": "United Kingdom"},
        }
        parts: list[tuple[str, list[str]]] = [("page_view", []), ("session_start", []), ("view_item_list", bought[:5])]
        parts += [("view_item", [item_id]) for item_id in bought[:4]]
        parts += [("add_to_cart", bought[:1]), ("purchase", bought)]
        for place, (name, of) in enumerate(parts):
            micro = seconds * 1_000_000 + place * 1_500_017
            events.append(
                {
                    "event_date": f"{when(seconds):%Y%m%d}",
                    "event_timestamp": str(micro),
                    "event_name": name,
                    "event_params": [
                        {"key": "ga_session_id", "value": {"int_value": str(seconds)}},
                        {"key": "page_title", "value": {"string_value": "Shop"}},
                    ],
                    **own,
                    "ecommerce": {"transaction_id": str(number)} if name == "purchase" else None,
                    "items": [
                        {
                            "item_id": item_id,
                            "item_name": item_id,
                            "price": 1.95,
                            "quantity": "1",
                            "item_list_index": str(n),
                        }
                        for n, item_id in enumerate(of)
                    ],
                }
            )
    half = len(events) // 2
    for name, part in (
        ("20110101", [{k: v for k, v in e.items() if v is not None} for e in events[:half]]),
        ("20110601", events[half:]),
    ):
        (folder / "ga4" / f"events_{name}.json").write_text("".join(json.dumps(event) + "\n" for event in part))
    return arguments(merchant_feed(folder, items), "ga4")


def segment(folder: Path, users: int = 60) -> Args:
    """Track calls of Segment: a product in properties, the products of an order in a list in them."""
    items, rows = purchases(users)
    calls: list[dict[str, Any]] = []
    for number, user, seconds, bought in baskets(rows):
        known = number % 2 == 0
        parts: list[tuple[str, dict[str, Any]]] = [("Product List Viewed", {"list_id": "sale", "category": "Deals"})]
        parts += [("Product Viewed", {"product_id": one, "name": one, "price": 1.95}) for one in bought[:5]]
        parts += [("Product Added", {"product_id": one, "quantity": 1, "price": 1.95}) for one in bought[:2]]
        parts += [("Product Removed", {"product_id": bought[-1], "quantity": 1})] if number % 12 == 5 else []
        lines = [{"product_id": one, "quantity": 1, "price": 1.95} for one in bought]
        parts += [("Order Completed", {"order_id": f"o{number}", "total": 9.5, "currency": "GBP", "products": lines})]
        for place, (name, properties) in enumerate(parts):
            calls.append(
                {
                    "type": "track",
                    "event": name,
                    "messageId": f"ajs-{number}-{place}",
                    "anonymousId": f"a-{user}",
                    "userId": user if known else None,
                    "timestamp": (when(seconds) + timedelta(seconds=place)).isoformat().replace("+00:00", "Z"),
                    "receivedAt": f"{when(seconds + 60):%Y-%m-%dT%H:%M:%S.000Z}",
                    "properties": properties,
                    "context": {"ip": "0.0.0.0", "page": {"url": "https://x.example/", "title": "Shop"}},
                }
            )
    (folder / "track.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    return arguments(merchant_feed(folder, items), "track.jsonl")


def matomo(folder: Path, users: int = 60) -> Args:
    """Live.getLastVisitsDetails of Matomo: visits with actions, each with its own time."""
    items, rows = purchases(users)
    visits = []
    for number, user, seconds, bought in baskets(rows):
        actions: list[dict[str, Any]] = [
            {"type": "action", "url": "https://x.example/", "timestamp": seconds, "pageTitle": "Home"}
        ]
        actions += [
            {
                "type": "ecommerceProductView" if place % 4 else "action",
                "url": f"https://x.example/p/{one}",
                "timestamp": seconds + 10 * place + 5,
                "productViewSku": one,
                "productViewName": one,
                "productViewPrice": 1.95,
                "pageIdAction": str(place),
            }
            for place, one in enumerate(bought)
        ]
        visits.append(
            {
                "idSite": "1",
                "idVisit": str(number),
                "visitorId": f"{int(user) * 7919:016x}",
                "userId": None,
                "visitIp": "0.0.0.0",
                "serverTimestamp": seconds,
                "lastActionTimestamp": seconds + 900,
                "firstActionTimestamp": seconds,
                "actionDetails": actions,
                "visitDuration": "900",
                "referrerType": "direct",
            }
        )
    (folder / "visits.json").write_text(json.dumps(visits))
    return arguments(merchant_feed(folder, items), "visits.json")
