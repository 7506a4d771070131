"""Try: shoppers, histories, filters, reasons, the request, and two sides compared; on a desktop and on a phone."""

from __future__ import annotations

import json
from typing import Any, TypedDict
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.console.conftest import Console, violations
from tests.e2e.console.test_views import intercept, set_value

TITLES = ".cards .card-title"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> שלום"


def history(console: Console) -> list[str]:
    return console.browser.texts(".strip .entry .title")


def results(console: Console) -> list[str]:
    console.settled()
    return console.browser.texts(TITLES)


def body_of(console: Console) -> dict[str, Any]:
    """The request as the panel shows it."""
    shown = console.browser.texts("[aria-label='The request'] code")[0]
    answer: dict[str, Any] = json.loads(shown)
    return answer


def test_it_begins_with_a_real_shopper_and_recommendations(console: Console, service: str) -> None:
    console.open()
    browser = console.browser
    users = browser.wait(lambda: browser.texts(".shopper b"))
    assert len(users) == len(set(users)) == 6
    [chosen] = browser.texts(".shopper[aria-pressed=true] b")
    assert browser.texts("#results-title") == [f"Next for shopper {chosen}"]
    events = httpx.get(f"{service}/users/{chosen}", trust_env=False).json()["events"]
    assert len(history(console)) == min(30, len(events))
    assert len(results(console)) == 11
    scores = [float(text.removeprefix("Score ")) for text in browser.texts(".score-value")]
    assert scores == sorted(scores, reverse=True)
    assert any("follows" in text or "shares words" in text for text in browser.texts(".why"))
    assert browser.texts(".legend li")[0] == "bought together"
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
        "it scrolls sideways"
    )


def test_another_shopper_and_a_surprise(console: Console) -> None:
    console.open()
    browser = console.browser
    browser.wait(lambda: browser.texts(".shopper b"))
    second = browser.texts(".shopper b")[1]
    browser.click(".shoppers li:nth-child(2) button")
    browser.wait(lambda: browser.texts("#results-title") == [f"Next for shopper {second}"])
    assert len(results(console)) == 11
    before = browser.texts("#results-title")
    for _ in range(5):  # it may pick the same one
        browser.click(".head .primary")
        console.settled()
        if browser.texts("#results-title") != before:
            break
    browser.wait(lambda: browser.texts("#results-title") != before)


def test_a_history_is_built_reordered_and_emptied(console: Console) -> None:
    console.open("try?history=%5B%5D")
    browser = console.browser
    browser.wait(lambda: browser.texts("#results-title") == ["Popular now"])
    assert history(console) == []
    browser.type(".picker input", "lantern")
    browser.wait(lambda: len(browser.texts(".suggestions li")) > 2)
    first = browser.texts(".suggestions li:first-child .title")[0]
    browser.press("down", "enter")
    browser.wait(lambda: history(console) == [first])
    assert len(results(console)) == 11
    assert first not in results(console)

    browser.type(".picker input", "christmas gift for a dog")
    browser.press("enter")
    browser.wait(lambda: history(console) == [first, "christmas gift for a dog"])
    assert browser.texts(".strip .meta")[-1] == "your text"
    results(console)
    browser.run("document.querySelector('.strip .entry:nth-child(2) .earlier').click()")
    browser.wait(lambda: history(console) == ["christmas gift for a dog", first])
    assert browser.run("return document.activeElement.ariaLabel").startswith("Move christmas")
    picked = results(console)[1]
    browser.run("document.querySelector('.cards li:nth-child(2) .card-foot button').click()")
    browser.wait(lambda: history(console)[2:] == [picked])
    browser.wait(lambda: picked not in results(console))
    browser.run("document.querySelector('.strip .entry:nth-child(1) .drop').click()")
    browser.wait(lambda: history(console) == [first, picked])
    browser.run("document.querySelector('.strip').lastElementChild")
    browser.click(".history-tools .quiet")
    browser.wait(lambda: browser.texts("#results-title") == ["Popular now"])


