"""Diagrams of the site: each ```mermaid block becomes the SVG file that `diagrams.py` has drawn of it.

Material draws such blocks in the browser with a library that it loads from another host. Files need neither. The page
keeps the source, which Git hosting sites draw themselves.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"^\s*accTitle: *(.+)$", re.MULTILINE)
FOLDER = Path("images") / "diagrams"


def file_name(source: str) -> str:
    """The file of a diagram, named by its source: a block that was changed and not drawn again has none."""
    return f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Raises PluginError, which ends the build, for a block without a file or without a title."""

    def image(block: re.Match[str]) -> str:
        path = FOLDER / file_name(block[1])
        title = TITLE.search(block[1])
        if title is None:
            raise PluginError(
                f"{page.file.src_path}: a mermaid block has no line `accTitle: ...`, its text for a reader"
            )
        if not (Path(config.docs_dir) / path).is_file():
            raise PluginError(f"{page.file.src_path}: {path} is missing; draw it: python docs/site/diagrams.py --help")
        up = "../" * page.file.src_path.count("/")
        return f"![{title[1]}]({up}{path}){{ .diagram }}"

    return BLOCK.sub(image, markdown)
