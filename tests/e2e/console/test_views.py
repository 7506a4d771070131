"""Items, Users, Models, Operations and Map: journeys through each, on a desktop and on a phone."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.console.conftest import Console, violations

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> שלום"
ROWS = ".item-rows .item-row .card-title"


def set_value(console: Console, selector: str, text: str) -> None:
    script = "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
    script += "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {bubbles: true}))"
    console.browser.run(script, selector, text)


def test_items_are_searched_and_narrowed(console: Console) -> None:
    console.open("items")
    browser = console.browser
    assert len(browser.texts(ROWS)) == 48
    browser.type(".search input", "lantern")
    browser.wait(lambda: browser.texts(ROWS) and all("lantern" in title.lower() for title in browser.texts(ROWS)))
    set_value(console, ".search input", "")
    browser.wait(lambda: len(browser.texts(ROWS)) == 48)
    browser.run("document.querySelector('.facet .check:nth-of-type(2) input').click()")
    browser.wait(lambda: set(browser.texts(".item-row .price")) == {"£0.85"})
    assert browser.run("return decodeURIComponent(location.hash)") == '#/items?filter={"price":["0.85+GBP"]}'
    assert all(text.startswith("£") for text in browser.texts(".facet .check span:nth-of-type(1)"))
    console.open("items")
    browser.click(".main-column .center button")
    browser.wait(lambda: len(browser.texts(ROWS)) == 96)
    console.open("items?filter=" + quote('{"price":["0.85 GBP"]}') + "&q=lunch")
    browser.wait(lambda: set(browser.texts(".item-row .price")) <= {"£0.85"})
    set_value(console, ".search input", "no item has these words")
    browser.wait(lambda: browser.texts(".state h3") == ["No item was found"])
    browser.click(".state button")
    browser.wait(lambda: len(browser.texts(ROWS)) == 48)
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_an_item_is_added_changed_hidden_shown_and_deleted(console: Console, service: str) -> None:
    console.open("items")
    browser = console.browser
    browser.click(".head .primary")
    browser.wait(lambda: browser.texts("h1") == ["Add an item"] and browser.texts(".attribute-row"))
    console.settled()
    browser.type("#item-id", "a/b c")
    assert browser.run("return document.querySelectorAll('.value')[1].placeholder") == "such as 1.25 GBP"
    set_value(console, ".attribute-row:nth-child(1) .value", HOSTILE)
    set_value(console, ".attribute-row:nth-child(2) .value", "1.50 GBP")
    browser.run("document.querySelector('.attribute-form .quiet').click()")
    set_value(console, ".attribute-row:nth-child(3) .name", "tags")
    set_value(console, ".attribute-row:nth-child(3) .type", "list")
    set_value(console, ".attribute-row:nth-child(3) .value", "red\n gift \n")
    browser.run("document.querySelector('.attribute-form [type=submit]').click()")
    browser.wait(lambda: f"Added: {HOSTILE}" in browser.texts(".panel > h2"))
    browser.wait(lambda: "Recommended after" in "".join(browser.texts("main [role=status]")))
    browser.wait(lambda: len(browser.texts(ROWS)) == 8 and HOSTILE not in browser.texts(ROWS))
    stored = httpx.get(f"{service}/items/a%2Fb%20c", trust_env=False).json()
    assert stored["attributes"] == {"title": HOSTILE, "price": "1.50 GBP", "tags": ["red", "gift"]}
    assert browser.run("return document.title") == "Items · seqrec", "the text did nothing"

    browser.run("[...document.querySelectorAll('a')].find((one) => one.textContent === 'Open it').click()")
    browser.wait(lambda: browser.texts("h1") == [HOSTILE])
    assert browser.texts(".note")[0].startswith("Searchable.")
    set_value(console, ".attribute-row:nth-child(2) .type", "number")
    browser.run("document.querySelector('.attribute-form [type=submit]').click()")
    browser.wait(lambda: "is not a number" in "".join(browser.texts(".problem")))
    assert browser.run("return document.activeElement.ariaInvalid") == "true"
    set_value(console, ".attribute-row:nth-child(2) .value", "1.25")
    browser.run("document.querySelector('.attribute-form [type=submit]').click()")
    browser.wait(lambda: httpx.get(f"{service}/items/a/b c", trust_env=False).json()["attributes"]["price"] == 1.25)
    console.settled()

    browser.click(".item-head .row button:nth-of-type(1)")
    browser.wait(lambda: browser.texts(".note")[0].startswith("Hidden."))
    console.settled()
    browser.click(".item-head .row button:nth-of-type(1)")
    browser.wait(lambda: browser.texts(".note")[0].startswith("Searchable."))
    console.settled()
    browser.click(".item-head .danger-quiet")
    browser.wait(lambda: browser.texts("dialog h2") == ["Delete this item?"])
    browser.click("dialog button:nth-child(1)")
    browser.wait(lambda: browser.texts("dialog") == [])
    assert httpx.get(f"{service}/items/a/b c", trust_env=False).status_code == 200
    browser.click(".item-head .danger-quiet")
    browser.click("dialog .danger")
    browser.wait(lambda: browser.texts(".state h3") == ["Deleted"])
    assert httpx.get(f"{service}/items/a/b c", trust_env=False).status_code == 404


def test_the_form_of_a_new_item_can_be_typed_into_at_once(desktop: Console) -> None:
    desktop.open("items")
    desktop.browser.click(".head .primary")
    desktop.browser.wait(lambda: desktop.browser.texts("h1") == ["Add an item"])
    desktop.settled()
    assert desktop.browser.run("return document.activeElement.id") == "item-id"


def test_a_refused_item_is_explained_at_its_field(desktop: Console) -> None:
    desktop.open("items/new?add")
    browser = desktop.browser
    set_value(desktop, "#item-id", "é" * 200)  # 400 bytes
    set_value(desktop, ".attribute-row:nth-child(1) .value", "x")
    browser.run("document.querySelector('.attribute-form [type=submit]').click()")
    [problem] = browser.wait(lambda: browser.texts(".problem"))
    assert "256 bytes" in problem
    assert browser.run("return document.activeElement.id + document.activeElement.ariaInvalid") == "item-idtrue"


def test_an_item_that_is_not_there_has_a_way_out(desktop: Console) -> None:
    desktop.open("items/" + quote(HOSTILE, safe=""))
    browser = desktop.browser
    assert browser.wait(lambda: browser.texts(".state h3")) == ["There is no such item"]
    browser.click(".state a")
    browser.wait(lambda: len(browser.texts(ROWS)) == 48)


def test_a_user_is_looked_up_and_deleted(console: Console, service: str) -> None:
    user = "shop/ann " + HOSTILE
    events = [
        {"user_id": user, "item_id": item, "timestamp": 1e9 + 86_400 * n}
        for n, item in enumerate(("20725", "21559", "gone"))
    ]
    httpx.post(f"{service}/events", json={"events": events}, trust_env=False).raise_for_status()
    console.open("users")
    browser = console.browser
    assert len(browser.texts(".cards .card")) == 12
    browser.type("#user-id", user)
    browser.press("enter")
    browser.wait(lambda: browser.texts("h1") == [user] and browser.texts(".timeline h3"))
    assert browser.texts(".timeline h3") == ["11 Sept 2001", "10 Sept 2001", "9 Sept 2001"]
    assert browser.texts(".timeline .card-title")[0] == "gone"
    assert browser.texts(".lead") == ["3 events on 3 days, the last on 11 Sept 2001"]
    browser.wait(lambda: len(browser.texts(".cards .card")) == 6)
    assert any("follows" in text or "shares words" in text for text in browser.texts(".why"))
    assert browser.run("return document.title") == "Users · seqrec"
    browser.click(".danger-quiet")
    browser.click("dialog .danger")
    browser.wait(lambda: browser.texts(".state h3") == ["Deleted"])
    assert httpx.get(f"{service}/users/{quote(user, safe='')}", trust_env=False).status_code == 404
    console.open("users/" + quote(user, safe=""))
    browser.wait(lambda: "No such user" in "".join(browser.texts(".problem")))


def test_models_show_what_is_served_and_a_reindex_runs(desktop: Console, service: str) -> None:
    desktop.open("models")
    browser = desktop.browser
    served = httpx.get(f"{service}/readyz", trust_env=False).json()["snapshot"]
    assert served in browser.texts(".panel .lead")[0]
    assert "seqrec evaluate" in "".join(browser.texts(".panel .hint"))
    httpx.post(f"{service}/items", json={"items": [{"item_id": "r", "attributes": {"title": "Kite"}}]}, trust_env=False)
    browser.click(".head .primary")
    browser.wait(lambda: browser.texts(".jobs .badge"))
    browser.wait(lambda: served not in browser.texts(".panel .lead")[0], 240)
    assert browser.texts(".jobs .badge")[0] == "done"
    assert browser.texts(".list tbody .badge")[:2] == ["served", "published before"]
    # Two snapshots of one model recommend the same.
    browser.click(".pair button")
    browser.wait(lambda: len(browser.texts(".changes .changed-user")) == 10, 120)
    assert browser.texts(".moved") == ["100 of 100 recommendations are in both. 10 users of 10 would see no change."]
    # And back, by the button of the earlier one.
    browser.click(f"[aria-label='Serve {served}']")
    browser.click("dialog .danger")
    browser.wait(lambda: served in browser.texts(".panel .lead")[0])
    assert httpx.get(f"{service}/snapshots", trust_env=False).json()["snapshots"][1]["served"]
    httpx.delete(f"{service}/items/r", trust_env=False)


def test_what_changed_between_two_models(console: Console, service: str) -> None:
    ids = ["20725", "21559", "22423", "20727"]
    one = {"model": "hybrid", "published": True, "created": "2026-11-29T10:00:00Z", "seq": 1, "items": 9, "recall": 1}
    one |= {"index": "flat", "bytes": 1e6, "dim": 32, "metric": "dot", "precision": "float32"}
    new, old = ({**one, "id": name, "checkpoint": name * 4, "served": name == "new"} for name in ("new", "old"))
    users = [
        {"user_id": "ann", "history": ["22382"], "before": ids[:3], "after": [ids[1], ids[0], ids[3]]},
        {"user_id": HOSTILE, "history": [], "before": ids[:3], "after": ids[:3]},
    ]
    changes = {"status": 200, "before": "old", "after": "new", "users": users, "titles": {}}
    failed = {"status": 429, "title": "The service is busy", "detail": "snapshots are being compared"}
    path = "snapshots/new/changes?since=old&users=10&k=10"
    snapshots = {"status": 200, "snapshots": [new, old]}
    intercept(console, {"snapshots": [snapshots], path: [failed, changes]})
    console.open("models")
    browser = console.browser
    browser.click(".pair button")
    browser.wait(lambda: "are being compared" in "".join(browser.texts(".changes .problem")))
    browser.click(".changes .problem button")
    browser.wait(lambda: browser.texts(".changes .changed-user summary b") == ["ann", HOSTILE])
    assert browser.texts(".moved") == ["5 of 6 recommendations are in both. 1 user of 2 would see no change."]
    assert browser.texts(".changes .changed-user[open] .compare-column:nth-child(2) .move") == [
        "▲ 1 place up",
        "▼ 1 place down",
        "new",
    ]
    assert browser.texts(".changes .changed-user[open] .compare-column:nth-child(1) .move") == ["not in After"]
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert violations(browser) == []


def test_operations_show_load_as_it_comes(console: Console, service: str) -> None:
    console.open("operations")
    browser = console.browser
    names = browser.wait(lambda: browser.texts(".figure h2"))
    assert names == ["Requests", "Latency", "Errors", "Queue", "Cache", "Lag"]
    assert browser.texts(".stack .note b") == ["Ready."]
    total = int(browser.texts(".figure .hint")[0].split()[0].replace(",", ""))
    for _ in range(20):
        httpx.post(f"{service}/recommend", json={"history": ["20725"]}, trust_env=False).raise_for_status()
    browser.wait(lambda: int(browser.texts(".figure .hint")[0].split()[0].replace(",", "")) >= total + 20)
    browser.wait(
        lambda: (
            browser.run("return document.querySelector('.spark polyline').getAttribute('points').split(' ').length")
            >= 2
        )
    )
    assert "encode" in browser.texts(".bars tbody th")
    assert "/recommend" in browser.texts(".bars tbody th")
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_map_shows_the_catalogue_and_a_shopper(console: Console) -> None:
    console.open("map")
    browser = console.browser
    count = browser.wait(
        lambda: (
            "items. The two directions" in "".join(browser.texts("main [role=status]"))
            and browser.texts("main [role=status]")
        )
    )
    assert count[0].startswith("3,14")
    assert browser.run("return document.querySelector('.head select').value") == "price"
    assert len(browser.texts(".legend li")) == 5
    assert browser.run(COLOURS) > 5
    browser.click(".head button")
    browser.wait(lambda: "numbered discs" in "".join(browser.texts("main [role=status]")))
    browser.run("document.querySelector('canvas').focus()")
    browser.press("right")
    browser.wait(lambda: browser.texts(".map-hover b"))
    title = browser.texts(".map-hover b")[0]
    browser.press("enter")
    browser.wait(lambda: browser.texts("h1") == [title])


def test_a_hundred_thousand_points_are_moved_smoothly(desktop: Console) -> None:
    points = 100_000
    x, y = ([round(math.cos(n * step), 4) for n in range(points)] for step in (1.0, 0.37))
    ids, values = [str(n) for n in range(points)], [n % 50 for n in range(points)]
    large = {"items": points, "explained": [0.1, 0.1], "ids": ids, "x": x, "y": y, "values": values}
    intercept(desktop, {"map?attribute=price": [{"status": 200, **large}]})
    desktop.open("map")
    browser = desktop.browser
    browser.wait(lambda: "100,000 of 100,000" in "".join(browser.texts("main [role=status]")))
    assert browser.run(COLOURS) > 5
    frames = [browser.run(ZOOM) for _ in range(5)]
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("the machine is too busy to measure")
    assert min(frames) < 100, frames


def test_a_map_that_takes_too_long_is_drawn_of_fewer_items(desktop: Console) -> None:
    few = {"items": 100_000, "explained": [0.1, 0.1], "ids": ["1"], "x": [0], "y": [0], "values": [1]}
    paths = "map?attribute=price", "map?attribute=price&limit=20000"
    intercept(desktop, {paths[0]: [{"status": 504, "title": "too late"}], paths[1]: [{"status": 200, **few}]})
    desktop.open("map")
    desktop.browser.wait(lambda: desktop.browser.texts("main [role=status]")[0].startswith("1 of 100,000 items"))


def test_a_new_item_is_drawn_into_the_map(desktop: Console, service: str) -> None:
    item = {"item_id": "on-the-map", "attributes": {"title": "Lunch bag with a compass"}}
    httpx.post(f"{service}/items", json={"items": [item]}, trust_env=False).raise_for_status()
    browser = desktop.browser
    try:
        desktop.open("items/on-the-map")
        browser.run("[...document.querySelectorAll('.head a')].find((a) => a.textContent === 'Map').click()")
        browser.wait(lambda: browser.texts(".map-hover b") == ["Lunch bag with a compass"])
    finally:
        httpx.delete(f"{service}/items/on-the-map", trust_env=False).raise_for_status()
    desktop.open("map?item=on-the-map")
    browser.wait(lambda: browser.texts("main [role=status]")[0].startswith("on-the-map is hidden or deleted."))


def test_an_address_that_names_nothing_has_a_way_out(desktop: Console) -> None:
    desktop.open("nothing")
    assert desktop.browser.texts("h1") == ["There is no such page"]
    desktop.browser.click("main a")
    desktop.browser.wait(lambda: desktop.browser.texts("h1") == ["What would a shopper want next?"])


def test_an_item_shows_what_is_recommended_after_it(console: Console, service: str) -> None:
    body = {"history": ["20725"], "k": 6, "explain": True}
    answer = httpx.post(f"{service}/recommend", json=body, trust_env=False).json()
    console.open("items/20725")
    browser = console.browser
    after = "[aria-label='Recommended after it'] "
    browser.wait(lambda: len(browser.texts(f"{after}.score")) == 6)
    assert browser.texts(f"{after}.id") == [item["item_id"] for item in answer["items"]]
    assert "bought together" in browser.texts(f"{after}.legend li")


def test_a_user_is_recommended_to_in_each_placement(desktop: Console, service: str) -> None:
    rules = {"filter": {"price": ["1.65 GBP"]}}
    httpx.put(f"{service}/placements/cheap", json=rules, trust_env=False).raise_for_status()
    try:
        desktop.open("users/12347")
        browser = desktop.browser
        browser.wait(lambda: browser.texts("[aria-label=Placement] option") == ["no placement", "cheap"])
        set_value(desktop, "[aria-label=Placement]", "cheap")
        browser.wait(lambda: set(browser.texts(".cards .price")) == {"£1.65"})
    finally:
        httpx.delete(f"{service}/placements/cheap", trust_env=False)


FIGURES = (
    "one\n\n| all | NDCG@10 | MRR |\n|---|---:|---:|\n| popularity | 0.1 | 0.2 |\n| **hybrid** | **0.4** | 0.1 |\n"
)


def test_an_evaluation_begins_with_a_picture(console: Console) -> None:
    intercept(console, {"evaluation": [{"status": 200, "markdown": FIGURES}]})
    console.open("models")
    browser = console.browser
    assert browser.texts(".headline tbody th") == ["hybrid", "popularity"]
    assert browser.texts(".headline tbody td:last-child") == ["0.4000", "0.1000"]
    shares = (
        "return [...document.querySelectorAll('.headline .part')].map((one) => one.style.getPropertyValue('--share'))"
    )
    assert browser.run(shares) == ["1", "0.25"]
    browser.click(".markdown summary")
    assert browser.texts(".evaluation tbody th") == ["popularity", "hybrid"]


@pytest.mark.parametrize("text", ["", "| a |\n|---|\n| <b>x</b> |\n"])
def test_an_evaluation_is_shown_where_there_is_one(desktop: Console, text: str, tmp_path: Path) -> None:
    answers = {"evaluation": [{"status": 200, "markdown": text or None}]}
    intercept(desktop, answers)
    desktop.open("models")
    shown = desktop.browser.texts(".evaluation tbody th")
    assert shown == (["<b>x</b>"] if text else [])


# How many different colours the canvas shows.
COLOURS = """
const canvas = document.querySelector("canvas");
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const colours = new Set();
for (let at = 0; at < data.length; at += 4) {
  if (data[at + 3] > 200) colours.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
}
return colours.size;
"""
# Milliseconds to draw all points anew; reading a pixel waits until they are.
ZOOM = """
const canvas = document.querySelector("canvas");
const begin = performance.now();
canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -1, cancelable: true }));
canvas.getContext("2d").getImageData(0, 0, 1, 1);
return performance.now() - begin;
"""
# What stands between the page and the service: the first answers to these paths are taken from a list.
INTERCEPT = """
const real = window.fetch;
const answers = ANSWERS;
window.fetch = (path, options) => {
  const answer = (answers[path] ?? []).shift();
  if (answer === undefined) return real(path, options);
  if (answer === null) return Promise.reject(new TypeError("Failed to fetch"));
  return Promise.resolve(new Response(JSON.stringify(answer), { status: answer.status }));
};
"""


def intercept(console: Console, answers: dict[str, list[object]]) -> None:
    source = INTERCEPT.replace("ANSWERS", json.dumps(answers))
    console.browser.before_page(source)
