"""The console's files alone: complete, small, from nowhere else, and without ways for text to become markup."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.settings import Settings

STATIC = Path(__file__).parents[3] / "service" / "console"
TEXTS = sorted(path for path in STATIC.rglob("*") if path.is_file())
MOST_BYTES = 200_000
MOST_TOKENS = 12
"""Colours of the design system: what has a colour has one of these, or a tint of one."""


def name_of(path: Path) -> str:
    return path.relative_to(STATIC).as_posix()


class Page(HTMLParser):
    """Every tag of index.html with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed((STATIC / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def test_every_file_is_used_and_every_used_file_is_there(page: Page) -> None:
    wanted = {attrs["src"] for tag, attrs in page.tags if tag in ("script", "img")}
    wanted |= {attrs["href"] for tag, attrs in page.tags if tag == "link"}
    used = {name.removeprefix("static/") for name in wanted} | {"index.html"}
    for path in STATIC.rglob("*.js"):
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text(encoding="utf-8")):
            used.add((path.parent / name).resolve().relative_to(STATIC).as_posix())
    listed = re.search(r"const VIEWS = (\[.*?\]);", (STATIC / "app.js").read_text(encoding="utf-8"), re.DOTALL)
    assert listed
    used |= {f"views/{name}.js" for name in re.findall(r'\["(\w+)"', listed[1])}
    assert used == {name_of(path) for path in TEXTS}


def test_all_of_it_is_less_than_200_kb() -> None:
    assert sum(path.stat().st_size for path in TEXTS) < MOST_BYTES


def test_it_is_in_the_wheel(root: Path) -> None:
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["service"]
    packed = {path for pattern in patterns for path in (root / "service").glob(pattern) if path.is_file()}
    assert packed == set(TEXTS)


def test_the_service_serves_it_as_what_it_is(tmp_path: Path) -> None:
    async def get(*paths: str) -> dict[str, tuple[int, str]]:
        transport = httpx.ASGITransport(app=create_app(Settings(home=tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = {path: await client.get(path) for path in paths}
        return {path: (one.status_code, one.headers["content-type"].split(";")[0]) for path, one in answers.items()}

    paths = {"/": "text/html", "/static/style.css": "text/css", "/static/icon.svg": "image/svg+xml"}
    # A browser runs no module of any other type.
    paths |= {f"/static/{name_of(path)}": "text/javascript" for path in STATIC.rglob("*.js")}
    assert asyncio.run(get(*paths)) == {path: (200, kind) for path, kind in paths.items()}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_nothing_is_fetched_from_elsewhere(path: Path) -> None:
    urls = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", path.read_text(encoding="utf-8"))
    assert [url for url in urls if url != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("path", sorted(STATIC.rglob("*.js")), ids=name_of)
def test_text_never_becomes_markup_or_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser", text)
    assert found == []


def test_the_page_has_no_inline_script_or_style(page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag != "style"
        assert tag != "script" or "src" in attrs
        assert not [name for name in attrs if name == "style" or name.startswith("on")], (tag, attrs)


def test_every_id_is_used_once_and_every_id_that_is_asked_for_is_there(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for name in ("app.js", "dom.js"):
        asked_for = re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', (STATIC / name).read_text(encoding="utf-8"))
        assert set(asked_for) <= set(ids)


def test_the_design_system_is_a_dozen_tokens() -> None:
    style = (STATIC / "style.css").read_text(encoding="utf-8")
    root = re.search(r":root \{(.*?)\}", style, re.DOTALL)
    assert root
    tokens = re.findall(r"--([\w-]+): light-dark", root[1])
    assert len(tokens) <= MOST_TOKENS
    used = set(re.findall(r"var\(--([\w-]+)", style)) - {"share", "size", "low", "high"}
    assert used <= set(re.findall(r"--([\w-]+):", root[1])), "a colour that is no token"
