"""Nested orders and products as the APIs of shops give them, made of the bundled purchases.

Each function writes its files and returns the arguments of `seqrec init`.
"""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.seqrec.shop.exports import CATEGORIES, Args, arguments, baskets, purchases, when


def shopify_api(folder: Path, users: int = 60) -> Args:
    """products.json and orders.json of the Admin API: variants, refunds, guests, lines of no product."""
    items, rows = purchases(users)
    number_of = {item_id: 7_000_000_000_000 + number for number, (item_id, _) in enumerate(items)}
    products = []
    for number, (item_id, title) in enumerate(items):
        product = number_of[item_id]
        variants = [
            {
                "id": product * 10 + size,
                "product_id": product,
                "title": name,
                "price": f"{number % 40 + 0.95:.2f}",
                "sku": f"{item_id}-{name}",
                "inventory_quantity": number % 5 * size,
                "position": size + 1,
            }
            for size, name in enumerate(("S", "L"))
        ]
        products.append(
            {
                "id": product,
                "title": title,
                "body_html": f"<p>{title} &amp; more</p>",
                "vendor": ["Acme", "Lumen"][number % 2],
                "product_type": CATEGORIES[number % 4].split(" > ")[0],
                "created_at": "2010-01-02T10:00:00+00:00",
                "handle": f"h-{item_id.lower()}",
                "tags": "home, gift" if number % 2 else "kids, gift, sale",
                "status": "draft" if number % 20 == 3 else "active",
                "variants": variants,
                "options": [{"id": product + 1, "product_id": product, "name": "Size", "values": ["S", "L"]}],
                "images": [{"id": product + 2, "product_id": product, "src": f"https://cdn.example/{item_id}.png"}],
            }
        )
    (folder / "products.json").write_text(json.dumps({"products": products}))
    orders = []
    for number, user, seconds, bought in baskets(rows):
        made = when(seconds).isoformat()
        lines: list[dict[str, Any]] = [
            {
                "id": 10**13 + number * 100 + place,
                "product_id": number_of[item_id],
                "name": item_id,
                "quantity": 1 + place % 3,
                "variant_id": number_of[item_id] * 10,
                "price": "1.95",
                "tax_lines": [],
                "sku": f"{item_id}-S",
            }
            for place, item_id in enumerate(bought)
        ]
        if number % 10 == 4:
            lines.append(
                {"id": 5 * 10**13 + number, "product_id": None, "name": "Gift wrap", "quantity": 1, "price": "2.00"}
            )
        customer = (
            None
            if number % 25 == 7
            else {
                "id": 9_000_000 + int(user),
                "email": f"{user}@mail.example",
                "created_at": "2009-01-01T00:00:00Z",
                "state": "enabled",
                "default_address": {"id": 3_000_000 + int(user), "city": "Ulm"},
            }
        )
        status = "refunded" if number % 30 == 9 else "pending" if number % 30 == 11 else "paid"
        orders.append(
            {
                "id": 4_000_000_000 + number,
                "name": f"#{1000 + number}",
                "created_at": made,
                "updated_at": (when(seconds) + timedelta(days=3)).isoformat(),
                "processed_at": made,
                "cancelled_at": None,
                "email": f"{user}@mail.example" if customer else "",
                "financial_status": status,
                "fulfillment_status": None if number % 3 else "fulfilled",
                "total_price": f"{len(bought) * 1.95:.2f}",
                "currency": "GBP",
                "customer": customer,
                "line_items": lines,
                "fulfillments": [{"id": 10**12 + number, "created_at": made, "line_items": lines[:1]}]
                if number % 3 == 0
                else [],
                "refunds": [{"id": number, "refund_line_items": [{"line_item": lines[0]}]}]
                if status == "refunded"
                else [],
            }
        )
    (folder / "orders.json").write_text(json.dumps({"orders": orders}, indent=1))
    return arguments("products.json", "orders.json")


