"""Reports: from the first outcome to what became of a month, and what an experiment has found."""

from __future__ import annotations

import json
import subprocess

import httpx

from tests.e2e.console.conftest import Console
from tests.e2e.console.outcomes import HOSTILE, report, with_reports
from tests.e2e.console.test_views import intercept, set_value

CELLS = ".report tbody tr:first-child > *"
BUSY = {"title": "The service is busy", "status": 429, "detail": "too much waits", "advice": "Retry later."}
PLAIN_REPORT = "reports?by=placement&days=30"


def choose(console: Console, name: str, value: str) -> None:
    set_value(console, f".controls [name={name}]", value)
    console.settled()


def column(console: Console, number: int) -> list[str]:
    return console.browser.texts(f".reports-columns .report tbody tr > :nth-child({number})")


def test_from_no_outcome_to_the_first(console: Console, service: str) -> None:
    console.open("reports")
    browser = console.browser
    assert browser.texts(".state h3") == ["No outcomes in these days"]
    try:
        [command] = browser.texts(".state pre")
        sent = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(sent.stdout)["stored"] == 2
        browser.click(".state .primary")
        browser.wait(lambda: browser.texts(CELLS))
        assert browser.texts(CELLS)[:2] == ["/recommend", "1"]
        assert browser.texts(".figure .value") == ["1", "100.00\u00a0%", "0.00\u00a0%", "0.00"]
        choose(console, "placement", "/recommend")
        choose(console, "by", "source")
        assert column(console, 2) == ["popular items"]
        assert browser.run("return location.hash") == "#/reports?by=source&days=30&placement=%2Frecommend"
    finally:
        httpx.delete(f"{service}/users/reports-example", trust_env=False).raise_for_status()
    choose(console, "days", "7")  # a deleted user counts nowhere
    assert browser.texts(".state h3") == ["No outcomes in these days"]
    browser.click(".state button:nth-of-type(2)")
    browser.wait(lambda: "days=365" in browser.run("return location.hash"))


def test_a_report_is_divided_and_narrowed(console: Console) -> None:
    with_reports(console)
    console.open("reports")
    browser = console.browser
    expected = report("placement")["rows"]
    shown = sum(row["impressions"] for row in expected)
    assert browser.texts(".figure .value")[0] == f"{shown:,}"
    assert column(console, 1) == ["/recommend", "product-page"]
    low, high = (f"{100 * bound:.2f}\u00a0%" for bound in expected[0]["click_through_interval"])
    assert column(console, 3)[0] == f"{100 * expected[0]['click_through']:.2f}\u00a0% {low} to {high}"
    choose(console, "by", "variant")
    assert column(console, 2) == [
        "no experiment",
        *(f"{name} of margin-boost" for name in ("boosted", "holdout", "plain")),
    ]
    choose(console, "placement", "product-page")
    assert len(column(console, 2)) == 3
    # The interval of the sum is that of the service.
    row = report("placement", "product-page")["rows"][0]
    low, high = (f"{100 * bound:.2f}\u00a0%" for bound in row["click_through_interval"])
    assert browser.texts(".figure .hint")[1].endswith(f"{low} to {high}")
    choose(console, "by", "position")
    assert column(console, 2) == [str(position) for position in range(1, 9)]
    choose(console, "by", "cold")
    assert column(console, 2) == ["known: had events", "new: no events yet"]
    choose(console, "by", "model")
    assert column(console, 2) == ["6c1d2f90ab34e871"]
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # The address is the report.
    console.open(browser.run("return location.hash").removeprefix("#/"))
    assert browser.run("return [...document.querySelectorAll('.controls select')].map((one) => one.value)") == [
        "product-page",
        "30",
        "model",
    ]


def test_click_through_by_position_has_columns(console: Console) -> None:
    with_reports(console)
    console.open("reports?placement=product-page")
    browser = console.browser
    rows = report("position", "product-page")["rows"]
    read = browser.texts(".chart li .hidden")
    low, high = (f"{100 * bound:.2f}\u00a0%" for bound in rows[0]["click_through_interval"])
    rate = f"{100 * rows[0]['click_through']:.2f}\u00a0%"
    assert read[0] == f"position 1: {rate}, {low} to {high}, of {rows[0]['impressions']:,} impressions"
    assert len(read) == 8
    heights = browser.run("return [...document.querySelectorAll('.chart-bar')].map((bar) => bar.offsetHeight)")
    assert heights[0] > 2 * heights[7] > 0
    assert max(heights) <= browser.run("return document.querySelector('.chart-column').offsetHeight")


