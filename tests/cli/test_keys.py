"""The commands as a shell calls them, on a fresh data folder."""

import json
import os
import subprocess
import sys
from pathlib import Path


def tollgate(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TOLLGATE_HOME": str(home), **variables},
    )


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    made = json.loads(tollgate(home, "keys", "create", "--tenant", "acme", "--name", "web", "--json").stdout)
    assert made["key"].startswith("sk-tg-")
    admin = json.loads(
        tollgate(home, "keys", "create", "--tenant", "acme", "--name", "ops", "--admin", "--json").stdout
    )
    assert admin["is_admin"] and admin["key"].startswith("sk-tg-adm-")
    listed = json.loads(tollgate(home, "keys", "list", "--json").stdout)
    assert [key["name"] for key in listed] == ["web", "ops"]
    assert made["key"] not in json.dumps(listed)
    assert tollgate(home, "keys", "revoke", "web").returncode == 0
    again = tollgate(home, "keys", "revoke", "web")
    assert again.returncode == 1
    assert "0 active keys are called 'web'" in again.stderr
    assert "Traceback" not in again.stderr


def test_usage_of_a_fresh_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert json.loads(tollgate(tmp_path, "usage", "--json").stdout) == []
    assert tollgate(tmp_path, "usage").returncode == 0


def test_commands_start_without_the_engine(tmp_path: Path) -> None:
    code = "import sys, app.cli.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_an_unusable_folder_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "tollgate.db").write_text("this is no database")
    found = tollgate(tmp_path, "usage")
    assert found.returncode == 1
    assert len(found.stderr.strip().splitlines()) == 1
