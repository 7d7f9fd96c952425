"""What a CUDA device does in its own way: fused kernels, decode steps as captured graphs, draws without large copies.

The kernels are Triton's, which comes with torch where there is CUDA. Without it torch's own operations do all of it.
"""

import warnings
from importlib.util import find_spec

import torch

with warnings.catch_warnings():  # a driver that does not work is told of, with what to do, when a model asks for it
    warnings.simplefilter("ignore")
    HAS_KERNELS = find_spec("triton") is not None and torch.cuda.is_available()
