"""Alerts and dashboard: promtool's own tests, and every name that they use exists in the list of metrics."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from app.observability.metrics import METRICS, Kind
from tests.house.test_errors import every_class

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
ALERTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
BOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/tollgate.json").read_text(encoding="utf-8"))
PARTS = ("_bucket", "_sum", "_count")


def promtool(*words: str) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not on this machine: install prometheus")
        pytest.skip("NOT TESTED: promtool is not on this machine; install prometheus")
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_its_configuration() -> None:
    promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    promtool("test", "rules", "alerts.test.yml")
    tested = (FOLDER / "alerts.test.yml").read_text(encoding="utf-8")
    for rule in RULES:
        assert "alert" not in rule or f"alertname: {rule['alert']}" in tested, rule


def shown_names() -> set[str]:
    """Every name that a scrape may hold."""
    names: set[str] = set()
    for series in METRICS:
        if series.kind is Kind.HISTOGRAM:
            names |= {series.name + part for part in PARTS}
        else:
            names.add(series.shown_name)
    return names


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", []))
    yield from (variable["query"]["query"] for variable in BOARD["templating"]["list"])
    for path in (ROOT / "deploy/kubernetes").rglob("*.yaml"):
        yield from re.findall(r"query: (.*)", path.read_text(encoding="utf-8"))


def test_every_metric_that_is_asked_for_exists() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    used = {name for text in expressions() for name in re.findall(r"\btollgate[_:][a-z_:0-9]+", text)}
    assert len(used) > 20
    assert used <= shown_names() | recorded, sorted(used - shown_names() - recorded)


def test_the_dashboard_s_queries_can_be_read_by_prometheus(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]
    plain = [re.sub(r"\$__\w+", "5m", query).replace("$instance", ".*").replace("$model", ".*") for query in queries]
    assert len(plain) > 20 and not any("$" in query for query in plain)
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(plain)]
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}), encoding="utf-8"
    )
    promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yml"))


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    """Ids that are unique, and the source that is provisioned beside it."""
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    [source] = provisioned["datasources"]
    assert BOARD["uid"] == "tollgate" and BOARD["schemaVersion"] >= 36 and "id" not in BOARD
    panels: list[dict[str, Any]] = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    asking = [panel for panel in panels if panel["type"] != "row"]
    for panel in [*asking, *BOARD["templating"]["list"]]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}, panel
    for panel in asking:
        ids = [target["refId"] for target in panel["targets"]]
        assert ids and len(set(ids)) == len(ids) and panel["title"] and panel["fieldConfig"]["defaults"]["unit"], panel
    names = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = {name for text in expressions() for name in re.findall(r"\$(\w+)", text)}
    assert used <= names | {"__rate_interval", "__range"}, used - names


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where `kept` lacks something of `given`, or has another value."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            yield from lost(value, kept.get(name), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif given != kept:
        yield path


def test_grafana_s_own_model_has_every_field_of_the_dashboard() -> None:
    """What Grafana does not know it drops without a word: a misspelt option, or one of another panel's kind."""
    register_default_plugins()

    def dropped(board: dict[str, Any]) -> list[str]:
        read = json.loads(JSONEncoder().encode(Dashboard.from_json(deepcopy(board))))
        return list(lost(board, read))

    known = ".annotations.list[0].titleFormat"  # Prometheus's own; the model has what all sources share
    assert dropped(BOARD) == [known]
    wrong = deepcopy(BOARD)
    wrong["panels"][1]["options"]["colourMode"] = "background"
    wrong["panels"][8]["fieldConfig"]["defaults"]["custom"]["fillopacity"] = 10
    assert len(dropped(wrong)) == 3


def test_a_tile_names_only_panels_that_are_there() -> None:
    titles = {panel["title"] for panel in BOARD["panels"]}
    named = {name for panel in BOARD["panels"] for name in re.findall(r"`([^`]+)`", panel.get("description", ""))}
    assert named and named <= titles, named - titles


def test_every_outcome_that_is_asked_for_is_an_error_s_code() -> None:
    codes = {found.code for found in every_class()} | {"failed"}
    asked = [outcomes for text in expressions() for outcomes in re.findall(r'outcome=~"([^"]*)"', text)]
    assert len(asked) >= 2
    for outcomes in asked:
        assert set(outcomes.split("|")) <= codes, outcomes


def test_every_alert_says_what_to_do() -> None:
    runbook = (ROOT / "docs/operating.md").read_text(encoding="utf-8").lower()
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["runbook"] == "docs/operating.md#" + rule["alert"].lower()
            assert f"### {rule['alert']}".lower() in runbook, rule["alert"]


def test_the_dashboard_s_panels_do_not_overlap_and_its_tiles_explain_themselves() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] != "stat" or "Runbook" in panel["description"] or "fault" in panel["title"]
