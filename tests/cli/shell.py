"""`tollgate …` in the tests' own process: an interpreter's start is a second, and these tests call it a hundred times.

What only a process of its own shows (its start, its end, what it imports) is in test_keys.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from app.cli.main import cli


@dataclass(slots=True)
class Said:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def tollgate(home: Path, *words: str, **variables: str) -> Said:
    """Run it on a data folder, with nobody at the keyboard. An error that the command does not handle is raised."""
    done = CliRunner().invoke(cli, words, env={"TOLLGATE_HOME": str(home), **variables}, catch_exceptions=False)
    return Said(done.exit_code, done.stdout, done.stderr)


def told(home: Path, *words: str) -> Any:
    """What it says as JSON."""
    done = tollgate(home, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
