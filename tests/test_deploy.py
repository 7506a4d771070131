"""deploy/: alerts and the dashboard use metrics that exist, and each alert is explained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from service.metrics import Metrics

RULES, DASHBOARD = "prometheus-rules.yml", "grafana-dashboard.json"


@pytest.fixture(scope="module")
def rules(root: Path) -> list[dict[str, Any]]:
    loaded = yaml.safe_load((root / "deploy" / RULES).read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((root / "deploy" / DASHBOARD).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """The names of all series."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + suffix for family in Metrics().registry.collect() for suffix in suffixes[family.type]}


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bseqrec_\w+", expression))


def test_every_metric_that_is_used_exists(
    rules: list[dict[str, Any]], dashboard: dict[str, Any], metrics: set[str]
) -> None:
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    for expression in expressions:
        assert names(expression), expression
        assert names(expression) <= metrics, expression
        assert expression.count("(") == expression.count(")"), expression
        assert expression.count("{") == expression.count("}"), expression


def test_labels_that_are_used_exist(rules: list[dict[str, Any]], dashboard: dict[str, Any]) -> None:
    counted = Metrics()
    counted.request("GET", "/recommend", 200, 0.1, {"search": 1.0})
    counted.key_request("shop")
    counted.refusal("busy")
    counted.connection_closed("header_time")
    counted.cache("memory", 1)
    counted.reindexes.labels("request").inc()
    text = generate_latest(counted.registry).decode()
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in expressions:
        for name, selectors in re.findall(r"(seqrec_\w+)\{([^}]*)\}", expression):
            for label in set(re.findall(r"(\w+)=~?\"", selectors)) - {"instance"}:
                assert re.search(rf"^{name}\{{[^}}]*{label}=", text, re.MULTILINE), (name, label)


def test_each_alert_has_a_runbook_line(rules: list[dict[str, Any]], root: Path) -> None:
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    assert "\n## Alerts\n" in page
    for rule in rules:
        assert rule["annotations"]["runbook"] == "docs/operations.md#alerts"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert re.search(rf"^\| `{rule['alert']}` \|", page, re.MULTILINE), rule["alert"]
    explained = set(re.findall(r"^\| `(Seqrec\w+)` \|", page, re.MULTILINE))
    assert explained == {rule["alert"] for rule in rules}


def test_panels_have_different_ids_and_places(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_promtool_accepts_the_rules(root: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "rules", root / "deploy" / RULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
