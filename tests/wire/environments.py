"""Python environments for clients that cannot share the project's own: made once, kept outside the tree.

`environments/<name>.txt` lists exact versions, every dependency included. A line `# over: .venv` lets the environment
see the packages that run the tests, so that torch is not installed twice; another checkout makes its own.
`python -m tests.wire.environments` makes them all.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "environments"
OVER = "# over: .venv"
BUILD_S_MAX = 300


class NotBuilt(Exception):
    """pip could not make an environment; the message is its last words."""


def cache_folder() -> Path:
    """Where environments are kept: TOLLGATE_TEST_CACHE, or the user's cache."""
    chosen = os.environ.get("TOLLGATE_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "tollgate" / "wire"


def python_of(name: str) -> Path:
    """The interpreter of an environment, made if need be. If it cannot be, the test is skipped; in CI it fails."""
    try:
        return build(name)
    except NotBuilt as error:
        if os.environ.get("CI"):
            pytest.fail(f"the environment {name} could not be made: {error}")
        pytest.skip(f"NOT TESTED: the environment {name} could not be made: {error}")


@cache
def build(name: str) -> Path:
    """As `python_of`. Raises NotBuilt. Processes that want the same one wait for each other."""
    listed = FOLDER / f"{name}.txt"
    text = listed.read_text(encoding="utf-8")
    packages = os.path.realpath(sysconfig.get_path("purelib")) if OVER in text.splitlines() else ""
    digest = hashlib.sha256(f"{sys.version}\n{packages}\n{text}".encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{digest}"
    python, mark = folder / "bin" / "python", folder / ".complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", str(folder))
        if packages:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            beside = folder / "lib" / version / "site-packages" / "over.pth"
            beside.write_text(packages + "\n", encoding="utf-8")
        run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(listed))
        mark.touch()
    return python


def run(*command: str) -> None:
    """Run a command. Raises NotBuilt."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S_MAX, check=False)
    except subprocess.TimeoutExpired as cause:
        raise NotBuilt(f"{command[1:4]} took more than {BUILD_S_MAX} s") from cause
    if done.returncode:
        raise NotBuilt((done.stderr or done.stdout).strip()[-500:])


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.txt")):
        print(f"{path.stem}: {build(path.stem)}")
