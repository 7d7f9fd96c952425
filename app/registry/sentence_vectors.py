"""How a checkpoint's vectors are made, as the files that sentence-transformers writes beside it say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from app.engine.jobs import Pooling
from app.errors import VerificationFailed

LEGACY = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST,
}
"""One switch a mode, as 1_Pooling/config.json was written for years; in the order of concatenation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRules:
    """Pooling is the engine's, the rest the task's. Without the files: the mean, as it is."""

    dimensions: int
    pooling: tuple[Pooling, ...] = (Pooling.MEAN,)
    is_normalised: bool = False
    is_lower_cased: bool = False
    tokens_max: int | None = None
    """What the model was made to read; more would be cut there."""
    prompts: tuple[tuple[str, str], ...] = ()
    """(name, text before every text)."""
    default_prompt: str | None = None
    """The name of the one that is used unless another is asked for."""


def read_rules(folder: Path) -> VectorRules:
    """Read modules.json and what it names. Raises VerificationFailed for a module that is not hosted."""
    width = int(_object(folder / "config.json")["hidden_size"])
    pooling, is_normalised = (Pooling.MEAN,), False
    for module in _modules(folder / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            path = folder / str(module.get("path", "")) / "config.json"
            if not path.resolve().is_relative_to(folder.resolve()):
                raise VerificationFailed(f"{folder / 'modules.json'} names a file outside its folder")
            pooling = _pooling(path)
        elif kind == "Normalize":
            is_normalised = True
        elif kind != "Transformer":
            raise VerificationFailed(f"{folder / 'modules.json'} asks for {kind}, which is not hosted")
    read = _object(folder / "sentence_bert_config.json")
    more = _object(folder / "config_sentence_transformers.json")
    prompts = cast("dict[str, str]", more.get("prompts") or {})
    return VectorRules(
        dimensions=width * len(pooling), pooling=pooling, is_normalised=is_normalised,
        is_lower_cased=bool(read.get("do_lower_case")), tokens_max=read.get("max_seq_length"),
        prompts=tuple(prompts.items()), default_prompt=more.get("default_prompt_name"),
    )  # fmt: skip


def _pooling(path: Path) -> tuple[Pooling, ...]:
    if not path.is_file():
        raise VerificationFailed(f"{path} is missing, which modules.json names; fetch the model's files again")
    found = _object(path)
    if found.get("include_prompt", True) is False:
        raise VerificationFailed(f"{path} leaves prompts out of the pooling, which is not hosted")
    modes: Any = found.get("pooling_mode")
    if modes is None:
        return tuple(mode for name, mode in LEGACY.items() if found.get(name)) or (Pooling.MEAN,)
    try:
        return (Pooling(modes),) if isinstance(modes, str) else tuple(Pooling(mode) for mode in modes)
    except (ValueError, TypeError) as cause:
        raise VerificationFailed(f"{path} asks for {modes!r}; known are {', '.join(Pooling)}") from cause


def _modules(path: Path) -> list[dict[str, Any]]:
    found = _json(path)
    return cast("list[dict[str, Any]]", found) if isinstance(found, list) else []


def _object(path: Path) -> dict[str, Any]:
    found = _json(path)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _json(path: Path) -> object:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise VerificationFailed(f"{path} cannot be read as JSON: {cause}") from cause
