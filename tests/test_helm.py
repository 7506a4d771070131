"""deploy/helm/seqrec: rendered by Helm's own engine and checked against the schemas of Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

helm = pytest.importorskip("helm_python")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

VERSIONS = ("1.28", "1.34")
DEFAULTS: dict[str, Any] = {}
EVERYTHING: dict[str, Any] = {
    "allowedHosts": "recommend.example",
    "autoscaling": {"queueTokens": 4000},
    "redis": {"included": False, "urlSecret": {"name": "redis"}},
    "milvus": {"url": "http://milvus:19530"},
    "retrain": {"enabled": True, "image": {"repository": "seqrec-train"}, "args": ["--device", "cpu"]},
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "keySecret": {"name": "key"}}},
    "networkPolicy": {"monitoring": [{"namespaceSelector": {}}], "egress": [{"ports": [{"port": 19530}]}]},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"operator": "Exists"}],
    "imagePullSecrets": [{"name": "registry"}],
}
SMALL: dict[str, Any] = {
    "autoscaling": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "reindex": {"enabled": False},
    "home": {"existingClaim": "mine"},
    "allowAnonymous": True,
}
KINDS = {
    "Deployment",
    "Service",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "CronJob",
    "StatefulSet",
    "PersistentVolumeClaim",
    "NetworkPolicy",
}


def render(root: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(str(root / "deploy" / "helm" / "seqrec")) as chart:
        files = chart.render(values, name="demo", namespace="shop")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found is not None]


def pod_specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = []
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            specs.append(one["spec"]["template"]["spec"])
        elif one["kind"] == "CronJob":
            specs.append(one["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    return specs


@pytest.mark.slow
@pytest.mark.parametrize("values", [DEFAULTS, EVERYTHING, SMALL], ids=["defaults", "everything", "small"])
def test_kubernetes_accepts_it(root: Path, values: dict[str, Any]) -> None:
    objects = render(root, values)
    for one in objects:
        if one["kind"] == "ServiceMonitor":  # not Kubernetes' own; no schema is at hand
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_what_there_is(root: Path) -> None:
    assert {one["kind"] for one in render(root, DEFAULTS)} == KINDS
    assert {one["kind"] for one in render(root, EVERYTHING)} == (KINDS | {"ServiceMonitor"}) - {"StatefulSet"}
    small = {one["kind"] for one in render(root, SMALL)}
    assert small == {"Deployment", "Service", "StatefulSet"}


@pytest.mark.slow
@pytest.mark.parametrize("values", [DEFAULTS, EVERYTHING], ids=["defaults", "everything"])
def test_no_pod_can_do_more_than_it_needs(root: Path, values: dict[str, Any]) -> None:
    specs = pod_specs(render(root, values))
    assert len(specs) == 3
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["automountServiceAccountToken"] is False
        if spec["containers"][0]["name"] != "valkey":  # SEQREC_SERVICE_HOST would be refused as no setting
            assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


@pytest.mark.slow
def test_the_deployment_fits_the_service(root: Path) -> None:
    """Variables exist, probes ask what the port serves, selectors find the pods, and nobody is cut off."""
    objects = render(root, EVERYTHING)
    by_kind = {one["kind"]: one for one in objects}
    spec = by_kind["Deployment"]["spec"]["template"]["spec"]
    [container] = spec["containers"]
    variables = [one["name"] for one in container["env"]]
    known = {f"SEQREC_{name.upper()}" for name in Settings.model_fields}
    assert set(variables) <= known
    assert len(set(variables)) == len(variables)
    assert {"SEQREC_REDIS_URL", "SEQREC_MILVUS_URL", "SEQREC_ALLOWED_HOSTS"} <= set(variables)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert ports == {"http": int(values["SEQREC_PORT"]), "private": int(values["SEQREC_PRIVATE_PORT"])}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "private"}
    assert spec["terminationGracePeriodSeconds"] > 30 + 5  # open requests, and the pause before
    assert by_kind["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for one in objects:
        if one["kind"] == "Service":
            assert one["spec"]["selector"].items() <= labels.items()
            assert all(port["targetPort"] in ports for port in one["spec"]["ports"])
    monitored = by_kind["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    [private] = [one for one in objects if one["kind"] == "Service" and one["spec"].get("clusterIP") == "None"]
    assert monitored <= private["metadata"]["labels"].items()
    jobs = {one["metadata"]["name"]: one["spec"]["jobTemplate"] for one in objects if one["kind"] == "CronJob"}
    commands = {name: job["spec"]["template"]["spec"]["containers"][0]["args"] for name, job in jobs.items()}
    assert commands == {"demo-seqrec-reindex": ["reindex"], "demo-seqrec-retrain": ["retrain", "--device", "cpu"]}


@pytest.mark.slow
def test_the_included_redis_loses_nothing(root: Path) -> None:
    [redis] = [one for one in render(root, DEFAULTS) if one["kind"] == "StatefulSet"]
    args = redis["spec"]["template"]["spec"]["containers"][0]["args"]
    settings = dict(zip(args[1::2], args[2::2], strict=True))
    assert settings["--appendonly"] == "yes"
    assert settings["--appendfsync"] == "always"
    assert settings["--maxmemory-policy"] == "noeviction"


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [{"redis": {"included": False}}, {"retrain": {"enabled": True}}], ids=["no redis", "no image to train"]
)
def test_what_is_missing_is_said(root: Path, values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError, match=r"redis\.url|retrain\.image"):
        render(root, values)
