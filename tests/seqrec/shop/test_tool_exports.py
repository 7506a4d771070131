"""`seqrec init` on what shop tools and trackers write: what it takes each column for, and that each row is accounted
for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seqrec.data.items import Item, read_items
from seqrec.shop.cli import init
from seqrec.shop.imported import Report, import_shop
from seqrec.shop.project import Project, read_project
from tests.seqrec.shop import order_exports, tool_exports

pytestmark = pytest.mark.slow

Made = tuple[Project, Report, dict[str, Item]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Made]:
    """The project of an export, its import and the imported items."""

    def make(name: str) -> Made:
        monkeypatch.chdir(tmp_path)
        write = getattr(order_exports, name, None) or getattr(tool_exports, name)
        init(write(tmp_path))
        project = read_project(tmp_path / "shop.toml")
        report = import_shop(project)
        return project, report, {item.item_id: item for item in read_items(project.items)}

    return make


def texts(project: Project) -> tuple[str, ...]:
    return project.config.items.texts


EVENTS: dict[str, dict[str, Any]] = {
    "shopify_api": {
        "rows": "line_items",
        "item": "line_items.product_id",
        "user": "customer.id",
        "session": "email",
        "time": "created_at",
        "type": "financial_status",
        "value": "line_items.quantity",
    },
    "woocommerce": {
        "rows": "line_items",
        "item": "line_items.sku",
        "user": "customer_id",
        "nobody": ("0",),
        "session": "billing.email",
        "time": "date_created_gmt",
        "type": "status",
    },
    "magento": {
        "rows": "items",
        "item": "items.sku",
        "user": "customer_id",
        "session": "customer_email",
        "type": "status",
    },
    "prestashop": {
        "rows": None,
        "item": "product_id",
        "user": "id_customer",
        "time": "date_add",
        "type": "current_state",
    },
    "shopware": {
        "item": "Produktnummer",
        "user": "Kundennummer",
        "time_format": "dayfirst",
        "type": "Zahlungsstatus",
    },
    "ga4": {
        "rows": "items",
        "item": "items.item_id",
        "user": "user_id",
        "session": "user_pseudo_id",
        "time": "event_timestamp",
        "time_format": "us",
        "type": "event_name",
        "on_error": "raise",
    },
    "segment": {
        "rows": "properties.products",
        "item": ("properties.products.product_id", "properties.product_id"),
        "user": "userId",
        "session": "anonymousId",
        "time": "timestamp",
        "type": "event",
        "on_error": "raise",
    },
    "matomo": {
        "rows": "actionDetails",
        "item": "actionDetails.productViewSku",
        "user": "visitorId",
        "time": "actionDetails.timestamp",
        "type": "actionDetails.type",
    },
    "amazon_seller": {"item": "sku", "user": "buyer-email", "time": "purchase-date", "value": "quantity-purchased"},
    "workbook": {"item": "Article no.", "user": "Customer no.", "time": "Date"},
    "graphql": {
        "rows": "node.lineItems.edges",
        "item": "node.lineItems.edges.node.product.id",
        "user": "node.customer.id",
        "time": "node.createdAt",
    },
    "parquet_orders": {
        "rows": "line_items",
        "item": "line_items.product_id",
        "user": "customer.id",
        "time_format": "datetime",
        "type": "status",
    },
}


@pytest.mark.parametrize("name", EVENTS)
def test_which_field_is_what_and_no_row_is_lost_without_a_reason(made: Callable[[str], Made], name: str) -> None:
    project, report, items = made(name)
    events = project.config.events
    assert {key: getattr(events, key) for key in EVENTS[name]} == EVENTS[name]
    counts = report.events
    assert counts["kept"] == len(pq.read_table(project.interactions)) > 800
    assert counts["read"] == counts["kept"] + counts["negatives"] + sum(counts["left_out"].values())
    assert counts["users"] > 40
    assert report.items["read"] == report.items["kept"] + sum(report.items["left_out"].values())
    assert report.items["without_text"] == 0
    assert {
        f"{value:.60}" for item in items.values() for value in item.attributes.values() if "{" in str(value)
    } == set()


def test_a_product_has_the_price_of_its_first_variant_and_is_there_if_one_is(made: Callable[[str], Made]) -> None:
    project, report, items = made("shopify_api")
    config = project.config.items
    assert (config.rows, config.id, config.duplicates) == ("variants", "id", "merge")
    assert texts(project) == ("title", "vendor", "product_type", "tags", "body_html")
    first = items["7000000000000"]
    assert first.attributes["variants.price"] == 0.95
    assert first.attributes["tags"] == ("kids", "gift", "sale")
    assert str(first.attributes["body_html"]).endswith("& more")
    assert str(first.attributes["images"]).startswith("https://")
    assert report.events["left_out"]["without line_items.product_id"] > 0
    assert report.events["left_out"]["of type pending"] > 0
    assert report.events["negatives"] > 0


def test_paths_of_categories_attributes_and_what_is_published_and_in_stock(made: Callable[[str], Made]) -> None:
    project, _, items = made("woocommerce")
    config = project.config.items
    assert config.columns["Categories"].separator == (",", ">")
    kinds = {name: column.kind for name, column in config.columns.items()}
    assert [name for name, kind in kinds.items() if kind == "available"] == ["Published", "In stock?"]
    made_of = list(items.values())
    assert made_of[2].attributes["Categories"] == ("Toys", "Party", "Gifts", "Cards")
    assert [item.available for item in made_of[:4]] == [False, True, True, True]  # not published: the first
    assert not made_of[8].available  # published, and not in stock


def test_pairs_of_attributes_and_paths_with_a_slash(made: Callable[[str], Made]) -> None:
    project, _, items = made("magento")
    assert project.config.items.columns["categories"].separator == (",", "/")
    second = list(items.values())[1]
    assert second.attributes["categories"] == ("Default Category", "Home", "Decor")
    assert second.attributes["additional_attributes"] == ("color=Blue", "material=Tin", "gift=Yes")
    assert second.attributes["price"] == 1.95


def test_names_with_dots_and_a_manufacturer_that_is_no_title(made: Callable[[str], Made]) -> None:
    project, report, _ = made("shopware")
    assert texts(project)[:2] == ("translations.DEFAULT.name", "manufacturer_name")
    assert report.events["left_out"]["items that are not in the catalogue"] > 0  # shipping


def test_page_views_are_no_fault_and_lists_that_were_shown_no_history(made: Callable[[str], Made]) -> None:
    project, report, _ = made("ga4")
    assert report.events["left_out"]["without items.item_id"] > 0
    assert report.events["left_out"]["of type view_item_list"] > 0
    assert project.config.items.columns["g:price"].kind == "number"
    users = set(pq.read_table(project.interactions).column("user_id").to_pylist())
    assert len(users) == report.events["users"] == 60  # a device is the user's who logged in on it


def test_views_and_orders_with_lines_in_one_log(made: Callable[[str], Made]) -> None:
    _, report, _ = made("segment")
    types = report.events["types"]
    assert types["Order Completed"] > types["Product Viewed"] > 0
    assert report.events["left_out"].keys() == {"without properties.products.product_id", "repeated within a session"}


def test_a_workbook_with_groups_of_columns_and_a_row_of_totals(made: Callable[[str], Made]) -> None:
    project, report, items = made("workbook")
    assert report.items["left_out"] == {"rows of totals": 1}
    assert texts(project) == ("Description", "Group")
    assert "Total" not in items
    assert project.config.items.columns["Gross price"].kind == "number"


def test_cents_with_a_comma(made: Callable[[str], Made]) -> None:
    project, _, items = made("prestashop")
    assert project.config.items.columns["Price (tax incl.)"].decimal == ","
    assert next(iter(items.values())).attributes["Price (tax incl.)"] == 4.74