def woocommerce(folder: Path, users: int = 60) -> Args:
    """The product CSV with HTML and category paths, and orders of the REST API: customer 0 is a guest."""
    items, rows = purchases(users)
    names = [
        "ID",
        "Type",
        "SKU",
        "Name",
        "Published",
        "Is featured?",
        "Short description",
        "Description",
        "In stock?",
        "Stock",
        "Regular price",
        "Categories",
        "Tags",
        "Images",
        "Attribute 1 name",
        "Attribute 1 value(s)",
    ]
    number_of = {item_id: 100 + 3 * number for number, (item_id, _) in enumerate(items)}
    with (folder / "wc-product-export.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for number, (item_id, title) in enumerate(items):
            writer.writerow(
                [
                    number_of[item_id],
                    "simple",
                    item_id,
                    title,
                    1 if number % 15 else -1,
                    0,
                    "",
                    f"<ul>\n<li>{title}</li>\n</ul>",
                    number % 8 != 0,
                    number % 8,
                    f"{number % 40 + 0.95:.2f}",
                    CATEGORIES[number % 4],
                    "gift, home" if number % 3 else "",
                    f"https://shop.example/{item_id}.jpg, https://shop.example/{item_id}-2.jpg",
                    "Colour",
                    ["Red", "Blue, Green"][number % 2],
                ]
            )
    orders = []
    for number, user, seconds, bought in baskets(rows):
        guest = number % 4 == 1
        local = when(seconds) + timedelta(hours=1)
        lines = [
            {
                "id": number * 50 + place + 1,
                "name": item_id,
                "product_id": number_of[item_id],
                "variation_id": 0,
                "quantity": 2,
                "price": 1.95,
                "sku": item_id,
                "meta_data": [{"id": 5, "key": "_x", "value": "1"}],
            }
            for place, item_id in enumerate(bought)
        ]
        orders.append(
            {
                "id": 101 + 3 * number,
                "parent_id": 0,
                "number": str(101 + 3 * number),
                "order_key": f"wc_order_{number}",
                "status": ["completed", "processing", "completed", "cancelled"][number % 4],
                "currency": "GBP",
                "date_created": f"{local:%Y-%m-%dT%H:%M:%S}",
                "date_created_gmt": f"{when(seconds):%Y-%m-%dT%H:%M:%S}",
                "date_modified": f"{local:%Y-%m-%dT%H:%M:%S}",
                "customer_id": 0 if guest else int(user),
                "billing": {"first_name": "A", "last_name": "B", "email": f"{user}@mail.example", "postcode": "89073"},
                "line_items": lines,
                "shipping_lines": [{"id": number, "method_title": "Flat", "total": "3.00"}],
            }
        )
    (folder / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))
    return arguments("wc-product-export.csv", "orders.jsonl")


