"""A newer replica migrates the database under the older ones that still run: it may add, and take nothing away."""

import ast
from pathlib import Path

import pytest

VERSIONS = sorted((Path(__file__).parents[2] / "app/metering/migrations/versions").glob("*.py"))
TAKES_AWAY = {"drop_table", "drop_column", "rename_table"}


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_a_migration_takes_nothing_away_from_an_older_replica(path: Path) -> None:
    [upgrade] = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade"
    ]
    called = {
        node.func.attr
        for node in ast.walk(upgrade)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert called and not called & TAKES_AWAY
