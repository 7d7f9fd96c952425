"""Loops for the CPU, written in Python and compiled by numba on the machine that runs them, once, into a cache on disk.

Arrays in, arrays out: nothing here knows a model. torch is imported first on purpose: numba's threads then are
torch's (one OpenMP library, one pool), instead of a second pool that would fight it for the cores.
"""

import hashlib
import os
from pathlib import Path

import torch
from llvmlite import binding
from numba import config, get_num_threads, set_num_threads


def _sources_digest() -> str:
    """Names the cache: numba looks at a function's own file only, not at what it calls."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    base = os.environ.get("TOLLGATE_KERNEL_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tollgate" / "kernels" / _sources_digest()


config.THREADING_LAYER = "omp"
if not os.environ.get("NUMBA_CACHE_DIR"):
    config.CACHE_DIR = str(_cache_folder())

_FEATURES = dict(binding.get_host_cpu_features())
HAS_512 = bool(_FEATURES.get("avx512f"))
"""Whether a register holds sixteen floats, and there are 32 of them; else eight, and 16."""
HAS_FMA = HAS_512 or bool(_FEATURES.get("avx2") and _FEATURES.get("fma"))
"""Whether the kernels of linear.py run here, in fp32 and in int8."""
HAS_VNNI_512 = bool(HAS_512 and _FEATURES.get("avx512vnni"))
"""Whether four bytes are multiplied and summed by one instruction, in sixteen lanes."""
HAS_BF16_512 = bool(HAS_512 and _FEATURES.get("avx512bf16"))
"""Whether spans_bf16.py runs here."""


def set_threads(count: int) -> None:
    """How many threads tensor work of the calling thread may take, in torch and in the kernels."""
    torch.set_num_threads(count)
    set_num_threads(min(count, config.NUMBA_NUM_THREADS))


def threads() -> int:
    """How many threads the kernels of the calling thread may take."""
    return get_num_threads()
