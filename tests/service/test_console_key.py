"""service/console/key.js in Node: what it keeps, what it sends, and to whom."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
const stored = new Map();
globalThis.sessionStorage = {
  getItem: (name) => stored.get(name) ?? null,
  setItem: (name, value) => stored.set(name, value),
  removeItem: (name) => stored.delete(name),
};
globalThis.location = new URL("http://localhost:8000/");
globalThis.document = { baseURI: "http://localhost:8000/" };
globalThis.window = new EventTarget();
const sent = [];
globalThis.fetch = async (path, options = {}) => {
  const key = new Headers(options.headers).get("authorization");
  sent.push([path, key]);
  const ok = key === "Bearer good";
  return new Response(JSON.stringify({ name: "ops", scopes: ["admin"] }), { status: ok ? 200 : 401 });
};
const { currentKey, fetchWithKey, login, logout } = await import(process.argv[2]);
let needed = 0;
window.addEventListener("seqrec-key-needed", () => needed++);
const results = {};
results.before = (await fetchWithKey("items")).status;
results.bad = await login("bad");
results.odd = await login("g\\u00f6od");
results.kept = currentKey();
results.good = (await login(" good\\n")).scopes;
results.after = (await fetchWithKey("items", { headers: { "content-type": "application/json" } })).status;
await fetchWithKey("https://other.example/items");
logout();
results.gone = (await fetchWithKey("items")).status;
console.log(JSON.stringify({ ...results, needed, sent }));
"""


def test_the_key_is_kept_for_the_tab_and_sent_to_this_service_only(root: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = tmp_path / "run.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    module = tmp_path / "key.mjs"
    module.write_text((root / "service" / "console" / "key.js").read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run([node, script, module], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["before"], found["bad"], found["odd"], found["kept"]) == (401, None, None, None)
    assert (found["good"], found["after"], found["gone"]) == (["admin"], 200, 401)
    assert found["needed"] == 3, "before, at the other origin, and after the logout"
    assert found["sent"] == [
        ["items", None],
        ["key", "Bearer bad"],
        ["key", "Bearer good"],
        ["items", "Bearer good"],
        ["https://other.example/items", None],
        ["items", None],
    ]
