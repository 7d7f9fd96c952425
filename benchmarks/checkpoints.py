"""Where the checkpoints of random weights lie, and their sizes: the published ones, and tiny ones."""

import os
import shutil
from pathlib import Path

VERSION = 1
"""Raise it when a checkpoint changes: older ones are then left alone and new ones written."""
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "published": {
        "gpt2": {"vocabulary": 50257, "width": 768, "layers": 12, "heads": 12, "positions": 1024},
        "bert": {"vocabulary": 30522, "width": 768, "layers": 12, "heads": 12, "positions": 512, "inner": 3072},
        "marian": {"vocabulary": 58101, "width": 512, "layers": 6, "heads": 8, "positions": 512, "inner": 2048},
    },
    "tiny": {
        "gpt2": {"vocabulary": 400, "width": 32, "layers": 2, "heads": 4, "positions": 128},
        "bert": {"vocabulary": 120, "width": 32, "layers": 2, "heads": 4, "positions": 128, "inner": 64},
        "marian": {"vocabulary": 120, "width": 32, "layers": 2, "heads": 4, "positions": 128, "inner": 64},
    },
}


def cache_folder() -> Path:
    """BENCHMARKS_CACHE, or a folder in the user's cache."""
    chosen = os.environ.get("BENCHMARKS_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "tollgate-benchmarks"


def checkpoint(model: str, size: str = "published") -> Path:
    """The folder of `model` (gpt2, bert, marian), written first when it is not there."""
    folder = cache_folder() / f"{size}-{model}-{VERSION}"
    if not folder.is_dir():
        from benchmarks.random_weights import write_checkpoint  # here: it brings transformers, seconds and memory

        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_checkpoint(model, unfinished, SIZES[size][model])
        unfinished.rename(folder)
    return folder
