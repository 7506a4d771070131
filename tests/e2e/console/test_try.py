"""Try: shoppers, histories, filters, reasons, the request, and two sides compared; on a desktop and on a phone."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.e2e.console.conftest import Console

TITLES = ".cards .card-title"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> שלום"


def history(console: Console) -> list[str]:
    return console.browser.texts(".strip .entry .title")


def results(console: Console) -> list[str]:
    console.settled()
    return console.browser.texts(TITLES)


def body(console: Console) -> dict[str, Any]:
    """The request as the panel shows it."""
    shown = console.browser.texts(".request code")[0]
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
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


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
    assert body(desktop)["history"] == ["20725", {"attributes": {"title": HOSTILE}}, "21559"]


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
    assert values[0] == f"{first['value']}{first['count']}"
    browser.click(".checks .check:nth-child(2) input")
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{second['count']} of {total:,} items pass"])
    browser.wait(lambda: set(browser.texts(".cards .price")) == {"£0.85"})
    browser.click(".segmented button:nth-child(3)")
    assert body(console)["filter"] == {"price": ["0.85 GBP"]}

    browser.run("document.querySelector('.condition select').value = 'not'")
    browser.run("document.querySelector('.condition select').dispatchEvent(new Event('change'))")
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{total - second['count']:,} of {total:,} items pass"])
    browser.wait(lambda: "£0.85" not in browser.texts(".cards .price"))
    assert body(console)["filter"] == {"price": {"not": ["0.85 GBP"]}}
    browser.click(".filter .link")
    browser.wait(lambda: browser.texts(".filter .hint") == [f"{total:,} items, no condition"])
    assert "filter" not in body(console)


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
    parts = [float(text) for text in browser.texts("dialog tbody td:last-child")]
    total = float(browser.texts("dialog tfoot td")[0])
    rows = browser.run("return document.querySelector('dialog table').tBodies[0].rows.length")
    assert abs(sum(parts[:rows]) - total) < 0.01, "the parts are the score"
    assert "Lunch Box" in " ".join(browser.texts("dialog tbody th")) or "Lunch Bag" in " ".join(
        browser.texts("dialog tbody th")
    )
    browser.press("escape")
    browser.wait(lambda: browser.texts("dialog") == [])
    browser.click(TITLES)
    browser.click("dialog .primary")
    browser.wait(lambda: history(console)[2:] == [title])


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
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.click(".history .segmented button:nth-child(1)")
    browser.wait(lambda: len(history(console)) == 2)

    address = browser.run("return location.hash")
    console.open(address.removeprefix("#/"))
    browser.wait(lambda: len(browser.texts(".compare-column")) == 2)
    assert browser.texts(".compare-column h3") == ["A 2 items, no filter", "B 1 item, no filter"]
    browser.click(".head [aria-pressed]")
    browser.wait(lambda: browser.texts(".compare-column") == [])


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
