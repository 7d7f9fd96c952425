"""What a CUDA device does in its own way: fused kernels, decode steps as captured graphs, draws without large copies.

The kernels are Triton's, which comes with torch where there is CUDA. Without it torch's own operations do all of it.
"""

from importlib.util import find_spec

import torch

HAS_KERNELS = find_spec("triton") is not None and torch.cuda.is_available()
