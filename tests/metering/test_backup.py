"""A backup that is taken under traffic is the ledger at one moment: it is restored, balances, and is served from."""

import threading
from pathlib import Path

import httpx
import pytest

from app.errors import Conflict, NotFound, SettingsError
from app.metering.backup import back_up, restore
from app.metering.database import Database
from app.metering.keys import NewKey
from tests.fixtures.process import served

BODY = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}


def test_a_backup_under_traffic_is_restored_and_served_from(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    copy, stop, answered = tmp_path / "copy.db", threading.Event(), list[str]()
    with served(tmp_path / "first", checkpoints) as server:

        def customer() -> None:
            with httpx.Client(base_url=server.url, headers=server.headers, timeout=30) as client:
                while not stop.is_set():
                    answered.append(client.post("/v1/completions", json=BODY).raise_for_status().json()["id"])

        threads = [threading.Thread(target=customer) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 40:
            stop.wait(0.01)
        before = set(answered)
        server.command("db", "backup", "--to", str(copy))
        stop.set()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
        server.command("db", "restore", "--from", str(copy), "--replace")
        entries = server.entries()
        assert before <= {"cmpl-" + entry["request_id"] for entry in entries}
        assert len(entries) <= len(answered)
        assert (tmp_path / "first" / "tollgate.db.replaced").is_file()
    with served(tmp_path / "first", checkpoints) as again:
        assert httpx.post(again.url + "/v1/completions", json=BODY, headers=server.headers).status_code == 200
        assert again.stop() == 0


async def test_nothing_is_overwritten_and_nothing_else_is_restored(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    assert back_up(tmp_path, copy) == 0
    with pytest.raises(Conflict):
        back_up(tmp_path, copy)
    with pytest.raises(Conflict):
        restore(copy, tmp_path, is_replacing=False)
    with pytest.raises(NotFound):
        back_up(tmp_path / "nowhere", tmp_path / "other.db")
    (tmp_path / "noise").write_bytes(b"SQLite format 3\0" + b"noise" * 1000)
    with pytest.raises(SettingsError):
        restore(tmp_path / "noise", tmp_path / "fresh", is_replacing=False)
    assert not (tmp_path / "fresh" / "tollgate.db").exists()
    assert restore(copy, tmp_path / "fresh", is_replacing=False) == 0
