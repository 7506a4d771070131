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

from index.catalogue.histories import Event
from index.catalogue.outcomes import Attribution, Slot
from service.live.side import SideStatus
from service.metrics import Metrics
from service.rules.experiments import Compared

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
    counted.shadow("home", "s", "compared", Compared(0.5, True, 0.1, 0.1))
    counted.answer("fallback:popular", {"model:words": 1})
    counted.history(1, 1, 1)
    counted.sides(lambda: {"s": SideStatus(["home"], None, 1, 1)})
    counted.refresh()
    of = Attribution(bytes(12), Slot("home"), 1, "model", False)
    counted.outcomes([Event("u", "i", 1.0, type="clicked", attribution=of)])
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


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def test_compose_has_the_profiles(compose: dict[str, Any]) -> None:
    services = compose["services"]
    profiles = {name: one.get("profiles", []) for name, one in services.items()}
    assert profiles == {
        "seqrec": [],
        "gpu": ["gpu"],
        "redis": ["redis"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    for name in ("seqrec", "gpu"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["depends_on"]["redis"] == {"condition": "service_healthy", "required": False}
    assert services["gpu"]["build"]["target"] == "cuda"
    for one in services.values():  # nothing is published beyond this machine
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))


def test_compose_mounts_what_is_there(compose: dict[str, Any], root: Path) -> None:
    named = set()
    for one in compose["services"].values():
        for volume in one.get("volumes", []):
            source, _, _ = volume.partition(":")
            if source.startswith("./"):
                assert (root / source).is_file(), source
            else:
                named.add(source)
    assert named == set(compose["volumes"])


def test_composes_redis_is_one_that_seqrec_accepts(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    settings = dict(zip(command[1::2], command[2::2], strict=True))
    assert settings == {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}


def test_monitoring_finds_service_rules_and_dashboard(compose: dict[str, Any], root: Path) -> None:
    def read(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((root / "deploy" / "monitoring" / name).read_text(encoding="utf-8"))
        return loaded

    inside = {
        volume.split(":")[1]: volume.split(":")[0]
        for name in ("prometheus", "grafana")
        for volume in compose["services"][name]["volumes"]
    }
    prometheus = read("prometheus.yml")
    assert [inside[f"/etc/prometheus/{name}"] for name in prometheus["rule_files"]] == [f"./deploy/{RULES}"]
    [target] = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert any(one.endswith(f":{port}") for one in compose["services"][name]["ports"])
    [folder] = [provider["options"]["path"] for provider in read("grafana-dashboards.yml")["providers"]]
    assert inside[f"{folder}/seqrec.json"] == f"./deploy/{DASHBOARD}"
    [source] = read("grafana-datasource.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_the_image_script_fits_the_dockerfile(root: Path) -> None:
    """`make image` is run by hand, since it needs root and buildah; here is what would break it unseen."""
    script = root / "deploy" / "image.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text, dockerfile = script.read_text(encoding="utf-8"), (root / "Dockerfile").read_text(encoding="utf-8")
    [uid] = re.findall(r"--uid (\d+)", dockerfile)
    assert f"seqrec_uid={uid} " in text
    assert re.findall(r"^FROM (\S+) AS", dockerfile, re.MULTILINE).count("${BASE}") == 2
    assert "./deploy/image.sh" in (root / "Makefile").read_text(encoding="utf-8")
    for name in (script, root / "deploy" / "trim-venv.sh"):
        assert name.stat().st_mode & 0o111
