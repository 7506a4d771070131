"""The documentation: the site builds without a warning and loads nothing from other hosts; pages name real files."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

MODULE = re.compile(r"(?<![\w/.-])((?:seqrec|training|index|service|benchmarks|tests|docs)/[\w/.-]*\w)")
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*?\bhref=[\"']?([^\"'\s>]+)"
)


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, elsewhere."""
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (extra docs)")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page(site: Path, root: Path) -> None:
    pages = [path.relative_to(root / "docs") for path in (root / "docs").rglob("*.md")]
    assert len(pages) > 20
    for page in pages:
        built = page.parent if page.stem == "index" else page.with_suffix("")
        assert (site / built / "index.html").is_file(), page


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = [one or other for one, other in LOADED.findall(text)]
        assert any(url.endswith(".css") for url in loaded)
        assert [url for url in loaded if urlsplit(url).netloc] == [], page
        assert 'class="mermaid"' not in text, f"{page}: the theme loads a library for it from another host"
    for style in site.rglob("*.css"):
        urls = re.findall(r"url\([\"']?(?!data:)([^)\"']+)|@import\s+[\"']([^\"']+)", style.read_text(encoding="utf-8"))
        assert [url for pair in urls for url in pair if urlsplit(url).netloc] == [], style


def test_every_diagram_is_drawn_in_the_site(site: Path) -> None:
    text = (site / "architecture" / "index.html").read_text(encoding="utf-8")
    drawn = re.findall(r"<img[^>]*?src=\"?([^\"\s>]+\.svg)", text)
    assert len(drawn) >= 4
    assert all((site / "architecture" / path).resolve().is_file() for path in drawn)


def test_pages_name_files_that_exist(root: Path) -> None:
    """`service/engine/plan` may stand for `service/engine/plan.py` or a folder."""
    for path in [root / "README.md", root / "CHANGELOG.md", *(root / "docs").rglob("*.md")]:
        text = re.sub(r"https?://\S+|```(?:sh|text)\n.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for name in MODULE.findall(text):
            if "markov" not in name:  # the example of adding-a-model.md
                there = (root / name).exists() or (root / f"{name}.py").is_file()
                assert there, f"{path.relative_to(root)}: {name}"


def test_the_readme_is_short(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
