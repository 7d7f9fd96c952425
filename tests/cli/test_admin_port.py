"""Operators on a port of their own, which a firewall can tell apart."""

import json
from pathlib import Path

import httpx
import pytest

from tests.cli.test_serve import command, environment, free_port, served


@pytest.mark.parametrize("words", [(), pytest.param(("--workers", "2"), marks=pytest.mark.fault_long)])
def test_operators_have_a_port_of_their_own(
    tmp_path: Path, checkpoints: dict[str, Path], words: tuple[str, ...]
) -> None:
    port = free_port()
    env = environment(tmp_path, checkpoints) | {"TOLLGATE_API__ADMIN_PORT": str(port)}
    made = command(env, "keys", "create", "--tenant", "acme", "--name", "boss", "--admin", "--json")
    with served(env, *words) as (url, process), httpx.Client(headers={"x-api-key": json.loads(made)["key"]}) as http:
        own = f"http://127.0.0.1:{port}"
        assert http.get(own + "/admin/keys").status_code == 200
        assert http.get(own + "/livez").status_code == http.get(url + "/livez").status_code == 200
        assert "tollgate_ready 1" in http.get(own + "/metrics").text
        assert http.get(url + "/metrics").json()["error"] == http.get(url + "/nothing").json()["error"]
        assert http.get(url + "/admin/keys").json()["error"] == http.get(url + "/nothing").json()["error"]
        assert http.get(url + "/v1/models").status_code == 403
        assert http.get(url + "/v1/models", headers={"x-api-key": "sk-tg-noise"}).status_code == 401
        process.terminate()
        assert process.wait(60) == 0
