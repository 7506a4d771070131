"""docs/how-to.md: each of its commands runs beside a service, and has the effect that the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from seqrec.checkpoint import save_checkpoint
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from tests.service.conftest import Process

pytestmark = pytest.mark.slow

ITEMS = {"20725": "desk-1", "21559": "mug-2", '["1.65 GBP"]': '"Acme"', '["0.85 GBP", "1.65 GBP"]': '["Acme", "Lumen"]'}
"""Of the page's shop, in the tests' one; prices of the page are brands here."""


def test_every_command_of_the_page_runs(
    root: Path, home: Path, tmp_path: Path, serve_process: Callable[..., Process]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = (root / "docs" / "how-to.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n\n```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE))
    assert len(sections) == 7
    save_checkpoint(tmp_path / "runs" / "new" / "checkpoint", "bag_of_words", BagOfWords(BagOfWordsConfig(dim=2)))
    program = tmp_path / "bin" / "seqrec"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m seqrec "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    service = serve_process()
    environment = os.environ | {"SEQREC_HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(root), "NO_PROXY": "127.0.0.1", "SEQREC_PORT": "0"}

    def run(name: str) -> str:
        script = sections[name].replace("localhost:8000", service.url.removeprefix("http://"))
        script = script.replace("curl -s", "curl -sS --fail-with-body")
        for old, new in ITEMS.items():
            script = script.replace(old, new)
        script = script.replace('"price"', '"brand"')
        command = ["bash", "-euc", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    filtered = json.loads(run("Filter"))["items"]
    assert {item["attributes"]["brand"] for item in filtered} == {"Acme", "Lumen"}
    assert '"item_id":"mug-2"' in run("Boost, pin, limit").split('"items":[')[1][:40]
    assert "recommendation_id" in run("A/B test")
    rolled = run("Roll out a model, and go back")
    assert "in both: " in rolled
    assert "cores" in run("Scale")
    assert "ready" in run("Monitor")
    assert "ops" in run("Secure")
    refused = httpx.post(f"{service.url}/recommend", json={"history": ["desk-1"]}, trust_env=False, timeout=20)
    assert refused.status_code == 401
