"""Turns a checkpoint folder into a loaded model: reads config.json, picks the family, takes its weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from app.engine.client import LoadedModel
from app.engine.compute.decode import Decoder
from app.engine.compute.families import bert, gpt2, marian
from app.engine.compute.families.bert import Bert
from app.engine.compute.residence import gather
from app.engine.compute.weights import Weights, read_config, read_tensors
from app.engine.jobs import Head, ModelSpec, Precision
from app.errors import SourceError, VerificationFailed

FIRST_SENTENCE = re.compile(r"\.\s|\n")
HEADS = {
    gpt2.MODEL_TYPE: {Head.GENERATE},
    marian.MODEL_TYPE: {Head.TRANSLATE},
    bert.MODEL_TYPE: {Head.CLASSIFY, Head.ANSWER, Head.UNMASK, Head.TAG, Head.EMBED},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model in memory, with what generate would read from its generation_config.json."""

    loaded: LoadedModel
    model: Decoder | Bert
    vocabulary: int
    banned: tuple[int, ...] = ()
    """Token ids that are never drawn (single-token bad_words_ids)."""
    forced_last_id: int | None = None
    """The token put at the length limit (forced_eos_token_id)."""


def load_model(spec: ModelSpec, *, slots: int, device: str) -> Resident:
    """Read `spec`'s folder. Raises VerificationFailed naming what is wrong with it, SourceError for what we lack."""
    folder = Path(spec.folder)
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in HEADS:
        raise SourceError(f"{spec.id}: the model type {kind!r} is not hosted; hosted are {', '.join(HEADS)}")
    if spec.head not in HEADS[kind]:
        raise VerificationFailed(f"{spec.id}: a {kind} checkpoint cannot do {spec.head.value}")
    place = _place_of(spec, device)
    precision = _precision_of(spec, place)
    try:
        found = _build(kind, config, read_tensors(folder, allow_pickle=spec.allow_pickle), spec, precision, place)
    except KeyError as missing:
        raise VerificationFailed(
            f"{folder / 'config.json'} has no {missing}; it is not a {kind} checkpoint"
        ) from missing
    weights = tensors_of(found)
    weight_bytes = sum(tensor.nbytes for tensor in weights)
    if place.type == "cpu":
        gather(weights)
    model = found if isinstance(found, Bert) else Decoder(found, slots=slots)
    cache_bytes = model.memory_bytes if isinstance(model, Decoder) else 0
    loaded = LoadedModel(
        id=spec.id,
        memory_bytes=weight_bytes + cache_bytes,
        positions_max=found.positions_max,
        precision=precision,
        device=str(place),
    )
    if kind != marian.MODEL_TYPE:
        return Resident(loaded=loaded, model=model, vocabulary=found.vocabulary)
    generation = (
        read_config(folder, "generation_config.json") if (folder / "generation_config.json").is_file() else config
    )
    bad: list[list[int]] = generation.get("bad_words_ids") or [[config["pad_token_id"]]]
    return Resident(
        loaded=loaded,
        model=model,
        vocabulary=found.vocabulary,
        banned=tuple(words[0] for words in bad if len(words) == 1),
        forced_last_id=generation.get("forced_eos_token_id", config.get("forced_eos_token_id")),
    )


def tensors_of(held: object, seen: set[int] | None = None) -> list[torch.Tensor]:
    """Every distinct tensor reachable from a family's attributes; tied weights count once."""
    seen = set[int]() if seen is None else seen
    if isinstance(held, torch.Tensor):
        if held.data_ptr() in seen:
            return []
        seen.add(held.data_ptr())
        return [held]
    if isinstance(held, list):
        inner = cast("list[object]", held)
    elif type(held).__module__.startswith("app.engine.compute"):
        names: list[str] = [*getattr(held, "__dict__", ()), *getattr(type(held), "__slots__", ())]
        inner = [cast("object", getattr(held, name)) for name in names]
    else:
        inner = []
    return [tensor for value in inner for tensor in tensors_of(value, seen)]


def _place_of(spec: ModelSpec, device: str) -> torch.device:
    place = torch.device(device)
    fault = _fault_of(place) if place.type == "cuda" else None
    if fault is not None:
        raise SourceError(
            f"{spec.id}: it is to run on {place}, but PyTorch {torch.__version__} {fault}. It needs PyTorch's CUDA "
            "build and a GPU that nvidia-smi lists here, with a driver new enough (in a container: NVIDIA's container "
            "toolkit, and a GPU given to it); or set TOLLGATE_ENGINE__DEVICE=cpu"
        )
    return place


def _fault_of(place: torch.device) -> str | None:
    """Why work cannot run there. A GPU that is listed may still not start: its driver is too old, say."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as cause:
        return "cannot start CUDA: " + FIRST_SENTENCE.split(str(cause).strip())[0].rstrip(".")
    count = torch.cuda.device_count()
    return None if (place.index or 0) < count else f"finds {count} GPUs"


def _precision_of(spec: ModelSpec, place: torch.device) -> Precision:
    if spec.precision is Precision.INT8 and place.type != "cpu":
        raise SourceError(f"{spec.id}: int8 runs on the CPU only; set its precision to auto, fp32 or bf16")
    if spec.precision is Precision.AUTO:
        return Precision.BF16 if place.type == "cuda" else Precision.FP32
    return spec.precision


def _build(
    kind: str,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    spec: ModelSpec,
    precision: Precision,
    place: torch.device,
) -> gpt2.Gpt2 | marian.Marian | Bert:
    if kind == gpt2.MODEL_TYPE:
        return gpt2.Gpt2(config, Weights(tensors, precision=precision, device=place, prefixes=gpt2.PREFIXES))
    if kind == marian.MODEL_TYPE:
        return marian.Marian(config, Weights(tensors, precision=precision, device=place, prefixes=marian.PREFIXES))
    weights = Weights(tensors, precision=precision, device=place, prefixes=bert.PREFIXES)
    return Bert(config, weights, spec.head, spec.pooling)
