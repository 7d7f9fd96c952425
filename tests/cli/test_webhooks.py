"""tollgate webhooks and tenants alerts."""

from pathlib import Path

from tests.cli.shell import told, tollgate


def test_a_webhook_is_made_tried_and_removed(tmp_path: Path) -> None:
    tollgate(tmp_path, "tenants", "create", "acme")
    made = told(tmp_path, "webhooks", "create", "https://example.com/hook", "--tenant", "acme")
    assert made["secret"].startswith("whsec_")
    assert told(tmp_path, "webhooks", "rotate", made["id"])["secret"] != made["secret"]
    assert [one["url"] for one in told(tmp_path, "webhooks", "list")] == ["https://example.com/hook"]
    assert told(tmp_path, "webhooks", "test", made["id"]) == {"queued": 1}
    [waiting] = told(tmp_path, "webhooks", "deliveries")
    assert (waiting["state"], waiting["attempts"], waiting["type"]) == ("waiting", 0, "webhook.test")
    assert "webhook.test" in tollgate(tmp_path, "webhooks", "deliveries", COLUMNS="200").stdout
    assert tollgate(tmp_path, "webhooks", "redeliver", waiting["id"]).returncode == 1
    refused = tollgate(tmp_path, "webhooks", "create", "http://example.com/")
    assert refused.returncode == 1 and "https://" in refused.stderr
    assert told(tmp_path, "webhooks", "remove", made["id"])["active"] is False
    assert told(tmp_path, "webhooks", "list") == []
    assert told(tmp_path, "tenants", "alerts", "acme")["percents"] == [50, 80, 100]
    assert told(tmp_path, "tenants", "alerts", "acme", "--percent", "90", "--percent", "75")["percents"] == [75, 90]
    assert told(tmp_path, "tenants", "alerts", "acme", "--off")["percents"] == []
    assert told(tmp_path, "tenants", "alerts", "acme", "--usual")["is_default"] is True
    assert tollgate(tmp_path, "tenants", "alerts", "acme", "--percent", "101").returncode == 1
    acts = [row["act"] for row in told(tmp_path, "audit", "list", "--tenant", "acme")]
    assert acts[1:] == [
        "webhook.create", "webhook.rotate", "webhook.test", "webhook.remove", "tenant.alerts", "tenant.alerts",
        "tenant.alerts",
    ]  # fmt: skip