def magento(folder: Path, users: int = 60) -> Args:
    """The product CSV with additional_attributes, and orders of the REST API numbered as products are."""
    items, rows = purchases(users)
    with (folder / "catalog_product.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "sku",
                "store_view_code",
                "attribute_set_code",
                "product_type",
                "categories",
                "product_websites",
                "name",
                "description",
                "price",
                "url_key",
                "created_at",
                "visibility",
                "additional_attributes",
                "qty",
                "is_in_stock",
                "base_image",
            ]
        )
        for number, (item_id, title) in enumerate(items):
            more = f"color={['Red', 'Blue'][number % 2]},material={['Cotton', 'Tin', 'Wood'][number % 3]},gift=Yes"
            writer.writerow(
                [
                    item_id,
                    "",
                    "Default",
                    "simple",
                    "Default Category/Home,Default Category/Home/Decor" if number % 2 else "Default Category/Toys",
                    "base",
                    title,
                    f"<p>{title}</p>",
                    f"{number % 40 + 0.95:.4f}",
                    f"u-{item_id}",
                    "1/15/10, 9:05 AM",
                    "Catalog, Search",
                    more,
                    f"{number % 9}.0000",
                    int(number % 9 > 0),
                    f"/a/{item_id}.jpg",
                ]
            )
    orders = []
    for number, user, seconds, bought in baskets(rows):
        lines = [
            {
                "item_id": number * 40 + place + 1,
                "order_id": number + 1,
                "sku": item_id,
                "name": item_id,
                "qty_ordered": 1,
                "product_id": place + 1,
                "price": 1.95,
                "created_at": f"{when(seconds):%Y-%m-%d %H:%M:%S}",
            }
            for place, item_id in enumerate(bought)
        ]
        orders.append(
            {
                "entity_id": number + 1,
                "increment_id": f"{number + 1:09d}",
                "state": "complete",
                "status": ["complete", "closed"][number % 7 == 0],
                "created_at": f"{when(seconds):%Y-%m-%d %H:%M:%S}",
                "updated_at": f"{when(seconds):%Y-%m-%d %H:%M:%S}",
                "customer_id": None if number % 9 == 2 else int(user),
                "customer_email": f"{user}@mail.example",
                "customer_is_guest": 0,
                "items": lines,
                "billing_address": {"city": "Ulm", "email": f"{user}@mail.example"},
                "status_histories": [{"comment": "ok", "entity_id": number, "status": "complete"}],
            }
        )
    whole = {
        "items": orders,
        "search_criteria": {"filter_groups": [{"filters": [{"field": "store_id", "value": "1"}]}]},
    }
    (folder / "orders.json").write_text(json.dumps({**whole, "total_count": len(orders)}))
    return arguments("catalog_product.csv", "orders.json")


def graphql(folder: Path, users: int = 60) -> Args:
    """Answers of a GraphQL API: edges and nodes, and global ids."""
    items, rows = purchases(users)
    gid = {item_id: f"gid://shopify/Product/{number + 1}" for number, (item_id, _) in enumerate(items)}
    products = [
        {
            "cursor": str(n),
            "node": {
                "id": gid[item_id],
                "title": title,
                "vendor": "Acme",
                "tags": ["gift", "home"][: n % 3],
                "priceRange": {"minVariantPrice": {"amount": "1.95"}},
            },
        }
        for n, (item_id, title) in enumerate(items)
    ]
    (folder / "products.json").write_text(
        json.dumps({"data": {"products": {"edges": products, "pageInfo": {"hasNextPage": False}}}})
    )
    orders = [
        {
            "node": {
                "id": f"gid://shopify/Order/{number}",
                "createdAt": f"{when(seconds):%Y-%m-%dT%H:%M:%SZ}",
                "customer": {"id": f"gid://shopify/Customer/{user}"},
                "displayFinancialStatus": "PAID",
                "lineItems": {"edges": [{"node": {"quantity": 1, "product": {"id": gid[one]}}} for one in bought]},
            }
        }
        for number, user, seconds, bought in baskets(rows)
    ]
    (folder / "orders.json").write_text(json.dumps({"data": {"orders": {"edges": orders}}}))
    return arguments("products.json", "orders.json")


def parquet_orders(folder: Path, users: int = 60) -> Args:
    """Orders as Spark writes them: a list of structs, a struct, typed times."""
    items, rows = purchases(users)
    catalog = {
        "product_id": [one for one, _ in items],
        "title": [title for _, title in items],
        "price": [float(n % 40) for n in range(len(items))],
    }
    pq.write_table(pa.table(catalog), folder / "catalog.parquet")
    orders = list(baskets(rows))
    pq.write_table(
        pa.table(
            {
                "order_id": [number for number, *_ in orders],
                "created_at": pa.array([when(seconds) for _, _, seconds, _ in orders], pa.timestamp("us", "UTC")),
                "customer": [{"id": int(user), "email": f"{user}@mail.example"} for _, user, _, _ in orders],
                "line_items": [
                    None if n % 50 == 3 else [{"product_id": one, "quantity": 1, "price": 1.95} for one in bought]
                    for n, _, _, bought in orders
                ],
                "status": ["completed" if n % 6 else "cancelled" for n, *_ in orders],
            }
        ),
        folder / "orders.parquet",
    )
    return arguments("catalog.parquet", "orders.parquet")