def test_an_experiment_is_judged_in_plain_words(console: Console) -> None:
    with_reports(console)
    console.open("reports?by=variant")
    browser = console.browser
    [experiment] = report("variant")["experiments"]
    lift = experiment["variants"][1]["click_through"]["lift"]
    assert lift["interval"][0] > 0, "the simulated variant is better"
    first, second = browser.texts(".verdicts .note")
    assert first.startswith(f"boosted is ahead of plain in click-through: +{100 * lift['lift']:.1f}\u00a0%")
    assert second == "No difference seen yet between holdout and plain."
    assert browser.texts(".lift-word")[0] == "ahead"
    assert "no difference seen yet" in browser.texts(".lift-word")
    variants = browser.texts("[aria-label='Variants of margin-boost'] tbody th")
    assert variants == ["plain", "boosted", "holdout"]
    low, high = (f"{100 * bound:.2f}\u00a0%" for bound in experiment["variants"][0]["click_through"]["interval"])
    assert browser.texts("[aria-label='Variants of margin-boost'] tbody td")[2].endswith(f"% {low} to {high}")
    # The line of the interval ends where it does.
    middle, left = browser.run(
        "const line = document.querySelector('.lift-line').getBoundingClientRect(); return [line.x + line.width / 2,"
        " document.querySelector('.lift-interval').getBoundingClientRect().x]"
    )
    assert left > middle


def test_an_experiment_that_just_began(desktop: Console) -> None:
    young = report("placement")
    [experiment] = young["experiments"]
    plain, boosted, _ = experiment["variants"]
    metrics = ("click_through", "conversion", "revenue_per_user")
    boosted = boosted | {name: {**boosted[name], "lift": None} for name in metrics} | {"variant": HOSTILE}
    alone, both = [
        {"status": 200, **young, "experiments": [{**experiment, "variants": variants}]}
        for variants in ([plain], [plain, boosted])
    ]
    intercept(desktop, {PLAIN_REPORT: [alone, alone], "reports?by=placement&days=7": [both]})
    desktop.open("reports")
    assert "nothing to compare" in desktop.browser.texts(".verdicts .note")[0]
    choose(desktop, "days", "7")
    [note] = desktop.browser.texts(".verdicts .note")
    assert note.startswith(f"Too little to tell yet. {HOSTILE} and plain need")


def test_a_variant_that_is_behind_is_said(desktop: Console) -> None:
    answer = json.loads(json.dumps(report("placement")))
    [experiment] = answer["experiments"]
    experiment["variants"][1]["conversion"]["lift"] = {"lift": -0.2, "interval": [-0.3, -0.1], "p": 0.001}
    intercept(desktop, {PLAIN_REPORT: [{"status": 200, **answer}] * 2})
    desktop.open("reports")
    [note] = desktop.browser.texts(".verdicts .note.warn")
    assert "boosted is behind plain in conversion: −20.0\u00a0% (−30.0\u00a0% to −10.0\u00a0%)." in note
    assert "behind" in desktop.browser.texts(".lift-word")


def test_while_a_report_is_read_and_after_it_is_refused(console: Console) -> None:
    source = "const real = window.fetch; window.fetch = (path, given) => String(path).startsWith('reports')"
    source += " ? new Promise((go) => { window.release = () => go(real(path, given)); }) : real(path, given)"
    console.browser.before_page(source)
    console.browser.open(f"{console.url}/#/reports")
    browser = console.browser
    browser.wait(lambda: browser.run("return document.querySelectorAll('.stack[aria-busy] .skeleton').length") >= 5)
    browser.reset()
    intercept(console, {PLAIN_REPORT: [BUSY]})
    browser.open(f"{console.url}/#/reports")
    browser.wait(lambda: "too much waits" in "".join(browser.texts(".stack .problem")))
    browser.click(".stack .problem button")
    browser.wait(lambda: browser.texts(".state h3") == ["No outcomes in these days"])


def test_without_the_service_the_page_waits_for_it(desktop: Console) -> None:
    browser = desktop.browser
    source = "const real = window.fetch; const gone = () => Promise.reject(new TypeError('Failed to fetch'));"
    browser.before_page(source + "window.fetch = (...given) => (window.back ? real(...given) : gone())")
    browser.open(f"{desktop.url}/#/reports")
    browser.wait(lambda: "cannot be reached" in "".join(browser.texts("#banner:not([hidden])")))
    browser.run("window.back = true")
    browser.wait(lambda: browser.texts(".state h3") == ["No outcomes in these days"])


def test_the_keyboard_alone_chooses_a_report(desktop: Console) -> None:
    with_reports(desktop)
    desktop.open("reports")
    browser = desktop.browser
    browser.tab_to(".controls [name=placement]")
    browser.press("down", "down")
    browser.wait(lambda: browser.texts(".reports-columns .report tbody th") == ["product-page"])
    assert browser.run("return document.activeElement.name") == "placement", "the focus stays"
    browser.tab_to("[aria-label='Report']")
