"""A first step of a model that was just loaded, so that the first customer waits for no compiler."""

import torch

from app.engine.compute.choice import Scores
from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.models import Resident
from app.engine.compute.precompile import layers
from app.engine.compute.sampling import Sampler, draw
from app.engine.jobs import Sampling

TOKENS = 6
"""Of a prompt; then one token by itself."""


def warm(resident: Resident) -> None:
    """Run each kind of step once. Compiled kernels are cached on disk: only a machine's first start takes seconds."""
    model, ids = resident.model, (0,) * TOKENS
    if resident.loaded.device == "cpu":
        layers(resident.loaded.precision)
    if not isinstance(model, Decoder):
        model.capture()
        zeros = torch.tensor(ids, device=resident.loaded.device)
        model.forward(zeros, zeros, [TOKENS])
        return
    model.read_sources([((0,), ids)])
    prompt = model.prompt_of(ids)
    model.step([Feed(0, 0, prompt, is_prompt=True)])
    model.capture()
    if model.slots > 1:
        model.cache.copy_slots([0], [1], 1)
    _, scores = model.step([Feed(0, len(prompt), (0,))])
    if model.runs_ahead and model.slots > 1:  # what is compiled for a step that no graph holds
        model.step([Feed(0, len(prompt), (0,)), Feed(1, 0, prompt, is_prompt=True)])
    for search in (Sampling(temperature=0.0), Sampling(top_k=2, top_p=0.9, seed=0)):
        draw([Sampler(search, ids, logprobs=None)], Scores(scores.values.clone()), [None])
