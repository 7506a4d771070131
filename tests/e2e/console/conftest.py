"""A service with a hybrid model on the bundled data, and a browser that may talk to nobody else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import httpx
import pytest

from benchmarks.tools.service_process import seqrec
from seqrec.checkpoint import save_checkpoint
from seqrec.data.encoding import open_text
from seqrec.data.items import read_items
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.lexical import Vocabulary
from seqrec.hybrid.settings import HybridSettings
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from seqrec.models.hybrid import Hybrid
from tests.e2e.browser import PROGRAMS, Browser, chromedriver
from tests.e2e.processes import Server

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
EVENTS = 40_000
"""Of the bundled ones, those of the first users: enough for recommendations, few enough to be read in seconds."""


@dataclass(frozen=True)
class Console:
    """A browser and the address of the service."""

    browser: Browser
    url: str

    def open(self, route: str = "", query: str = "") -> None:
        """Load the page anew at this route, and wait until it has drawn it."""
        self.browser.open("about:blank")
        self.browser.open(f"{self.url}/{query}#/{route}")
        self.settled()

    def go(self, route: str) -> None:
        """Change the route as a link does."""
        self.browser.run("location.hash = arguments[0]", f"/{route}")
        self.settled()

    def settled(self) -> None:
        settled = "return document.querySelector('main[data-view] h1') && !document.querySelector('[aria-busy]')"
        self.browser.wait(lambda: self.browser.run(settled))


@pytest.fixture(scope="session")
def driver() -> Iterator[httpx.Client]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs a browser: {' and '.join(missing)} not found on the PATH")
    with chromedriver() as client:
        yield client


@pytest.fixture(scope="session")
def service(
    driver: httpx.Client, tmp_path_factory: pytest.TempPathFactory, online_retail: Path, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The address. It takes `driver`: without a browser it need not start."""
    if given := request.config.getoption("--console"):
        yield str(given).rstrip("/")
        return
    home = tmp_path_factory.mktemp("console")
    build_home(home, online_retail)
    write_run(home)
    server = Server(home, home / "server.log").start()
    try:
        yield str(server.client.base_url).rstrip("/")
    finally:
        server.stop()


def build_home(home: Path, online_retail: Path) -> None:
    """The bundled items and some of the events, published with a model that needs no training."""
    items = list(read_items(online_retail / "items.jsonl.gz"))
    settings = HybridSettings(cooccurrence=CooccurrenceSettings(window=40, last=5), pairs=1.0, last_text=1.0, dense=0.3)
    model = Hybrid.of("bag_of_words", BagOfWords(BagOfWordsConfig(dim=32)), Vocabulary.of(items), ["title"], settings)
    save_checkpoint(home / "checkpoint", "hybrid", model)
    events = home / "events.csv"
    with open_text(online_retail / "interactions.csv.gz") as file:
        events.write_text("".join(line for _, line in zip(range(EVENTS), file, strict=False)), encoding="utf-8")
    files = ["--items", str(online_retail / "items.jsonl.gz"), "--interactions", str(events)]
    seqrec(home, "index", "build", "--checkpoint", str(home / "checkpoint"), *files, "--publish")


def write_run(home: Path) -> None:
    """A finished run, as `seqrec train --out` leaves it, without the weights."""
    run = home / "run"
    run.mkdir()
    done = {"state": "done", "data_digest": "d", "checkpoint_digest": "abcdef0123"}
    (run / "run.json").write_text(json.dumps(done), encoding="utf-8")
    (run / "config.toml").write_text('[model]\nname = "sasrec"\n', encoding="utf-8")
    entries: list[dict[str, object]] = [
        {"kind": "step", "stage": "joint", "step": 20 * n, "loss": 7 - n / 2, "seconds": 2.0 * n} for n in range(1, 6)
    ]
    for step, ndcg in ((50, 0.08), (100, 0.12)):
        entries.append({"kind": "validation", "stage": "joint", "step": step, "ndcg_expected": ndcg, "seconds": 11.0})
    entries.append({"kind": "validation", "stage": "hybrid", "step": 0, "ndcg_expected": 0.2, "seconds": 3.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries), encoding="utf-8")


@pytest.fixture(scope="session")
def session(driver: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(driver, tmp_path_factory.mktemp("browser") / "profile")
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def browser(session: Browser) -> Iterator[Browser]:
    """Fails the test where the page's console complains, or where any other host was asked for anything."""
    session.reset()
    yield session
    assert session.errors() == []
    asked = {urlsplit(url).netloc for url in session.requested() if url.startswith(("http", "ws"))}
    assert {name for name in asked if not name.startswith("127.0.0.1:")} == set()


@pytest.fixture(params=["desktop", "phone"])
def console(browser: Browser, service: str, request: pytest.FixtureRequest) -> Console:
    if request.param == "phone":
        browser.size(390, 844, phone=True)
    else:
        browser.size(1440, 900)
    return Console(browser, service)


@pytest.fixture
def desktop(browser: Browser, service: str) -> Console:
    browser.size(1440, 900)
    return Console(browser, service)


def violations(browser: Browser) -> list[str]:
    """What axe-core finds, by rule and element: of WCAG 2.2 AA and of good practice."""
    if not browser.run("return 'axe' in window"):
        browser.run(AXE.read_text(encoding="utf-8"))  # by the driver: the page's policy allows no foreign script
    browser.run("window.found = null; axe.run(document).then(({ violations }) => { window.found = violations; })")
    browser.wait(lambda: browser.run("return window.found !== null"), 60)
    found = browser.run("return window.found")
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for rule in found
        for node in rule["nodes"]
    ]
