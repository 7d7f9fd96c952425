"""The whole road once, on tiny models: workers, alternation, counts, ratios, the page. No peers beyond transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.report import BEGIN, END

ROOT = Path(__file__).parents[2]


def test_a_tiny_run_measures_writes_its_page_and_keeps_the_samples(tmp_path: Path) -> None:
    page, raw = tmp_path / "docs" / "page.md", tmp_path / "raw.json"
    page.parent.mkdir()
    page.write_text(f"above\n{BEGIN}\n{END}\nbelow\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "benchmarks", "--tiny", "--only", "gpt2-2", "--rounds", "2", "--json", str(raw),
        "--engines", "tollgate-engine-fp32,transformers-bf16", "--page", str(page), "--write-page",
    ]  # fmt: skip
    env = os.environ | {"BENCHMARKS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(raw.read_text(encoding="utf-8"))
    rounds = found["results"]["samples"]["gpt2-2"]
    assert {engine: len(samples) for engine, samples in rounds.items()} == {
        "tollgate-engine-fp32": 2, "transformers-bf16": 2,
    }  # fmt: skip
    assert all(one["seconds"] > 0 and one["memory_bytes"] > 0 for samples in rounds.values() for one in samples)
    lines = [line for line in done.stdout.splitlines() if "round" in line]
    assert [line.split("round ")[1][0] for line in lines] == ["1", "1", "2", "2"], "they alternate"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("above\n") and text.endswith("below\n")
    assert "Not the published figures" in text and "tollgate-engine-fp32" in text