def test_lines_that_are_pasted_are_items_where_they_are_ids(desktop: Console) -> None:
    desktop.open("try?history=%5B%5D")
    browser = desktop.browser
    paste = "const data = new DataTransfer(); data.setData('text', arguments[0]);"
    paste += "document.querySelector('.picker input').dispatchEvent("
    paste += "new ClipboardEvent('paste', {clipboardData: data, cancelable: true, bubbles: true}))"
    browser.run(paste, f"20725\n\n {HOSTILE} \n21559")
    browser.wait(lambda: len(history(desktop)) == 3)
    assert history(desktop)[1] == HOSTILE
    assert browser.texts(".strip .meta") == ["20725", "your text", "21559"]
    browser.click(".segmented button:nth-child(3)")
    assert body_of(desktop)["history"] == ["20725", {"attributes": {"title": HOSTILE}}, "21559"]


def test_a_filter_is_made_of_what_there_is(console: Console, service: str) -> None:
    answer = httpx.get(f"{service}/attributes", trust_env=False).json()
    total = answer["items"]
    first, second = next(one for one in answer["attributes"] if one["name"] == "price")["values"][:2]
    assert second["value"] == "0.85 GBP"
    console.open("try?history=%5B%2220725%22%5D")
    browser = console.browser
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{total:,} items, no condition"])
    choose = "const select = document.querySelector('.filter > .row select'); select.value = 'price';"
    browser.run(choose + "select.dispatchEvent(new Event('change'))")
    values = browser.wait(lambda: browser.texts(".checks .check"))
    assert values[0] == f"£{first['value'].removesuffix(' GBP')}{first['count']}"
    browser.click(".checks .check:nth-child(2) input")
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{second['count']} of {total:,} items pass"])
    browser.wait(lambda: set(browser.texts(".cards .price")) == {"£0.85"})
    browser.click(".segmented button:nth-child(3)")
    assert body_of(console)["filter"] == {"price": ["0.85 GBP"]}

    browser.run("document.querySelector('.condition select').value = 'not'")
    browser.run("document.querySelector('.condition select').dispatchEvent(new Event('change'))")
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{total - second['count']:,} of {total:,} items pass"])
    browser.wait(lambda: "£0.85" not in browser.texts(".cards .price"))
    assert body_of(console)["filter"] == {"price": {"not": ["0.85 GBP"]}}
    browser.click(".filter .link")
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{total:,} items, no condition"])
    assert "filter" not in body_of(console)


def test_a_filter_that_nothing_passes_has_a_way_out(desktop: Console, service: str) -> None:
    total = httpx.get(f"{service}/attributes", trust_env=False).json()["items"]
    desktop.open("try?history=%5B%2220725%22%5D&filter=%7B%22title%22%3A%22no%20such%20title%22%7D")
    browser = desktop.browser
    browser.wait(lambda: browser.texts(".state h3") == ["Nothing is left to recommend"])
    browser.wait(lambda: browser.texts(".filter .hint") == [f"0 of {total:,} items pass"])
    browser.click(".state button")
    browser.wait(lambda: len(results(desktop)) == 11)


def test_a_card_opens_with_its_reasons(console: Console) -> None:
    console.open("try?history=%5B%2220725%22%2C%2221559%22%5D")
    browser = console.browser
    title = results(console)[0]
    browser.click(TITLES)
    browser.wait(lambda: browser.texts("dialog h2") == [title])
    assert "Lunch Box" in " ".join(browser.texts("dialog tbody th")) or "Lunch Bag" in " ".join(
        browser.texts("dialog tbody th")
    )
    browser.press("escape")
    browser.wait(lambda: browser.texts("dialog") == [])
    browser.click(TITLES)
    browser.click("dialog .primary")
    browser.wait(lambda: history(console)[2:] == [title])


