"""Figures over time and over steps: training runs, events, totals, recall on a button; and all items, page by page."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.console.conftest import Console, violations
from tests.e2e.console.test_views import ROWS, intercept, set_value

FAILED = {"status": 429, "title": "The catalogue cannot be used", "detail": "the disk is full"}
RUNS = "[aria-label='Training runs'] "
EVENTS = "[aria-label='Events over time'] "
RECALL = "[aria-label='Recall of the search'] "


def the_width_is_enough(console: Console) -> bool:
    return bool(
        console.browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    )


def test_a_training_run_is_shown_with_its_curves(console: Console) -> None:
    """The one in the home of the service, read by it."""
    console.open("models")
    browser = console.browser
    assert browser.texts(f"{RUNS}summary b") == ["run"]
    assert browser.texts(f"{RUNS}summary .badge") == ["done"]
    assert browser.texts(f"{RUNS}summary .grow") == ["sasrec · abcdef01 · trained 14 s"]
    labels = [
        "Training loss: joint from 6.500 to 4.500",
        "Validation NDCG@10, the best of each stage: joint 0.1200, hybrid 0.2000",
    ]
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.getAttribute('aria-label'))"
    assert browser.run(script, f"{RUNS}svg[role=img]") == labels
    lines = browser.run(
        "return [...document.querySelectorAll(arguments[0])]"
        ".map((one) => one.getAttribute('points').split(' ').length)",
        f"{RUNS}polyline:not(.dot)",
    )
    assert lines == [6, 3], "a point for each entry, and where the line begins"
    assert len(browser.texts(f"{RUNS}polyline.dot")) == 1, "a stage with one validation"
    browser.click(f"{RUNS}section:nth-child(2) summary")
    cells = browser.texts(f"{RUNS}section:nth-child(2) tbody tr")
    assert cells == ["50joint0.0800", "100joint0.1200", "100hybrid0.2000"]
    assert the_width_is_enough(console)
    assert violations(browser) == []


def test_runs_that_failed_or_have_just_begun(desktop: Console) -> None:
    runs = [
        {"path": "runs/new", "state": "running", "seconds": 0, "curves": []},
        {"path": "retrain/x/run", "state": "failed", "seconds": 0, "curves": [], "problem": "the loss is nan"},
    ]
    intercept(desktop, {"runs": [FAILED, {"status": 200, "runs": runs}, {"status": 200, "runs": []}]})
    desktop.open("models")
    browser = desktop.browser
    assert "the disk is full" in browser.texts(f"{RUNS}.problem")[0]
    browser.click(f"{RUNS}.problem button")
    browser.wait(lambda: browser.texts(f"{RUNS}summary .badge") == ["running", "failed"])
    assert "It has written no figures yet." in browser.texts(f"{RUNS}.hint")
    assert "the loss is nan" in browser.texts(f"{RUNS}.hint")
    desktop.go("users")
    desktop.go("models")
    assert "seqrec train --out $SEQREC_HOME/runs/NAME" in browser.texts(RUNS)[0]


def test_the_events_of_an_item_over_time_by_type(console: Console, service: str) -> None:
    before = httpx.get(f"{service}/events", params={"item_id": "22423"}, trust_env=False).json()
    assert before["events"] > 10
    user = "charts " + ("phone" if console.browser.run("return innerWidth") < 500 else "desktop")
    events = [{"user_id": user, "item_id": "22423", "type": kind} for kind in ("view", "view", "purchase")]
    httpx.post(f"{service}/events", json={"events": events}, trust_env=False).raise_for_status()
    try:
        console.open("items/22423")
        browser = console.browser
        total = before["events"] + 3
        browser.wait(lambda: browser.texts(f"{EVENTS}.legend li"))
        assert browser.texts(f"{EVENTS}.hint")[0].startswith(f"{total} events of {before['users'] + 1} users from ")
        assert browser.texts(f"{EVENTS}.legend li") == [f"of no type ({before['events']})", "view (2)", "purchase (1)"]
        label = browser.run("return document.querySelector(arguments[0]).getAttribute('aria-label')", f"{EVENTS}svg")
        assert label == f"Events over time: {browser.texts(f'{EVENTS}.hint')[0]}"
        assert browser.texts(f"{EVENTS}g title")[-1].endswith(": 2 view, 1 purchase")
        browser.click(f"{EVENTS}summary")
        rows = browser.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".map((row) => [...row.cells].slice(1).map((cell) => +cell.textContent))",
            f"{EVENTS}tbody tr",
        )
        assert [sum(column) for column in zip(*rows, strict=True)] == [before["events"], 2, 1]
        assert rows[-1] == [0, 2, 1]
        assert the_width_is_enough(console)
        assert violations(browser) == []
    finally:
        httpx.delete(f"{service}/users/{user}", trust_env=False)


def test_an_item_without_events_and_events_that_cannot_be_read(desktop: Console, service: str) -> None:
    item = {"item_id": "silent", "attributes": {"title": "Kite"}}
    httpx.post(f"{service}/items", json={"items": [item]}, trust_env=False).raise_for_status()
    try:
        intercept(desktop, {"events?item_id=silent": [FAILED]})
        desktop.open("items/silent")
        browser = desktop.browser
        browser.wait(lambda: "the disk is full" in "".join(browser.texts(f"{EVENTS}.problem")))
        browser.click(f"{EVENTS}.problem button")
        browser.wait(lambda: browser.texts(f"{EVENTS}.state h3") == ["No events yet"])
    finally:
        httpx.delete(f"{service}/items/silent", trust_env=False)


def test_a_key_for_recommendations_is_not_shown_what_users_did(desktop: Console) -> None:
    refused = {"status": 403, "title": "The API key lacks the scope", "detail": "GET of this path needs a key: write"}
    intercept(desktop, {"events?item_id=20725": [refused]})
    desktop.open("items/20725")
    browser = desktop.browser
    browser.wait(lambda: browser.texts(f"{EVENTS}.hint") == ["GET of this path needs a key: write"])
    assert browser.texts(f"{EVENTS}svg") == []


def test_users_and_events_are_counted_today_and_in_all(console: Console, service: str) -> None:
    before = httpx.get(f"{service}/events", trust_env=False).json()
    event = {"user_id": "newcomer", "item_id": "20725", "type": "view"}
    httpx.post(f"{service}/events", json={"events": [event, event]}, trust_env=False).raise_for_status()
    try:
        console.open("users")
        values = [f"{before['users'] + 1:,}", f"{before['events'] + 2:,}", str(before["today"] + 2)]
        assert console.browser.texts(".totals dd") == values
        assert len(console.browser.texts(".totals g")) > 3
        assert the_width_is_enough(console)
    finally:
        httpx.delete(f"{service}/users/newcomer", trust_env=False)


def test_users_are_suggested_by_the_beginning_of_their_ids(desktop: Console) -> None:
    desktop.open("users")
    browser = desktop.browser
    browser.type("#user-id", "1234")
    found = browser.wait(
        lambda: browser.run("return [...document.querySelectorAll('#known-users option')].map((one) => one.value)")
    )
    assert "12347" in found
    assert all(user.startswith("1234") for user in found)
    assert violations(browser) == []


def test_totals_of_a_service_without_events(desktop: Console) -> None:
    nothing = {"status": 200, "users": 0, "events": 0, "today": 0, "days": []}
    one = {"day": "2026-11-30", "type": None, "events": 1}
    intercept(desktop, {"events": [nothing, {**nothing, "users": 1, "events": 1, "days": [one]}]})
    desktop.open("users")
    browser = desktop.browser
    assert browser.texts("[aria-label='Stored events'] .state h3") == ["No events yet"]
    desktop.go("models")
    desktop.go("users")
    assert browser.texts(".totals .hint")[0] == "1 event of 1 user on 30 Nov 2026"


def test_the_recall_is_measured_on_a_button(console: Console, service: str) -> None:
    console.open("operations")
    browser = console.browser
    browser.wait(lambda: len(browser.texts(f"{RECALL}.row select option")) > 1)
    assert browser.texts(f"{RECALL}dl") == [], "it costs something, so not before somebody asks"
    browser.click(f"{RECALL}button.primary")
    browser.wait(lambda: browser.texts(f"{RECALL}dd"))
    count = httpx.get(f"{service}/attributes?values=0", trust_env=False).json()["items"]
    assert browser.texts(f"{RECALL}dd") == ["1.000", f"{count:,} of {count:,}", "100.0 %", "100", "flat (exact)"]
    set_value(console, f"{RECALL}.filter > .row select", "price")
    browser.click(f"{RECALL}.checks .check:nth-child(2) input")
    browser.wait(lambda: "pass" in browser.texts(f"{RECALL}.filter > .hint")[0])
    passing = int(browser.texts(f"{RECALL}.filter > .hint")[0].split()[0].replace(",", ""))
    browser.click(f"{RECALL}button.primary")
    browser.wait(lambda: browser.texts(f"{RECALL}dd")[2:3] not in ([], ["100.0 %"]))
    assert browser.texts(f"{RECALL}dd")[1:3] == [f"{passing:,} of {count:,}", f"{100 * passing / count:.1f} %"]
    assert the_width_is_enough(console)
    assert violations(browser) == []


def test_a_recall_that_cannot_be_measured(desktop: Console) -> None:
    none = {"status": 200, "items": 9, "passing": 0, "queries": 0, "recall": None, "index": "flat"}
    intercept(desktop, {"recall": [{"status": 504, "title": "Too slow", "detail": "no answer within 2 s"}, none]})
    desktop.open("operations")
    browser = desktop.browser
    browser.click(f"{RECALL}button.primary")
    browser.wait(lambda: "no answer within 2 s" in "".join(browser.texts(f"{RECALL}.problem")))
    browser.click(f"{RECALL}.problem button")
    browser.wait(lambda: browser.texts(f"{RECALL}.state h3") == ["Nothing passes the filter"])


def ids_of(console: Console) -> list[str]:
    found: list[str] = console.browser.run(
        "return [...document.querySelectorAll('.item-rows .item-row')].map((one) => one.dataset.item)"
    )
    return found


@pytest.mark.parametrize("words", ["", "lunch bag"])
def test_all_items_are_reached_page_by_page_while_others_come_and_go(
    desktop: Console, service: str, words: str
) -> None:
    browser = desktop.browser
    title = {"title": "Lunch Bag Of A Test"}
    extra = [{"item_id": f"page-{n:02}", "attributes": title} for n in range(60)]
    httpx.post(f"{service}/items", json={"items": extra}, trust_env=False).raise_for_status()
    try:
        desktop.open(f"items?q={quote(words)}&filter=" + quote(json.dumps(title)))
        assert ids_of(desktop) == [f"page-{n:02}" for n in range(48)]
        assert browser.texts(".main-column > .hint") == ["48 items, those with most events first"]
        events = [{"user_id": "pager", "item_id": f"page-{n}"} for n in (59, 2)]
        httpx.post(f"{service}/events", json={"events": events}, trust_env=False).raise_for_status()
        for gone in ("page-47", "page-05", "page-50"):
            httpx.delete(f"{service}/items/{gone}", trust_env=False).raise_for_status()
        more = [{"item_id": f"page-{name}", "attributes": title} for name in ("00a", "55a")]
        httpx.post(f"{service}/items", json={"items": more}, trust_env=False).raise_for_status()
        browser.tab_to(".main-column .center button", 400)
        browser.press("enter")
        browser.wait(lambda: len(ids_of(desktop)) > 48)
        behind = [f"page-{n:02}" for n in (48, 49, 51, 52, 53, 54, 55)] + ["page-55a"]
        assert ids_of(desktop)[48:] == [*behind, *(f"page-{n}" for n in range(56, 60))]
        focused = browser.run("return document.activeElement.closest('.item-row').dataset.item")
        assert focused == "page-48", "the keyboard goes on where the new ones begin"
        assert browser.texts(".main-column > .hint") == ["All 60 items"]
        assert browser.texts(".main-column .center button") == []
    finally:
        httpx.delete(f"{service}/users/pager", trust_env=False)
        for item_id in [item["item_id"] for item in (*extra, {"item_id": "page-00a"}, {"item_id": "page-55a"})]:
            httpx.delete(f"{service}/items/{item_id}", trust_env=False)


def test_a_page_that_fails_can_be_tried_again(desktop: Console) -> None:
    source = (
        "const real = window.fetch; window.fetch = (path, options) => String(path).includes('cursor=') && !window.back"
    )
    source += " ? Promise.resolve(new Response(JSON.stringify(FAILED), {status: 429})) : real(path, options)"
    desktop.browser.before_page(source.replace("FAILED", json.dumps(FAILED)))
    desktop.open("items")
    browser = desktop.browser
    browser.click(".main-column .center button")
    browser.wait(lambda: "the disk is full" in "".join(browser.texts(".center .problem")))
    assert len(browser.texts(ROWS)) == 48, "what was shown stays"
    browser.run("window.back = true")
    browser.click(".center .problem button")
    browser.wait(lambda: len(browser.texts(ROWS)) == 96)
