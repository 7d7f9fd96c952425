"""What every command promises: JSON for programs."""

from typing import Any

import pytest
import typer.main

from app.cli.main import cli

SELF_EVIDENT = frozenset({"serve", "models schema", "usage export", "usage events", "usage invoice"})
"""A server; and what prints a file in a form of its own."""


def commands(group: Any, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{path}{name} ")
        else:
            found[path + name] = command
    return found


COMMANDS = commands(typer.main.get_group(cli))  # pyright: ignore


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - SELF_EVIDENT))
def test_every_command_has_json_and_says_what_it_does(path: str) -> None:
    options = [option for parameter in COMMANDS[path].params for option in parameter.opts]
    assert "--json" in options
    assert COMMANDS[path].help
