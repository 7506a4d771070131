"""A service with API keys: the console asks for one, shows no secret twice, and makes and revokes keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from benchmarks.tools.service_process import seqrec
from index.keys.base import make_key
from index.keys.open import open_keys
from tests.conftest import TINY
from tests.e2e.browser import Browser
from tests.e2e.console.conftest import Console, violations
from tests.e2e.processes import Server


@pytest.fixture(scope="module")
def keyed(
    driver: httpx.Client, tmp_path_factory: pytest.TempPathFactory, bag_of_words_checkpoint: Path
) -> Iterator[tuple[str, str]]:
    """The address of a service with one key, and that key, of the scope admin."""
    home = tmp_path_factory.mktemp("keyed")
    lines = [json.dumps({"item_id": item_id, "attributes": attributes}) for item_id, attributes in TINY]
    (home / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = ["--checkpoint", str(bag_of_words_checkpoint), "--items", str(home / "items.jsonl")]
    seqrec(home, "index", "build", *files, "--publish")
    key, secret = make_key("ops", ["admin"])
    with closing(open_keys(home)) as store:
        store.add(key)
    server = Server(home, home / "server.log").start()
    try:
        yield str(server.client.base_url).rstrip("/"), secret
    finally:
        server.stop()


@pytest.fixture
def page(browser: Browser, keyed: tuple[str, str]) -> Console:
    browser.size(1440, 900)
    return Console(browser, keyed[0])


def sign_in(page: Console, secret: str) -> None:
    page.browser.wait(lambda: page.browser.texts("#key-title") == ["This service needs an API key"])
    page.browser.type("#key-form input", secret)
    page.browser.press("enter")
    page.browser.wait(lambda: page.browser.texts("#key-form") == [])


def test_a_key_is_asked_for_and_no_snippet_shows_it(page: Console, keyed: tuple[str, str]) -> None:
    url, secret = keyed
    browser = page.browser
    browser.open(f"{url}/#/try?history=%5B%22desk-1%22%5D")
    browser.wait(lambda: browser.texts("#key-title"))
    assert violations(browser) == []
    browser.type("#key-form input", "seqrec_wrong")
    browser.press("enter")
    browser.wait(lambda: browser.texts("#key-form .refused") == ["The service does not accept this key."])
    browser.press("escape")
    browser.wait(lambda: browser.texts("#session") == ["Sign in"])
    assert browser.texts("#key-form") == [], "it is not asked for again and again"
    browser.click("#session")
    sign_in(page, secret)
    browser.wait(lambda: browser.texts(".cards .card-title"))
    assert browser.texts("#session") == ["Sign out"]
    [curl] = browser.texts("pre[aria-label='The request'] code")
    assert '-H "Authorization: Bearer $KEY"' in curl
    browser.click(".request .segmented button:nth-child(2)")
    [python] = browser.texts("pre[aria-label='The request'] code")
    assert '"Bearer " + os.environ["KEY"]' in python
    compile(python, "request", "exec")
    page.go("reports")
    [command] = browser.texts(".request code")
    assert '-H "Authorization: Bearer $KEY"' in command
    assert secret not in curl + python + command + browser.run("return document.body.innerHTML")
    browser.click("#session")
    browser.wait(lambda: browser.texts("#key-title"))
    assert browser.run("return sessionStorage.length") == 0


def test_keys_are_made_shown_once_and_revoked(page: Console, keyed: tuple[str, str]) -> None:
    url, secret = keyed
    browser = page.browser
    browser.open(f"{url}/#/operations")
    sign_in(page, secret)
    browser.wait(lambda: browser.texts("[aria-label='API keys'] tbody th b") == ["ops"])
    assert browser.texts("[aria-label='API keys'] tbody .badge") == ["this tab"]
    assert browser.texts("[aria-label='API keys'] tbody button") == [], "nobody locks themselves out"
    browser.type(".new-key input", "shop")
    browser.click(".new-key [type=submit]")
    browser.wait(lambda: browser.texts("#once-title") == ["The key shop"])
    assert violations(browser) == []
    [made] = browser.texts("dialog code")
    headers = {"authorization": f"Bearer {made}"}
    body = {"history": ["desk-1"]}

    def status() -> int:
        return httpx.post(f"{url}/recommend", json=body, headers=headers, trust_env=False).status_code

    browser.wait(lambda: status() == 200)
    browser.click("dialog .primary")
    browser.wait(lambda: browser.texts("[aria-label='API keys'] tbody th b") == ["ops", "shop"])
    assert made not in browser.run("return document.documentElement.outerHTML")
    assert made not in json.dumps(browser.run("return [{...sessionStorage}, {...localStorage}]"))
    assert violations(browser) == []
    browser.click("[aria-label='Revoke shop']")
    browser.click("dialog .danger")
    browser.wait(lambda: browser.texts("[aria-label='API keys'] tbody .badge") == ["this tab", "revoked"])
    browser.wait(lambda: status() == 401)


def test_a_refused_key_says_why(page: Console, keyed: tuple[str, str]) -> None:
    url, secret = keyed
    browser = page.browser
    browser.open(f"{url}/#/operations")
    sign_in(page, secret)
    browser.wait(lambda: browser.texts("[aria-label='API keys'] tbody th b"))
    browser.type(".new-key input", "ops")
    browser.click(".new-key [type=submit]")
    browser.wait(lambda: "there is an active key 'ops'" in "".join(browser.texts(".new-key .problem")))


def test_without_keys_the_page_has_the_command(desktop: Console) -> None:
    desktop.open("operations")
    browser = desktop.browser
    browser.wait(lambda: browser.texts(".command code") == ["seqrec keys create admin --scope admin"])
    assert browser.texts("#session:not([hidden])") == []
