"""How the rooms are put together."""

import subprocess
import sys
from pathlib import Path

from tests.fixtures.residency import ENTRIES, SELDOM, write_catalogue

SERVES_WITHOUT_TORCH = """
import asyncio, sys
from pathlib import Path
from app.main import build_app
from app.settings import Settings

async def main():
    app = build_app(Settings(home=Path(sys.argv[1]), engine={"threads": 1}, registry={"catalogue": sys.argv[2]}))
    async with app.router.lifespan_context(app):
        serving = app.state.serving
        while not serving.is_started:
            await asyncio.sleep(0.01)
        print(sorted(place.state.value for place in serving.residency.places), "torch" in sys.modules)

asyncio.run(main())
"""


def test_a_server_whose_engine_is_a_child_never_imports_torch(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    catalogue = write_catalogue(tmp_path, checkpoints, load="start")
    command = [sys.executable, "-c", SERVES_WITHOUT_TORCH, str(tmp_path), str(catalogue)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"{['absent'] * len(SELDOM) + ['resident'] * (len(ENTRIES) - len(SELDOM))} False"
    assert ended.stderr == ""
