"""10,000 requests of every sort leave the processes as large as the first thousand did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.fault_long
@pytest.mark.timeout(1_800)
def test_nothing_grows_over_10000_requests() -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "--loads", ""]
    env = os.environ | {"TOLLGATE_ENGINE__THREADS": "1"}  # whatever else the machine does
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout
