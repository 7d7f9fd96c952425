"""docker-compose.yml: it fits the schema of what it says, its files exist, its times fit the settings'."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = [name for name in SERVICES if name.startswith("tollgate-")]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("TOLLGATE_CONFIG", raising=False)
    return load_settings(file=ROOT / "deploy/tollgate.yaml")


SCHEMA = Path(__file__).parent / "schemas/compose-spec.json"
"""Of github.com/compose-spec/compose-spec (Apache 2.0), commit 170098ba."""


def test_it_fits_the_schema_of_compose_files() -> None:
    check = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    faults = [f"{fault.json_path}: {fault.message}" for fault in check.iter_errors(COMPOSE)]
    assert not faults, faults
    broken = COMPOSE | {"services": SERVICES | {"nginx": SERVICES["nginx"] | {"restarts": "always"}}}
    assert not check.is_valid(broken)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_and_names_exists(name: str) -> None:
    service = SERVICES[name]
    for mount in service.get("volumes", []):
        source, _, target = mount.partition(":")
        assert target.startswith("/"), mount
        if source.startswith("."):
            assert (ROOT / source).exists(), mount
            assert mount.endswith(":ro"), f"{mount} could be written from inside"
        else:
            assert source in COMPOSE["volumes"], mount
    named = {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}
    assert named <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_has_few_rights_and_time_to_drain(name: str, shared: Any) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
    assert seconds(service["stop_grace_period"]) > shared.api.drain_delay_s + shared.api.drain_s + 15
    assert not any("PASSWORD" in variable or "://" in str(value) for variable, value in service["environment"].items())


def test_code_that_is_compiled_on_a_gpu_can_be_loaded_from_its_cache() -> None:
    (folder,) = re.findall(r"TRITON_CACHE_DIR=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    mounts = dict(mount.split(":", 1) for mount in SERVICES["tollgate-gpu"]["tmpfs"])
    assert "exec" in mounts["/" + folder.split("/")[1]].split(",")
    assert "exec" not in mounts["/tmp"].split(",")
    assert set(mounts) == {mount.split(":", 1)[0] for mount in SERVICES["tollgate-1"]["tmpfs"]}


def test_each_replica_keeps_its_own_journal() -> None:
    volumes = [volume for name in REPLICAS for volume in SERVICES[name]["volumes"] if volume.endswith(":/data")]
    assert len(set(volumes)) == len(REPLICAS)


def test_the_balancer_waits_longer_than_an_answer_may_take(shared: Any) -> None:
    template = (ROOT / "deploy/nginx/tollgate.conf.template").read_text(encoding="utf-8")
    assert f"proxy_read_timeout {int(shared.api.request_timeout_s) + 20}s;" in template
    for name in ("tollgate-1", "tollgate-2"):
        address = SERVICES[name]["networks"]["tollgate"]["ipv4_address"]
        assert f"{address}:{shared.api.port}" in SERVICES["nginx"]["environment"]["UPSTREAM_SERVERS"]
        assert f"{address}:{shared.api.admin_port}" in SERVICES["nginx"]["environment"]["ADMIN_SERVERS"]
        assert f"{address}:{shared.api.admin_port}" in (ROOT / "deploy/prometheus/targets/tollgate.yml").read_text()


def test_the_secrets_script_makes_every_secret_once(tmp_path: Path) -> None:
    (tmp_path / "compose").mkdir()
    script = tmp_path / "compose" / "secrets.sh"
    script.write_bytes((ROOT / "deploy/compose/secrets.sh").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True)
    first = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} <= set(first)
    assert len(first["pepper"]) == 32
    subprocess.run(["sh", script], check=True, capture_output=True)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}


def test_no_secret_is_in_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ)
    assert not [path for path in listed.stdout.splitlines() if path.startswith("deploy/secrets")]
