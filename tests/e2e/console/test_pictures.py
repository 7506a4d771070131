"""The pictures of docs/images.

While `make demo` runs, `pytest tests/e2e/console/test_pictures.py --console http://127.0.0.1:8000 --pictures` makes
them; without --pictures they are thrown away.
"""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.browser import Browser
from tests.e2e.console.conftest import Console

READINGS = 12
DESKTOP, PHONE = (1440, 900), (390, 844)
USER = "12347"
PICTURES: dict[str, tuple[str, tuple[int, int], str]] = {
    "console": (f"try?user={USER}", DESKTOP, "light"),
    "console-dark": (f"try?user={USER}", DESKTOP, "dark"),
    "console-phone": (f"try?user={USER}", PHONE, "light"),
    "console-compare": (
        f"try?user={USER}&user2={USER}&filter2=%7B%22price%22%3A%7B%22not%22%3A%5B%221.25%20GBP%22%5D%7D%7D",
        DESKTOP,
        "light",
    ),
    "console-items": ("items?q=lunch", DESKTOP, "light"),
    "console-item": ("items/20725", DESKTOP, "light"),
    "console-users": ("users", DESKTOP, "light"),
    "console-user": (f"users/{USER}", DESKTOP, "light"),
    "console-user-phone": (f"users/{USER}", PHONE, "dark"),
    "console-models": ("models", DESKTOP, "light"),
    "console-operations": ("operations", DESKTOP, "dark"),
    "console-operations-phone": ("operations", PHONE, "light"),
    "console-map": ("map", DESKTOP, "light"),
}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root / "docs" / "images" if request.config.getoption("--pictures") else tmp_path_factory.mktemp("pictures")


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(name: str, browser: Browser, service: str, folder: Path) -> None:
    route, (width, height), scheme = PICTURES[name]
    browser.size(width, height, phone=width < 500)
    browser.scheme(scheme)
    console = Console(browser, service)
    console.open(route)
    if name.startswith("console-operations"):  # a line needs some readings
        points = "return document.querySelector('.spark polyline').getAttribute('points').split(' ').length"
        while browser.run(points) < READINGS:  # with something to see
            for item_id in ("20725", "21559", "22423", "85123A"):
                body = {"history": [item_id], "explain": True}
                httpx.post(f"{service}/recommend", json=body, trust_env=False).raise_for_status()
            time.sleep(random.random())
    picture = browser.screenshot()
    assert struct.unpack(">II", picture[16:24]) == (width, height)
    assert len(picture) > 20_000, "almost nothing is on it"
    (folder / f"{name}.png").write_bytes(picture)


def test_every_picture_is_in_the_documents(root: Path) -> None:
    made = {path.name for path in (root / "docs" / "images").glob("console*.png")}
    assert made == {f"{name}.png" for name in PICTURES}
    page = (root / "docs" / "console.md").read_text(encoding="utf-8") + (root / "README.md").read_text(encoding="utf-8")
    assert all(f"images/{name}" in page for name in made)
