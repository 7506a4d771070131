"""docs/migrate.md: its commands run on exports in the formats of gorse, Amazon Personalize and RecBole."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from seqrec import cli

USERS = 60


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "migrate.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shop(online_retail: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """All items of the demo, and the events of some users."""
    with gzip.open(online_retail / "items.jsonl.gz", "rt", encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    with gzip.open(online_retail / "interactions.csv.gz", "rt", encoding="utf-8") as file:
        events = list(csv.DictReader(file))
    users = set(sorted({event["user_id"] for event in events})[:USERS])
    return items, [event for event in events if event["user_id"] in users]


def run(page: str, name: str, *changes: tuple[str, str], between: Any = None) -> None:
    """The commands of a section, with changes that keep them short; `between` is called before each but the first."""
    [block] = re.findall(rf"<!-- {name}: begin -->\n```sh\n(.*?)```", page, re.DOTALL)
    for number, line in enumerate(block.splitlines()):
        if number and between is not None:
            between()
        for old, new in changes:
            line = line.replace(old, new)
        program, *arguments = shlex.split(line)
        assert program == "seqrec"
        cli.main(arguments)


IMPORT = ("seqrec up", "seqrec up --until import")


@pytest.mark.slow
def test_from_gorse(page: str, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files as gorse's /api/bulk writes its Item and Feedback."""
    monkeypatch.chdir(tmp_path)
    items, events = shop
    with Path("items.jsonl").open("w", encoding="utf-8") as file:
        for number, item in enumerate(items):
            title = item["attributes"]["title"]
            labels = {"title": title, "kind": title.split()[-1]}
            record = {"ItemId": item["item_id"], "IsHidden": number % 50 == 0, "Categories": [title.split()[0]]}
            record |= {"Timestamp": "2026-01-01T00:00:00Z", "Labels": labels, "Comment": title}
            file.write(json.dumps(record) + "\n")
    with Path("feedback.jsonl").open("w", encoding="utf-8") as file:
        for event in events:
            when = datetime.fromtimestamp(float(event["timestamp"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            record = {"FeedbackType": "purchase", "UserId": event["user_id"], "ItemId": event["item_id"], "Value": 1}
            record |= {"Timestamp": when, "Updated": when, "Labels": None, "Comment": ""}
            file.write(json.dumps(record) + "\n")
    shown = re.findall(
        r"^(\w+) = (.*?)\s*(?:#.*)?$", re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0], re.MULTILINE
    )
    assert [name for name, _ in shown] == ["IsHidden", "Comment"]

    def edit() -> None:
        text = Path("shop.toml").read_text(encoding="utf-8")
        for name, value in shown:
            text, times = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
            assert times == 1
        Path("shop.toml").write_text(text, encoding="utf-8")

    run(page, "gorse", IMPORT, between=edit)
    imported = [json.loads(line) for line in Path("var/data/items.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(imported) == len(items)
    assert sum(not item.get("available", True) for item in imported) == len(range(0, len(items), 50))
    assert "Labels.title" in imported[0]["attributes"]
    assert "Comment" not in imported[0]["attributes"]


@pytest.mark.slow
def test_from_amazon_personalize(page: str, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    items, events = shop
    with Path("items.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ITEM_ID", "CREATION_TIMESTAMP", "CATEGORY_L1", "PRICE", "PRODUCT_DESCRIPTION"])
        for number, item in enumerate(items):
            category = "gift|home" if number % 2 else "home"
            rows.writerow(
                [item["item_id"], 1760000000 + number, category, number % 7 + 0.5, item["attributes"]["title"]]
            )
    with Path("interactions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE"])
        for number, event in enumerate(events):
            kind = "Purchase" if number % 3 else "View"
            rows.writerow([event["user_id"], event["item_id"], int(float(event["timestamp"])), kind])
    run(page, "personalize", IMPORT)
    first = json.loads(Path("var/data/items.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert first["attributes"]["CATEGORY_L1"] == ["gift", "home"]
    assert set(first["attributes"]) >= {"PRODUCT_DESCRIPTION", "PRICE", "CREATION_TIMESTAMP"}


@pytest.mark.slow
def test_from_recbole(page: str, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    items, events = shop
    Path("items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    with Path("events.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, events[0])
        rows.writeheader()
        rows.writerows(events)
    Path("dataset").mkdir()
    cli.main(["export", "recbole", "--items", "items.jsonl", "--interactions", "events.csv", "--out", "dataset/shop"])
    assert Path("dataset/shop/shop.inter").is_file()
    quick = "--set optimizer.max_epochs=1 --set model.settings.dim=8 --set model.settings.max_length=20"
    run(page, "recbole files", ("--max-minutes 10", quick))
    assert Path("runs/sasrec/checkpoint/digest").is_file()
    run(page, "recbole", IMPORT)
    assert Path("var/data/items.jsonl").is_file()


def test_the_endpoints_of_the_tables_exist(page: str, root: Path) -> None:
    paths = json.loads((root / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    known = {f"{method.upper()} {re.sub(r'{.*?}', 'ID', path)}" for path, of in paths.items() for method in of}
    named = set(re.findall(r"\| .*? \|.*?`((?:GET|POST|PATCH|DELETE|PUT) /\S+?)`", page))
    assert len(named) > 5
    assert {re.sub(r"/(USER|ID)$", "/ID", one) for one in named} <= known
