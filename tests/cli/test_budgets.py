"""tollgate budgets: exact decimal numbers in and out."""

import json
from pathlib import Path

import pytest

from tests.cli.shell import tollgate


def test_balances_and_limits_are_set_and_shown(tmp_path: Path) -> None:
    tollgate(tmp_path, "keys", "create", "--tenant", "acme", "--name", "web")
    for words in (
        ("topup", "--tenant", "acme", "--amount", "10.000000001"),
        ("topup", "--tenant", "acme", "--amount=-0.5", "--note", "refund"),
        ("set", "--tenant", "acme", "--monthly", "3", "--key", "web"),
    ):
        done = tollgate(tmp_path, "budgets", *words)
        assert done.returncode == 0, done.stderr
    found = json.loads(tollgate(tmp_path, "budgets", "show", "--json").stdout)
    assert [(one["kind"], one["key_name"], one["available"]) for one in found] == [
        ("prepaid", None, "9.500000001"),
        ("monthly", "web", "3"),
    ]
    assert "9.500000001" in tollgate(tmp_path, "budgets", "show").stdout


@pytest.mark.parametrize("amount", ["much", "nan", "0.0000000001", "1e30"])
def test_what_is_no_amount_is_refused(tmp_path: Path, amount: str) -> None:
    tollgate(tmp_path, "keys", "create", "--tenant", "acme", "--name", "web")
    assert tollgate(tmp_path, "budgets", "topup", "--tenant", "acme", f"--amount={amount}").returncode == 2
