"""Prints what the image installs, from pyproject.toml: the project's dependencies and those of its server extras.

Used by the Dockerfile, before the code is copied, so that a change of code installs nothing again. The versions are
constraints.txt's. The packages that only carry starter weights are named apart (`starter`): nothing of theirs runs.
"""

import sys
import tomllib
from pathlib import Path

EXTRAS = ("postgres", "redis")


def main() -> None:
    project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    if sys.argv[2:] == ["starter"]:
        wanted = extras["starter"]
    else:
        wanted = project["dependencies"] + [line for name in EXTRAS for line in extras[name]]
    print("\n".join(wanted))


if __name__ == "__main__":
    main()
