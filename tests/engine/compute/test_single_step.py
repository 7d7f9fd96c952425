"""The kernel for a step of one row (cuda/step/), compiled for the CPU with a device of its own (device.h).

Its blocks and threads take turns in a random order there. That it is fast, only a GPU can tell (tests/gpu).
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.compute.cache import Span, StepTokens
from app.engine.compute.cuda import single
from app.engine.compute.families.gpt2 import Gpt2
from tests.engine.compute.random_gpt2 import random_gpt2

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler (Debian: apt install g++)")
BLOCKS, SLOTS, SLOT = 16, 3, 2


@pytest.fixture(scope="module")
def family() -> Gpt2:
    return random_gpt2(width=256, heads=4, layers=3, positions=512, vocabulary=301)


def built(family: Gpt2, folder: Path) -> Callable[[bytes, int], int]:
    """The kernel for this model: given the places of all tensors and a seed of the order in which threads go on."""
    here = Path(__file__).parent
    parts = [here / "device.h", *(single.FOLDER / name for name in single.PARTS), here / "device_run.h"]
    (folder / "step.cpp").write_text("\n".join(part.read_text(encoding="utf-8") for part in parts), encoding="utf-8")
    sizes = [f"-D{name}={value}" for name, value in single.sizes_of(family, BLOCKS).items()]
    assert COMPILER is not None
    flags = ["-std=c++17", "-O2", "-w", "-shared", "-fPIC", *sizes]
    subprocess.run([COMPILER, *flags, "-o", folder / "step.so", folder / "step.cpp"], check=True)
    found = ctypes.CDLL(str(folder / "step.so")).run_step
    found.argtypes, found.restype = [ctypes.c_char_p, ctypes.c_uint], ctypes.c_long
    return found


@pytest.fixture(scope="module")
def run_step(family: Gpt2, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes, int], int]:
    return built(family, tmp_path_factory.mktemp("step"))


class Row:
    """One row's step by the kernel, over a cache that holds what the family itself has read of `ids`."""

    def __init__(self, family: Gpt2, ids: list[int]) -> None:
        self.family, self.ids = family, ids
        cache = family.new_cache(SLOTS)
        start = len(ids) - 1
        if start:
            spans = [Span(SLOT, 0, start, is_prompt=True)]
            family.forward(torch.tensor(ids[:-1]), StepTokens(spans, torch.device("cpu")), cache)
        self.cache: Any = SimpleNamespace(
            **{
                name: held[:, :, :, : family.positions_max].contiguous()
                for name, held in {"keys": cache.keys, "values": cache.values}.items()
            }
        )
        self.inputs = tuple(torch.tensor([value]) for value in (ids[-1], SLOT, start))
        self.hidden = torch.full((1, family.width), torch.nan, dtype=torch.bfloat16)
        self.scores = torch.full((1, family.vocabulary), torch.nan)
        self.best = torch.tensor([-9])
        self.mail = torch.zeros(single.mail_words(family, BLOCKS), dtype=torch.long)
        self.mark = torch.ones(1, dtype=torch.long)
        tokens = StepTokens([Span(SLOT, start, 1)], torch.device("cpu"))
        self.expected = family.logits(family.forward(torch.tensor(ids[-1:]), tokens, cache))
        self.expected_cache = cache

    def run(self, run_step: Callable[[bytes, int], int], seed: int) -> int:
        outputs = self.hidden, self.scores, self.best, self.mail, self.mark
        tails = [single.tail_of(block, BLOCKS) for block in self.family.trunk.blocks]
        return run_step(single.table(self.family, self.cache, self.inputs, outputs, tails), seed)


def ids_of(count: int) -> list[int]:
    return np.random.default_rng(count).integers(0, 301, count).tolist()


@pytest.mark.parametrize("count", [1, 30, 193, 512])
def test_a_step_gives_the_scores_of_the_model_and_leaves_the_next_ones_input(
    family: Gpt2, run_step: Callable[[bytes, int], int], count: int
) -> None:
    assert single.is_shaped(family, Row(family, [1]).cache, BLOCKS)
    row = Row(family, ids_of(count))
    row.run(run_step, seed=count)
    spread = row.expected.std()
    assert float((row.scores - row.expected).abs().max()) < 0.05 * float(spread)
    best = int(row.scores.argmax())
    assert row.best.tolist() == [best]
    assert [held.item() for held in row.inputs] == [best, SLOT, min(count, family.positions_max - 1)]
    assert row.mark.item() == 2
    for held, expected in ((row.cache.keys, row.expected_cache.keys), (row.cache.values, row.expected_cache.values)):
        torch.testing.assert_close(
            held[:, SLOT, :, count - 1].float(), expected[:, SLOT, :, count - 1].float(), atol=0.05, rtol=0.02
        )
        assert not held[:, :SLOT].any(), "another row's slot was written"


def test_a_wider_model_has_more_warps_and_the_same_numbers(tmp_path: Path) -> None:
    family = random_gpt2(width=1024, heads=16, layers=2, positions=192, vocabulary=301)
    row = Row(family, ids_of(40))
    row.run(built(family, tmp_path), seed=1)
    assert float((row.scores - row.expected).abs().max()) < 0.05 * float(row.expected.std())
    assert row.best.item() == row.scores.argmax().item()


def test_the_order_in_which_blocks_go_on_does_not_change_a_bit(
    family: Gpt2, run_step: Callable[[bytes, int], int]
) -> None:
    found = []
    for seed in range(2):
        row = Row(family, ids_of(300))
        row.run(run_step, seed)
        found.append(row.scores)
    assert torch.equal(*found)


def test_steps_in_turn_read_what_those_before_stored(family: Gpt2, run_step: Callable[[bytes, int], int]) -> None:
    row, told = Row(family, [7, 8]), [7, 8]
    for number in range(2):
        row.run(run_step, seed=number)
        told.append(row.best.item())
    again = Row(family, told[:-1])
    again.run(run_step, seed=9)
    assert again.best.item() == told[-1]
    assert float((row.scores - again.expected).abs().max()) < 0.05 * float(again.expected.std())


def test_a_row_that_is_no_number_fails_and_feeds_what_hurts_nobody(
    family: Gpt2, run_step: Callable[[bytes, int], int]
) -> None:
    row = Row(family, ids_of(20))
    row.cache.values[1, SLOT, 2, 5, 3] = torch.nan
    row.run(run_step, seed=0)
    assert row.best.item() == -1 and row.inputs[0].item() == 0
    assert not row.scores.isfinite().any()
