"""The pictures of docs/images.

While `make demo` runs, `pytest tests/e2e/console/test_pictures.py --console http://127.0.0.1:8000 --pictures` makes
them, with the font Inter. Without --pictures each must look like the one in the documents: as brightness on a coarse
grid, which other data do not change much, and most like it of all of them. Another font breaks lines elsewhere.
"""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.e2e.browser import Browser
from tests.e2e.console.conftest import Console
from tests.e2e.console.outcomes import with_reports
from tests.e2e.console.test_views import intercept, set_value

READINGS = 12
GRID = (36, 24)
MOST_DIFFERENCE = 8.0
"""Of the mean brightness, 0 to 255; other data made 0 to 5 of it, another view 4 to 15."""
DESKTOP, PHONE = (1440, 900), (390, 844)
USER = "12347"
VIEWS = {
    "items": "items?q=lunch",
    "users": "users",
    "models": "models",
    "reports": "reports?by=variant",
    "operations": "operations",
    "map": "map",
}
PICTURES: dict[str, tuple[str, tuple[int, int], str]] = {
    "console": (f"try?user={USER}", DESKTOP, "light"),
    "console-dark": (f"try?user={USER}", DESKTOP, "dark"),
    "console-phone": (f"try?user={USER}", PHONE, "light"),
    "console-compare": (
        f"try?user={USER}&user2={USER}&filter2=%7B%22price%22%3A%7B%22not%22%3A%5B%221.25%20GBP%22%5D%7D%7D",
        DESKTOP,
        "light",
    ),
    "console-item": ("items/20725", DESKTOP, "light"),
    "console-item-phone": ("items/20725", PHONE, "light"),
    "console-user": (f"users/{USER}", DESKTOP, "light"),
    "console-user-phone": (f"users/{USER}", PHONE, "dark"),
    "console-changes": ("models", DESKTOP, "light"),
    "console-keys": ("operations", DESKTOP, "light"),
    "console-recall": ("operations", DESKTOP, "light"),
    "console-runs": ("models", DESKTOP, "light"),
    **{
        f"console-{view}{end}": (route, size, scheme)
        for view, route in VIEWS.items()
        for end, size, scheme in (("", DESKTOP, "light"), ("-dark", DESKTOP, "dark"), ("-phone", PHONE, "light"))
    },
}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root / "docs" / "images" if request.config.getoption("--pictures") else tmp_path_factory.mktemp("pictures")


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(name: str, browser: Browser, service: str, folder: Path, root: Path) -> None:
    route, (width, height), scheme = PICTURES[name]
    browser.size(width, height, phone=width < 500)
    browser.scheme(scheme)
    console = Console(browser, service)
    if name.startswith("console-reports"):  # the demo has no outcomes
        with_reports(console)
    if name == "console-changes":
        with_two_models(console)
    if name == "console-keys":
        with_keys(console)
    console.open(route)
    if name == "console-changes":
        browser.click(".pair button")
        browser.wait(lambda: browser.texts(".changes .changed-user"))
        browser.run("document.querySelector('.pair').closest('.panel').scrollIntoView()")
    if name == "console-keys":
        browser.wait(lambda: browser.texts("[aria-label='API keys'] tbody"))
        browser.run("document.querySelector('[aria-label=\"API keys\"]').scrollIntoView({block: 'end'})")
    if name == "console-recall":
        recall = "[aria-label='Recall of the search'] "
        browser.wait(lambda: len(browser.texts(f"{recall}.row select option")) > 1)
        set_value(console, f"{recall}.filter > .row select", "price")
        browser.click(f"{recall}.checks .check:nth-child(2) input")
        browser.wait(lambda: "pass" in browser.texts(f"{recall}.filter > .hint")[0])
        browser.click(f"{recall}button.primary")
        browser.wait(lambda: browser.texts(f"{recall}dd"))
        browser.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", recall)
    if name == "console-runs":
        browser.run("document.querySelector('[aria-label=\"Training runs\"]').scrollIntoView()")
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
    if folder != root / "docs" / "images":
        if not has_font("Inter"):
            pytest.skip("made with another font than the pictures of the documents")
        seen = brightness(io.BytesIO(picture))
        differences = {
            path.stem: float(np.abs(seen - brightness(path)).mean())
            for path in (root / "docs" / "images").glob("console*.png")
        }
        assert differences[name] < MOST_DIFFERENCE
        assert min(differences, key=lambda other: differences[other]) == name


def has_font(name: str) -> bool:
    listed = shutil.which("fc-list")
    return listed is not None and name in subprocess.run([listed, ":", "family"], capture_output=True, text=True).stdout


def brightness(picture: Path | io.BytesIO) -> npt.NDArray[np.float64]:
    """[24, 36] of a coarse grid."""
    with Image.open(picture) as image:
        return np.asarray(image.convert("L").resize(GRID, Image.Resampling.BOX), dtype=np.float64)


def with_two_models(console: Console) -> None:
    """The demo has one snapshot. The second one here is the served model with more varied answers."""
    users = httpx.get(f"{console.url}/users", params={"limit": 10, "events": 5}, trust_env=False).json()["users"]

    def recommended(user_id: str, **rules: float) -> list[str]:
        body = {"user_id": user_id, "k": 10, **rules}
        answer = httpx.post(f"{console.url}/recommend", json=body, trust_env=False).raise_for_status().json()
        return [item["item_id"] for item in answer["items"]]

    changed = [
        {
            "user_id": user["user_id"],
            "history": [event["item_id"] for event in user["events"]],
            "before": recommended(user["user_id"], diversity=0.3),
            "after": recommended(user["user_id"]),
        }
        for user in users
    ]
    one = {"model": "hybrid", "published": True, "items": 3145, "recall": 1, "index": "flat", "bytes": 19e6, "dim": 128}
    one |= {"metric": "dot", "precision": "float32", "seq": 3145}
    days = ("2026-11-28T20:03:11Z", "2026-11-29T20:04:30Z")
    ids = ("20261128T200311-003145-0c0b7f", "20261129T200430-003145-1ea25d")
    old, new = (
        {**one, "id": name, "created": day, "checkpoint": name[-6:] + "84f12", "served": name == ids[1]}
        for name, day in zip(ids, days, strict=True)
    )
    path = f"snapshots/{ids[1]}/changes?since={ids[0]}&users=10&k=10"
    intercept(
        console, {"snapshots": [{"status": 200, "snapshots": [new, old]}], path: [{"status": 200, "users": changed}]}
    )


def with_keys(console: Console) -> None:
    """The demo has none."""
    day = 1_795_000_000.0
    keys: list[dict[str, object]] = [
        {"name": "feed", "scopes": ["write"], "expires": day + 365 * 86_400, "rate": None},
        {"name": "ops", "scopes": ["admin"], "expires": None, "rate": None},
        {"name": "shop", "scopes": ["recommend"], "expires": day + 90 * 86_400, "rate": "100/second"},
        {"name": "trial", "scopes": ["recommend"], "expires": None, "rate": "10/second", "state": "revoked"},
    ]
    stored = [{"state": "active", "created": day, "quota": None, **key} for key in keys]
    intercept(console, {"keys": [{"status": 200, "keys": stored}]})


def test_every_picture_is_in_the_documents(root: Path) -> None:
    made = {path.name for path in (root / "docs" / "images").glob("console*.png")}
    assert made == {f"{name}.png" for name in PICTURES}
    page = (root / "docs" / "console.md").read_text(encoding="utf-8") + (root / "README.md").read_text(encoding="utf-8")
    assert all(f"images/{name}" in page for name in made)