@pytest.mark.parametrize("ids", [["20725"], ["20725", "21559", "22423", "85123A", "22382"]], ids=["one", "five"])
def test_a_score_is_the_sum_of_its_parts_and_a_part_of_what_the_history_adds(console: Console, ids: list[str]) -> None:
    console.open("try?history=" + quote(json.dumps(ids)))
    browser = console.browser
    had = history(console)
    scores = [float(text.removeprefix("Score ").replace(",", "")) for text in browser.texts(".cards .score-value")]
    lengths = browser.run(BAR_LENGTHS)
    for place, score in enumerate(scores[:6]):
        assert abs(sum(lengths[place]) - score / scores[0]) < 0.02, (
            "the bar is as long as the score's share of the best"
        )
        browser.run("document.querySelectorAll('.cards .card-title')[arguments[0]].click()", place)
        groups: list[Group] = browser.run(SCORE_TABLE)
        assert {group["part"] for group in groups} <= {"co-occurrence", "words", "dense", "repeat"}
        total = float(browser.texts("dialog tfoot td")[0])
        assert abs(total - score) < 0.006, "the sum is the score of the card"
        assert abs(sum(group["value"] for group in groups) - total) < 0.005, "the parts sum to the score"
        for group, share in zip(groups, lengths[place], strict=True):
            assert abs(group["value"] / total - share / sum(lengths[place])) < 0.02, "each part as long as its share"
            names = [name for name, _ in group["lines"]]
            assert set(names) <= {*had, "the rest of the history"}
            assert len(set(names)) == len(names)
            if group["lines"]:
                assert abs(sum(value for _, value in group["lines"]) - group["value"]) < 0.004, "lines sum to the part"
        grouped = {group["part"]: [name for name, _ in group["lines"]] for group in groups}
        assert not grouped.get("dense"), "what one vector of the whole history adds is no single item's"
        if len(ids) == 1:
            assert all(lines == had for part, lines in grouped.items() if part in ("co-occurrence", "words"))
        browser.press("escape")
        browser.wait(lambda: browser.texts("dialog") == [])


def test_the_answer_is_shown_as_it_came(desktop: Console) -> None:
    desktop.open("try?history=%5B%2220725%22%5D")
    browser = desktop.browser
    assert not browser.run("return document.querySelector('.request details').open")
    browser.click(".request summary")
    answer = json.loads(browser.texts("[aria-label='The answer']")[0])
    shown = browser.run("return [...document.querySelectorAll('.cards [data-item]')].map((one) => one.dataset.item)")
    assert [item["item_id"] for item in answer["items"]] == shown
    assert answer["snapshot"] in browser.run("return document.querySelector('.answered').title")


def test_the_request_answers_as_the_page_does(desktop: Console, service: str) -> None:
    desktop.open("try?history=%5B%2220725%22%2C%2221559%22%5D")
    browser = desktop.browser
    shown = browser.run("return [...document.querySelectorAll('.cards [data-item]')].map((one) => one.dataset.item)")
    curl = browser.texts(".request code")[0]
    assert curl.startswith(f"curl -s {service}/recommend")
    browser.click(".segmented button:nth-child(2)")
    python = browser.texts(".request code")[0]
    printed: list[str] = []
    scope = {"print": lambda *values: printed.append(str(values[0]))}
    exec(compile(python, "request", "exec"), scope)  # the text that a reader would run
    assert printed == shown


def test_two_sides_are_compared(console: Console) -> None:
    console.open("try?history=%5B%2220725%22%2C%2221559%22%5D")
    browser = console.browser
    browser.click(".head [aria-pressed]")
    browser.wait(lambda: len(browser.texts(".compare-column")) == 2)
    assert "the same so far" in browser.texts(".moved")[0]
    browser.run("document.querySelector('.strip .entry:nth-child(2) .drop').click()")
    browser.wait(lambda: "new in B" in browser.texts(".moved")[0] and "same so far" not in browser.texts(".moved")[0])
    console.settled()
    assert browser.texts(".compare-column h3") == ["A 2 items, no filter", "B 1 item, no filter"]
    moves = browser.texts(".compare-column:nth-child(2) .move")
    assert len(moves) == 11
    both, new = (int(part.split()[0]) for part in browser.texts(".moved")[0].split(" · ")[:2])
    assert both + new == 11
    assert moves.count("new") == new
    assert browser.texts(".compare-column:nth-child(1) .move").count("not in B") == 11 - both
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    browser.click(".history .segmented button:nth-child(1)")
    browser.wait(lambda: len(history(console)) == 2)

    address = browser.run("return location.hash")
    console.open(address.removeprefix("#/"))
    browser.wait(lambda: len(browser.texts(".compare-column")) == 2)
    assert browser.texts(".compare-column h3") == ["A 2 items, no filter", "B 1 item, no filter"]
    browser.click(".head [aria-pressed]")
    browser.wait(lambda: browser.texts(".compare-column") == [])


