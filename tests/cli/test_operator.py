"""tenants, limits, audit and the rest of keys, as a shell calls them: the same acts as the routes'."""

import json
import sqlite3
from pathlib import Path

from tests.cli.shell import told, tollgate


def test_a_tenant_is_made_limited_suspended_and_erased(tmp_path: Path) -> None:
    made = told(tmp_path, "tenants", "create", "acme", "--weight", "3", "--requests-per-minute", "60")
    assert (made["weight"], made["limits"]["requests_per_minute"]) == (3, 60)
    told(tmp_path, "keys", "create", "--tenant", "acme", "--name", "web")
    limits = told(tmp_path, "limits", "set", "--tenant", "acme", "--tokens-per-minute", "5000")
    assert (limits["requests_per_minute"], limits["tokens_per_minute"]) == (None, 5000)
    assert told(tmp_path, "limits", "show", "--tenant", "acme") == limits
    assert told(tmp_path, "tenants", "update", "acme", "--name", "zenith")["name"] == "zenith"
    assert told(tmp_path, "tenants", "suspend", "zenith")["status"] == "suspended"
    assert told(tmp_path, "tenants", "resume", "zenith")["status"] == "active"
    assert "5,000 tok/min" in tollgate(tmp_path, "tenants", "show", "zenith").stdout
    assert tollgate(tmp_path, "tenants", "erase", "zenith").returncode == 1, "it asks, and nobody answers"
    assert told(tmp_path, "tenants", "erase", "zenith", "--yes")["status"] == "erased"
    shown = tollgate(tmp_path, "tenants", "list").stdout + json.dumps(told(tmp_path, "audit", "list"))
    assert "zenith" not in shown
    assert "acme" not in shown
    assert told(tmp_path, "audit", "verify")["is_sound"]


def test_a_key_is_scoped_changed_rotated_and_every_act_is_written_down(tmp_path: Path) -> None:
    words = ("--task", "translation", "--network", "192.0.2.0/24", "--expires", "90d", "--concurrent-requests", "2")
    made = told(tmp_path, "keys", "create", "--tenant", "acme", "--name", "web", *words)
    assert (made["tasks"], made["networks"], made["limits"]["concurrent_requests"]) == (
        ["translation"], ["192.0.2.0/24"], 2,
    )  # fmt: skip
    changed = told(tmp_path, "keys", "update", "web", "--clear", "networks", "--clear", "expires", "--model", "opus-*")
    assert (changed["networks"], changed["expires_at"], changed["models"]) == (None, None, ["opus-*"])
    new = told(tmp_path, "keys", "rotate", "web", "--overlap", "1h")
    assert new["key"] != made["key"]
    assert new["models"] == ["opus-*"]
    assert told(tmp_path, "keys", "show", made["id"])["replaced_by"] == new["id"]
    assert told(tmp_path, "limits", "show", "--key", new["id"])["concurrent_requests"] == 2
    rows = told(tmp_path, "audit", "list")
    assert [row["act"] for row in rows] == [
        "tenant.create", "key.create", "key.update", "key.rotate", "key.create",
    ]  # fmt: skip
    assert rows[0]["actor"].startswith("cli:")
    head = told(tmp_path, "audit", "verify")["head"]
    with sqlite3.connect(tmp_path / "tollgate.db") as connection:
        connection.execute("DELETE FROM audit_log WHERE sequence = 5")
    connection.close()
    cut = tollgate(tmp_path, "audit", "verify", "--head", head)
    assert cut.returncode == 1
    assert "rows 5 to 5 are missing" in cut.stderr


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    for words, said in (
        (("keys", "create", "--tenant", "a", "--name", "b", "--network", "here"), "'here' is no network"),
        (("keys", "create", "--tenant", "a", "--name", "b", "--expires", "soon"), "'soon' is no moment"),
        (("keys", "rotate", "nobody"), "0 active keys are called 'nobody'"),
        (("tenants", "suspend", "nobody"), "there is no tenant 'nobody'"),
        (("audit", "verify", "--head", "nonsense"), "a head is number:signature"),
    ):
        done = tollgate(tmp_path, *words)
        assert done.returncode == 1, words
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert tollgate(tmp_path, "limits", "set", "--requests-per-minute", "5").returncode == 2
