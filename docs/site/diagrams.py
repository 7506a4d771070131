"""Draws the mermaid blocks of docs/ as SVG files in docs/images/diagrams, and removes files that no block has.

It needs a headless Chromium and mermaid's `dist/mermaid.min.js` (npm pack mermaid; drawn with version 11.17.2):

    python docs/site/diagrams.py path/to/mermaid.min.js
"""

from __future__ import annotations

import argparse
import html
import re
import subprocess
import tempfile
from pathlib import Path

from hooks import BLOCK, FOLDER, file_name

DOCS = Path(__file__).parents[1]
PAGE = """<!doctype html><meta charset="utf-8"><body><script src="{library}"></script><pre id="source">{source}</pre>
<script>
mermaid.initialize({{startOnLoad: false, theme: "neutral", fontFamily: "system-ui, sans-serif", htmlLabels: false,
  flowchart: {{htmlLabels: false, useMaxWidth: false, wrappingWidth: 330, rankSpacing: 32, nodeSpacing: 36}},
  deterministicIds: true}});
mermaid.render("diagram", document.getElementById("source").textContent).then(
  ({{svg}}) => {{ document.body.textContent = "SVG" + svg + "END"; }},
  (error) => {{ document.body.textContent = "ERROR" + error + "END"; }});
</script>"""


def draw(source: str, library: Path, chromium: str) -> str:
    """Raises ValueError where mermaid does not understand the source."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE.format(library=library.resolve().as_uri(), source=html.escape(source)), encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    drawn = re.search(r"(SVG|ERROR)(.*)END", html.unescape(done.stdout), re.DOTALL)
    if drawn is None or drawn[1] == "ERROR":
        raise ValueError(f"mermaid: {drawn[2] if drawn else done.stderr}\n{source}")
    rounded = re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", drawn[2])  # a fifth of the size
    return re.sub(r' data-[\w-]+="[^"]*"', "", rounded) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="mermaid.min.js")
    parser.add_argument("--chromium", default="chromium", help="the browser (default: %(default)s)")
    arguments = parser.parse_args()
    folder = DOCS / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    sources = [block[1] for path in DOCS.rglob("*.md") for block in BLOCK.finditer(path.read_text(encoding="utf-8"))]
    for source in sources:
        path = folder / file_name(source)
        if not path.is_file():
            path.write_text(draw(source, arguments.library, arguments.chromium), encoding="utf-8")
            print(path.relative_to(DOCS.parent))  # noqa: T201
    for path in folder.glob("*.svg"):
        if path.name not in {file_name(source) for source in sources}:
            path.unlink()


if __name__ == "__main__":
    main()
