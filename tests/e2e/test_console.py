"""The console at `/`: in a real browser where there is one, and by its files alone everywhere."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.service_process import seqrec
from service.app import create_app
from service.settings import Settings
from tests.e2e.browser import PROGRAMS, Browser, chromedriver
from tests.e2e.processes import Server

STATIC = Path(__file__).parents[2] / "service" / "console"
TEXTS = sorted(path for path in STATIC.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"})
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> שלום"


class Page(HTMLParser):
    """What the checks ask of index.html: every tag with its attributes, and the text of none."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed((STATIC / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def test_everything_the_page_needs_is_local(page: Page) -> None:
    wanted = [attrs["src"] for tag, attrs in page.tags if tag == "script"]
    wanted += [attrs["href"] for tag, attrs in page.tags if tag == "link"]
    for path in STATIC.glob("*.js"):
        wanted += ["static/" + name for name in re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8"))]
    assert sorted(wanted) == ["static/api.js", "static/app.js", "static/icon.svg", "static/style.css"]
    assert {Path(name).name for name in wanted} | {"index.html"} == {path.name for path in TEXTS}
    assert all((STATIC / name.removeprefix("static/")).is_file() for name in wanted)


def test_the_service_serves_it_as_what_it_is(tmp_path: Path) -> None:
    async def get(*paths: str) -> dict[str, tuple[int, str]]:
        transport = httpx.ASGITransport(app=create_app(Settings(home=tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = {path: await client.get(path) for path in paths}
        return {path: (one.status_code, one.headers["content-type"].split(";")[0]) for path, one in answers.items()}

    assert asyncio.run(get("/", "/static/app.js", "/static/api.js", "/static/style.css", "/static/icon.svg")) == {
        "/": (200, "text/html"),
        "/static/app.js": (200, "text/javascript"),  # a browser runs no module of any other type
        "/static/api.js": (200, "text/javascript"),
        "/static/style.css": (200, "text/css"),
        "/static/icon.svg": (200, "image/svg+xml"),
    }


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_nothing_is_fetched_from_elsewhere(path: Path) -> None:
    urls = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", path.read_text(encoding="utf-8"))
    assert [url for url in urls if url != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_text_never_becomes_markup_or_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser", text)
    assert found == []


def test_a_strict_content_security_policy_holds(page: Page) -> None:
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, attrs in page.tags:
        assert tag != "style", "inline styles need unsafe-inline"
        assert tag != "script" or "src" in attrs, "inline scripts need unsafe-inline"
        assert not [name for name in attrs if name == "style" or name.startswith("on")], (tag, attrs)


def test_every_control_has_a_label_and_every_id_is_used_once(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    labelled = {attrs["for"] for tag, attrs in page.tags if tag == "label"}
    assert {attrs["id"] for tag, attrs in page.tags if tag == "input"} == labelled
    for name in ("aria-labelledby", "aria-describedby"):
        assert {attrs[name] for _, attrs in page.tags if name in attrs} <= set(ids)
    asked_for = re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', (STATIC / "app.js").read_text(encoding="utf-8"))
    assert set(asked_for) <= set(ids)


@pytest.fixture(scope="module")
def driver() -> Iterator[httpx.Client]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs a browser: {' and '.join(missing)} not found on the PATH")
    with chromedriver() as client:
        yield client


@pytest.fixture(scope="module")
def service(
    driver: httpx.Client, tmp_path_factory: pytest.TempPathFactory, bag_of_words_checkpoint: Path, online_retail: Path
) -> Iterator[str]:
    """The address of a server with the bundled items. It asks for `driver`: without a browser it need not start."""
    home = tmp_path_factory.mktemp("console")
    files = ("--items", online_retail / "items.jsonl.gz", "--interactions", online_retail / "interactions.csv.gz")
    seqrec(home, "index", "build", "--checkpoint", str(bag_of_words_checkpoint), *map(str, files), "--publish")
    server = Server(home, home / "server.log").start()
    try:
        yield str(server.client.base_url).rstrip("/")
    finally:
        server.stop()


@pytest.fixture
def browser(driver: httpx.Client, tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(driver, tmp_path / "profile")
    try:
        yield browser
        assert browser.errors() == []
    finally:
        browser.close()


def test_a_history_is_picked_and_recommendations_follow(browser: Browser, service: str) -> None:
    browser.open(service)
    browser.wait(lambda: len(browser.texts("#recommendations li")) == 10)
    assert "fallback:popular" in browser.texts("[data-fact=source]")[0]

    browser.type("#words", "lantern")
    browser.wait(lambda: browser.texts("#found .title"))
    assert all("lantern" in title.lower() for title in browser.texts("#found .title"))
    browser.press("down", "enter")  # from the words to the first item found: no mouse is needed
    browser.wait(lambda: browser.texts("[data-fact=source]") == ["model"])
    assert browser.texts("#history .title") == browser.texts("#found .title")[:1]
    assert browser.texts("#recommendations .title") != []
    assert browser.texts("#history .title")[0] not in browser.texts("#recommendations .title")
    scores = [float(score) for score in browser.texts("#recommendations .score")]
    assert scores == sorted(scores, reverse=True)
    assert all(browser.texts(f"[data-fact={fact}]")[0] for fact in ("snapshot", "seq", "time", "metric", "model"))

    browser.click("#add-words")
    browser.wait(lambda: browser.texts("#history .title")[1:] == ["lantern"])
    assert browser.texts("#history .detail")[1] == "in no catalogue"

    browser.wait(lambda: browser.run("return !document.querySelector('[aria-busy]')"))
    picked = browser.texts("#recommendations .title")[1]
    browser.click("#recommendations li:nth-child(2) button")
    browser.wait(lambda: browser.texts("#history .title")[2:] == [picked])
    browser.wait(lambda: picked not in browser.texts("#recommendations .title"))
    assert browser.run("return document.activeElement.closest('#recommendations') !== null"), "the focus was lost"

    browser.click("#history li:nth-child(2) button")
    browser.wait(lambda: len(browser.texts("#history li")) == 2)
    assert "lantern" not in browser.texts("#history .title")
    browser.click("#clear")
    browser.wait(lambda: "fallback:popular" in browser.texts("[data-fact=source]")[0])
    assert browser.texts("#history li") == []


def test_an_item_is_added_found_and_deleted_again(browser: Browser, service: str) -> None:
    browser.open(service)
    browser.type("#new-id", "a/b c")
    browser.type("#new-title", HOSTILE)
    browser.click("#more-attributes")
    browser.type("#attribute-name-0", "brand")
    browser.type("#attribute-value-0", "Zzyzx zzyzx zzyzx zzyzx zzyzx")  # outweighs the title
    browser.press("enter")
    browser.wait(lambda: browser.texts("#added .items .title"))
    assert browser.texts("#new-status")[0].startswith("Created a/b c")
    assert browser.texts("#added .hint")[0].endswith("(it is number 1):")
    assert browser.texts("#added .items li:first-child .title") == [HOSTILE + "new"], "shown as it was typed"
    assert browser.run("return [document.images.length, document.title]") == [0, "seqrec console"]

    browser.type("#words", "zzyzx")
    browser.wait(lambda: browser.texts("#found .title") == [HOSTILE + "new"])
    browser.click("#add-words")  # its neighbour in the history, the item is recommended
    browser.wait(lambda: browser.texts("#recommendations li:first-child .title") == [HOSTILE + "new"])
    browser.click("#added .buttons button:nth-child(1)")
    browser.wait(lambda: browser.texts("#history .title")[1:] == [HOSTILE])
    browser.wait(lambda: HOSTILE + "new" not in browser.texts("#recommendations .title"))

    browser.click("#added .buttons button:nth-child(2)")
    browser.wait(lambda: browser.texts("#new-status") == ["Deleted a/b c."])
    browser.wait(lambda: browser.texts("#unknown:not([hidden])") == ["Not in the catalogue, so not read: a/b c"])
    browser.wait(lambda: browser.texts("#found li") == [])
    assert browser.texts("#added li") == []
    assert httpx.get(f"{service}/items/a%2Fb%20c", trust_env=False).status_code == 404


def test_a_refused_item_is_explained_at_its_field(browser: Browser, service: str) -> None:
    browser.open(service)
    browser.type("#new-id", "é" * 200)  # 400 bytes
    browser.type("#new-title", "x")
    browser.press("enter")
    [problem] = browser.wait(lambda: browser.texts("#new-problem .problem"))
    assert "256 bytes" in problem
    assert "items[0].item_id" in problem
    assert browser.run("return document.activeElement.id + document.activeElement.ariaInvalid") == "new-idtrue"


def test_a_filter_narrows_what_is_recommended(browser: Browser, service: str) -> None:
    browser.open(service)
    browser.type("#words", "lantern")
    browser.wait(lambda: browser.texts("#found .title"))
    browser.click("#found li:first-child button")
    browser.wait(lambda: browser.texts("[data-fact=source]") == ["model"])
    title = browser.texts("#recommendations .title")[4]

    browser.type("#filter", json.dumps({"title": [title]}))
    browser.wait(lambda: browser.texts("#recommendations .title") == [title])
    browser.type("#filter", "x")
    browser.wait(lambda: "is not JSON" in "".join(browser.texts("#recommendations-problem")))
    assert browser.texts("#recommendations li") == [], "of another filter than the one shown"
    set_filter(browser, '{"title": {"about": 1}}')
    browser.wait(lambda: "about" in "".join(browser.texts("#recommendations-problem")))
    assert browser.run("return document.activeElement.id + document.activeElement.ariaInvalid") == "filtertrue"
    set_filter(browser, '{"title": "no such title"}')
    browser.wait(lambda: browser.texts("#none:not([hidden])") == ["No item is left to recommend."])
    set_filter(browser, "")
    browser.wait(lambda: len(browser.texts("#recommendations li")) == 10)
    assert browser.texts("#none:not([hidden])") == browser.texts("[aria-invalid]") == []


def set_filter(browser: Browser, text: str) -> None:
    """As by pasting over what is there."""
    script = "const input = document.getElementById('filter'); input.focus(); input.select();"
    browser.run(script + "document.execCommand(arguments[0] ? 'insertText' : 'delete', false, arguments[0])", text)


@pytest.mark.parametrize(("width", "columns"), [(400, 1), (800, 2), (1100, 3), (1280, 3), (1400, 4)])
def test_no_width_leaves_a_gap(browser: Browser, service: str, width: int, columns: int) -> None:
    browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(service)
    browser.wait(lambda: len(browser.texts("#recommendations li")) == 10)
    boxes = browser.run(
        "return [...document.querySelectorAll('section')].map((one) => one.getBoundingClientRect().toJSON())"
    )
    assert len({box["left"] for box in boxes}) == columns
    assert browser.run("return document.documentElement.scrollWidth") <= width
    recommended, new = boxes[2], boxes[3]
    if columns == 3:  # the form begins where the longer of the two above it ends, not below the recommendations
        assert new["top"] - max(box["bottom"] for box in boxes[:2]) < 40
        assert new["right"] < recommended["left"]


# What stands between the page and the service: the first answers to the asked paths are taken from a list.
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
NOT_READY = {"title": "Not ready", "status": 503, "detail": "reading the snapshot"}


def intercept(browser: Browser, answers: dict[str, list[Any]]) -> None:
    browser.cdp("Page.addScriptToEvaluateOnNewDocument", source=INTERCEPT.replace("ANSWERS", json.dumps(answers)))


def test_while_the_model_loads_the_page_says_so_and_waits(browser: Browser, service: str) -> None:
    intercept(browser, {"recommend": [NOT_READY], "readyz": [NOT_READY]})
    browser.open(service)
    browser.wait(lambda: browser.texts("#loading:not([hidden])") == ["The model is loading. reading the snapshot"])
    browser.wait(lambda: len(browser.texts("#recommendations li")) == 10)
    assert browser.texts("#loading:not([hidden])") == []


def test_a_service_that_is_gone_can_be_asked_again(browser: Browser, service: str) -> None:
    intercept(browser, {"recommend": [None]})
    browser.open(service)
    browser.wait(lambda: "cannot be reached" in "".join(browser.texts("#recommendations-problem")))
    browser.click("#recommendations-problem button")
    browser.wait(lambda: len(browser.texts("#recommendations li")) == 10)
    assert browser.texts("#recommendations-problem .problem") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_contrast(browser: Browser, service: str, scheme: str) -> None:
    browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(service)
    browser.type("#words", "lantern")
    browser.wait(lambda: browser.texts("#found li"))
    browser.click("#found li:first-child button")
    browser.click("#more-attributes")
    browser.wait(lambda: browser.texts("[data-fact=source]") == ["model"])
    roles = {"button", "textbox", "searchbox", "list", "region", "link", "navigation", "search"}
    nodes = [node for node in browser.cdp("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    asked = [(node["role"]["value"], node["name"]["value"]) for node in nodes if node["role"]["value"] in roles]
    assert {"button", "textbox", "searchbox", "list", "region"} <= {role for role, _ in asked}
    unnamed = [role for role, name in asked if not name and role != "search"]
    assert unnamed == []
    poor = [(text, ratio) for text, ratio in browser.run(CONTRASTS) if ratio < 4.5]
    assert poor == []
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == BACKGROUND[scheme]


BACKGROUND = {"light": "rgb(244, 245, 247)", "dark": "rgb(15, 18, 22)"}
# WCAG 2: the contrast of every text with the nearest background that is painted behind it.
CONTRASTS = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => {
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = numbers(colour).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return numbers(colour)[3] === 0 ? behind(node.parentElement) : colour;
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (texts.nextNode()) {
  const node = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !node.checkVisibility() || node.closest(".hidden")) continue;
  const [low, high] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((a, b) => a - b);
  found.push([texts.currentNode.data, (high + 0.05) / (low + 0.05)]);
}
return found;
"""
