"""No customer waits for a compiler: what `make install` compiles is all that work of any kind needs."""

import os
import subprocess
import sys
from pathlib import Path

from app.engine.jobs import Head
from app.errors import SourceError
from app.registry.catalogue import HEADS, load_catalogue
from app.registry.locate import locate
from app.registry.settings import RegistrySettings

ROOT = Path(__file__).parents[3]
SEEDED = {"tiny-gpt2": Head.GENERATE, "tiny-marian": Head.TRANSLATE, "tiny-bert-classifier": Head.CLASSIFY}
"""With heads narrower than any kernel is made for."""
STARTERS = ("starter-stories", "starter-en-pt", "starter-sentiment")


def models(checkpoints: dict[str, Path], home: Path) -> list[tuple[Path, Head]]:
    catalogue, found = load_catalogue(), [(checkpoints[name], head) for name, head in SEEDED.items()]
    for name in STARTERS:
        model = catalogue.find(name)
        try:
            folder = locate(model, catalogue_folder=catalogue.folder, home=home, settings=RegistrySettings())
        except SourceError:
            assert not os.environ.get("CI"), "the starter extra is not installed"
            continue
        found.append((folder, HEADS[model.tasks[0]]))
    return found


def test_work_compiles_nothing_that_an_installation_has_not(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    asked = [f"{folder}={head.value}" for folder, head in models(checkpoints, tmp_path)]
    command = [sys.executable, "-m", "tests.engine.compute.compiled", *asked]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    found = [line for line in told.stdout.splitlines() if line.startswith("compiled for ")]
    assert len(found) == 3 * len(asked), told.stdout
    assert all(line.endswith(": []") for line in found), "\n".join(found)
