"""States other than success: loading, offline, a refused request, a service without users."""

from __future__ import annotations

import json

from tests.e2e.console.conftest import Console
from tests.e2e.console.test_views import intercept

NOT_READY = {"title": "Not ready", "status": 503, "detail": "reading the snapshot"}
REFUSED = {"title": "The service is busy", "status": 429, "detail": "too much waits", "advice": "Retry later."}


def test_while_the_model_loads_the_page_says_so_and_waits(desktop: Console) -> None:
    intercept(desktop, {"recommend": [NOT_READY], "readyz": [NOT_READY, NOT_READY]})
    browser = desktop.browser
    browser.open(f"{desktop.url}/")
    browser.wait(lambda: browser.texts("#banner:not([hidden])") == ["The model is loading. reading the snapshot"])
    browser.wait(lambda: len(browser.texts(".cards .card-title")) == 11)
    assert browser.texts("#banner:not([hidden])") == []
    assert browser.texts("#health") == ["Ready"]


def test_a_service_that_is_gone_is_looked_for_and_the_page_goes_on(desktop: Console) -> None:
    browser = desktop.browser
    source = "const real = window.fetch; const gone = () => Promise.reject(new TypeError('Failed to fetch'));"
    browser.before_page(source + "window.fetch = (...given) => (window.back ? real(...given) : gone())")
    browser.open(f"{desktop.url}/")
    browser.wait(lambda: "cannot be reached" in "".join(browser.texts("#banner:not([hidden])")))
    assert browser.texts("#health") == ["Offline"]
    browser.run("window.back = true")
    browser.wait(lambda: len(browser.texts(".cards .card-title")) == 11)
    browser.wait(lambda: browser.texts("#banner:not([hidden])") == [])


def test_a_refusal_is_explained_and_can_be_tried_again(console: Console) -> None:
    intercept(console, {"recommend": [REFUSED]})
    console.browser.open(f"{console.url}/")
    browser = console.browser
    browser.wait(lambda: "too much waits" in "".join(browser.texts(".results .problem")))
    assert "Retry later." in browser.texts(".results .problem")[0]
    browser.click(".results .problem button")
    browser.wait(lambda: len(browser.texts(".cards .card-title")) == 11)


def test_without_users_the_popular_items_are_a_beginning(console: Console) -> None:
    nobody = {"status": 200, "users": []}
    intercept(console, {"users?limit=6&events=3": [nobody], "users?limit=1&events=1": [nobody]})
    console.open()
    browser = console.browser
    assert browser.texts("#results-title") == ["Popular now"]
    assert "No events are stored yet" in browser.texts(".shoppers")[0]
    assert len(browser.texts(".cards .card-title")) == 11
    browser.click(".head .primary")
    browser.wait(lambda: "nobody to surprise" in "".join(browser.texts(".history .hint")))


def test_what_is_degraded_is_said(desktop: Console) -> None:
    ready = {"status": "ready", "degraded": ["the log is not followed"], "snapshot": "s", "seq": 1, "worker": 1}
    source = "const real = window.fetch; const answer = () => Promise.resolve(new Response(JSON.stringify(STATE)));"
    source += "window.fetch = (path, options) => (path === 'readyz' ? answer() : real(path, options))"
    desktop.browser.before_page(source.replace("STATE", json.dumps(ready)))
    desktop.open("operations")
    browser = desktop.browser
    browser.wait(lambda: browser.texts(".stack .note") == ["Degraded. the log is not followed"])
    browser.wait(lambda: browser.texts("#health") == ["Degraded"])
    # The list of checks says what to do, where something is not well.
    assert browser.texts(".checklist b")[:3] == ["Answers requests", "Known problems", "Change log read"]
    assert browser.texts(".checklist .badge")[:3] == ["OK", "Check", "OK"]
    assert browser.texts(".checklist li")[1].endswith("1The reasons are above.")
