"""Files stay short enough to read in one sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = "app/metering/migrations/versions"
FILES = sorted(p for p in [*ROOT.glob("app/**/*.py"), *ROOT.glob("tests/**/*.py")] if GENERATED not in str(p))
LINES_MAX = 400
FUNCTION_LINES_MAX = 70


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_fit_a_reading(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"