def test_two_placements_are_compared(console: Console, service: str) -> None:
    body = {"history": ["21559"], "k": 5}
    fifth = httpx.post(f"{service}/recommend", json=body, trust_env=False).json()["items"][4]
    pinned = {"pin": [{"position": 1, "item_ids": [fifth["item_id"]]}]}
    for name, rules in {"plain": {}, "pinned": pinned}.items():
        httpx.put(f"{service}/placements/{name}", json=rules, trust_env=False).raise_for_status()
    try:
        console.open("try?placement=plain&placement2=pinned&history=%5B%2221559%22%5D&history2=%5B%2221559%22%5D")
        browser = console.browser
        browser.wait(lambda: len(browser.texts(".compare-column")) == 2)
        assert browser.texts(".compare-column h3") == ["A 1 item, no filter, plain", "B 1 item, no filter, pinned"]
        title = fifth["attributes"]["title"]
        assert browser.texts(".compare-column:nth-child(2) .card-title")[0] == title
        assert browser.texts(".moved") == [f"11 in both · 0 new in B · moved most: {title}, up 4"]
        moves = browser.texts(".compare-column:nth-child(2) .move")
        assert moves[:6] == ["▲ 4 places up", *["▼ 1 place down"] * 4, "same"]
    finally:
        for name in ("plain", "pinned"):
            httpx.delete(f"{service}/placements/{name}", trust_env=False)


def test_the_rules_of_a_placement_are_written_changed_and_deleted(console: Console, service: str) -> None:
    browser = console.browser
    panel, options = "[aria-label=Placement] ", "select[aria-label=Placement] option"
    console.open("try?history=%5B%2221559%22%5D")
    assert browser.texts(options) == []
    browser.click(f"{panel}summary")
    browser.wait(lambda: browser.run("return document.querySelector('textarea').value") == '{\n "diversity": 0.5\n}')
    assert violations(browser) == []
    assert "Delete" not in browser.run("return document.querySelector(arguments[0]).innerText", panel)
    browser.type(f"{panel}input", "front page")
    set_value(console, "textarea", "{")
    browser.click(f"{panel}[type=submit]")
    browser.wait(lambda: "The rules are not JSON" in "".join(browser.texts(f"{panel}.problem")))
    set_value(console, "textarea", '{"diversity": 5}')
    browser.click(f"{panel}[type=submit]")
    browser.wait(lambda: "name" in "".join(browser.texts(f"{panel}.problem")))
    set_value(console, f"{panel}input", "front")
    browser.click(f"{panel}[type=submit]")
    browser.wait(lambda: "less than 1.0, not 5" in "".join(browser.texts(f"{panel}.problem")))
    assert httpx.get(f"{service}/placements", trust_env=False).json() == {"placements": []}
    try:
        set_value(console, "textarea", '{"filter": {"price": ["1.65 GBP"]}}')
        browser.click(f"{panel}[type=submit]")
        browser.wait(lambda: browser.texts(options) == ["none: the plain ranking", "front"])
        browser.wait(lambda: set(browser.texts(".cards .price")) == {"£1.65"})
        assert "placement=front" in browser.run("return location.hash"), "it is tried at once"
        browser.wait(lambda: browser.run("return document.activeElement.tagName") == "SUMMARY")
        browser.wait(lambda: "1.65" in browser.run("return document.querySelector('textarea').value"))
        set_value(console, "textarea", '{"filter": {"price": ["0.85 GBP"]}}')
        browser.click(f"{panel}[type=submit]")
        browser.wait(lambda: set(browser.texts(".cards .price")) == {"£0.85"})
        assert console.browser.run("return document.documentElement.scrollWidth <= innerWidth")
        browser.click(f"{panel}.danger-quiet")
        browser.click("dialog .danger")
        browser.wait(lambda: browser.texts(options) == [])
        assert httpx.get(f"{service}/placements", trust_env=False).json() == {"placements": []}
        assert "placement" not in browser.run("return location.hash")
    finally:
        httpx.delete(f"{service}/placements/front", trust_env=False)


