"""The image's recipe: it lints, copies only what is let through, and installs only what the lock names."""

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def copied() -> set[str]:
    """What the Dockerfile copies out of the tree."""
    lines = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line]
    return {source for line in lines for source in line}


def test_the_dockerfile_passes_hadolint() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_that_is_copied_exists_and_passes_dockerignore() -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(source == place or source.startswith(place + "/") for place in let_through), source


def test_no_secret_and_no_data_is_let_through() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert not any(fnmatch(line, "!*secret*") or line in ("!deploy", "!.", "!models") for line in lines)


def test_everything_that_the_image_installs_is_locked() -> None:
    locked = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    tool = [sys.executable, ROOT / "deploy/image/requirements.py", ROOT / "pyproject.toml"]
    for words in ([], ["starter"]):
        wanted = subprocess.run([*tool, *words], capture_output=True, text=True, check=True).stdout.split("\n")
        names = {re.split(r"[\[>=<;]", line)[0].lower().replace("_", "-") for line in wanted if line}
        assert names and names <= locked, names - locked
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == ">=3.11"


def test_it_does_not_run_as_root_and_asks_the_probe_that_an_engine_s_restart_passes() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    users = {stage.split()[2]: re.findall(r"^USER (.*)$", stage, re.MULTILINE) for stage in stages[1:]}
    assert users["runtime"][-1] == users["cuda"][-1] == "10001:10001", "a stage that installs as root goes back"
    assert not users["cpu"]
    assert "/livez" in DOCKERFILE[DOCKERFILE.index("HEALTHCHECK") :].split("ENTRYPOINT")[0]