def test_a_model_that_is_loaded_can_be_a_side(desktop: Console, service: str) -> None:
    loaded = {"id": "20991231T000000-000001-abcdef", "model": "hybrid", "checkpoint": "0123456789", "served": False}
    away = {**loaded, "id": "20991231T000000-000002-abcdef"}
    snapshots = [{**loaded, "answers": True}, {**away, "answers": False}]
    body = {"history": ["21559"], "k": 11, "explain": True}
    answer = httpx.post(f"{service}/recommend", json=body, trust_env=False).json()
    answers: list[object] = [{"status": 200, **answer, "items": answer["items"][start:]} for start in (0, 0, 0, 0, 3)]
    intercept(desktop, {"snapshots": [{"status": 200, "snapshots": snapshots}], "recommend": answers})
    desktop.open("try?history=%5B%2221559%22%5D")
    browser = desktop.browser
    browser.click(".head [aria-pressed]")
    browser.wait(lambda: len(browser.texts("select[aria-label=Model] option")) == 2)
    desktop.settled()
    script = "const [field] = document.querySelectorAll('select[aria-label=Model]'); field.selectedIndex = 1;"
    browser.run(script + "field.dispatchEvent(new Event('change'))")
    browser.click(".request .segmented button:nth-child(3)")
    assert body_of(desktop)["snapshot"] == loaded["id"]
    assert f"snapshot2={loaded['id']}" in browser.run("return location.hash")
    browser.wait(lambda: loaded["id"] in "".join(browser.texts(".compare-column:nth-child(2) h3")))


def test_images_of_other_hosts_are_loaded_only_when_they_are_wanted(desktop: Console, service: str) -> None:
    """The browser fixture fails the test if any other host is asked: the image is one of the service itself."""
    picture = f"{service.replace('127.0.0.1', 'localhost')}/static/icon.svg"
    item = {"item_id": "pictured", "attributes": {"title": "zzqx picture", "image": picture}}
    httpx.post(f"{service}/items", json={"items": [item]}, trust_env=False).raise_for_status()
    browser = desktop.browser
    route = "try?history=%5B%7B%22attributes%22%3A%7B%22title%22%3A%22zzqx%20picture%22%7D%7D%5D"
    try:
        desktop.open(route)
        assert results(desktop)[0] == "zzqx picture"
        assert browser.run("return document.querySelectorAll('.card img').length") == 0
        browser.requested()
        policy = "return fetch(location.pathname).then((one) => one.headers.get('content-security-policy'))"
        assert "img-src 'self';" in browser.run(policy)
        desktop.open(route, "?images=1")
        assert results(desktop)[0] == "zzqx picture"
        browser.wait(lambda: browser.run("return document.querySelector('.card img')?.naturalWidth > 0"))
        assert picture in browser.requested()
    finally:
        httpx.delete(f"{service}/items/pictured", trust_env=False)


def test_the_rules_of_a_placement(console: Console, service: str) -> None:
    pinned = {"pin": [{"position": 1, "item_ids": ["20725"]}]}
    httpx.put(f"{service}/placements/shop-window", json=pinned, trust_env=False).raise_for_status()
    try:
        console.open("try?history=" + quote('["21559"]'))
        browser = console.browser
        browser.wait(
            lambda: browser.run("return document.querySelectorAll('[aria-label=Placement] option').length") == 2
        )
        assert results(console)[0] != "Lunch Bag Red Retrospot"
        script = (
            "const [field] = document.querySelectorAll('select[aria-label=Placement]'); field.value = 'shop-window';"
        )
        browser.run(script + "field.dispatchEvent(new Event('change'))")
        browser.wait(lambda: results(console)[:1] == ["Lunch Bag Red Retrospot"])
        browser.click(".request .segmented button:nth-child(3)")
        assert body_of(console)["placement"] == "shop-window"
        assert "placement=shop-window" in browser.run("return location.hash")
        console.open("try?placement=shop-window&history=" + quote('["21559"]'))
        browser.wait(lambda: results(console)[:1] == ["Lunch Bag Red Retrospot"])
    finally:
        httpx.delete(f"{service}/placements/shop-window", trust_env=False)


class Group(TypedDict):
    """A part of a score in the dialog, and the lines below it: an item of the history and what it adds."""

    part: str
    value: float
    lines: list[tuple[str, float]]


SCORE_TABLE = """
const groups = [];
for (const row of document.querySelector("dialog table.figures").tBodies[0].rows) {
  const [name, value] = [...row.cells].map((cell) => cell.textContent.trim());
  if (row.matches(".part-row")) groups.push({ part: row.dataset.part, value: Number(value), lines: [] });
  else groups.at(-1).lines.push([name, Number(value)]);
}
return groups;
"""
# Of each card, the lengths of the pieces of its bar.
BAR_LENGTHS = """
return [...document.querySelectorAll(".cards .bar")].map((bar) =>
  [...bar.children].map((piece) => Number(piece.style.getPropertyValue("--share"))));
"""
