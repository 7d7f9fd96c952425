"""Lays a small delta over the base weights inside an installed package and writes a standard Hugging Face folder.

Nothing here knows a task or a model: the delta's metadata says how it is laid. No torch and no transformers.

A delta is a safetensors file. Its names are those of the finished model; its metadata holds

- `format`: "tollgate-overlay/1";
- `base_sha256`: the base file's hash;
- `prefix`: put before every base name ("bert." makes `pooler.dense.bias` into `bert.pooler.dense.bias`); may be empty;
- `dropped`: JSON list of base names that the finished model does not have;
- `scale`: the factor of the low-rank pairs.

A pair `<name>.lora_a` `(rank, inputs)`, `<name>.lora_b` `(outputs, rank)` turns the base's W `(outputs, inputs)` into
W + scale * B @ A (Hu et al., "LoRA", section 4.1). Any other tensor of the delta replaces the base's, or is added.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no argument

FORMAT = "tollgate-overlay/1"
DELTA_FILE = "delta.safetensors"
WEIGHTS_FILE = "model.safetensors"
BASE_FILES = "tokenizer.json,vocab.txt"
STARTER_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
OUTPUT_TYPES = ("float32", "float16")

Tensor = NDArray[np.generic]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the delta's metadata asks for."""

    base_sha256: str
    prefix: str
    dropped: frozenset[str]
    scale: float


def assemble_overlay(
    *,
    package_folder: Path,
    starter_folder: Path,
    target: Path,
    options: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write the finished model into `target`: weights, config and tokenizer, loadable without a network.

    `options`: `base` is the folder with the base's model.safetensors, relative to `package_folder` (required);
    `base_files` names the files taken from there, parted by commas (default: tokenizer.json,vocab.txt); `dtype` is the
    type of the written weights, float32 (default: the base's own, and the fast one on CPUs) or float16 (half the disk).
    `progress` is told (bytes done, bytes in all). Weights are written last, so that a folder with them is complete.

    Raises ValueError when the package, the starter and the options do not fit together.
    """
    dtype = options.get("dtype", "float32")
    if dtype not in OUTPUT_TYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(OUTPUT_TYPES)} in the catalogue entry.")
    base_folder = _base_folder(package_folder, options)
    base_weights = base_folder / WEIGHTS_FILE
    base_files = [name.strip() for name in options.get("base_files", BASE_FILES).split(",") if name.strip()]
    _refuse_absent([base_weights, *(base_folder / name for name in base_files)], "Reinstall the package")
    _refuse_absent([starter_folder / DELTA_FILE, starter_folder / "config.json"], "Restore the starter folder")

    delta, metadata = _read_all(starter_folder / DELTA_FILE)
    rules = _rules(metadata)
    _refuse_other_base(base_weights, rules.base_sha256)
    target.mkdir(parents=True, exist_ok=True)
    for name in base_files:
        _copy_base_file(base_folder / name, target / name)
    for name in STARTER_FILES:
        if (starter_folder / name).exists():
            shutil.copyfile(starter_folder / name, target / name)
    base, _ = _read_all(base_weights)
    tensors = merge(base=base, delta=delta, rules=rules, dtype=np.dtype(dtype), progress=progress)
    _write_weights(target / WEIGHTS_FILE, tensors)
    if progress is not None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        progress(size, size)


def merge(
    *,
    base: Mapping[str, Tensor],
    delta: Mapping[str, Tensor],
    rules: Rules,
    dtype: np.dtype[Any],
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """The finished model's tensors, floating ones in `dtype`; the arithmetic is done in float32."""
    unknown = sorted(rules.dropped - base.keys())
    if unknown:
        raise ValueError(f"The delta drops {unknown[0]!r}, which the base does not have: they do not belong together.")
    renamed = {rules.prefix + name: tensor for name, tensor in base.items() if name not in rules.dropped}
    whole = {name: tensor for name, tensor in delta.items() if not name.endswith((".lora_a", ".lora_b"))}
    for name, tensor in whole.items():
        if name in renamed and renamed[name].shape != tensor.shape:
            raise ValueError(
                f"Tensor {name!r} has shape {tensor.shape} in the delta but {renamed[name].shape} in the base: "
                "train the starter over this base, or install the base that it was trained over."
            )
    pairs = _pairs(delta, renamed)
    merged = renamed | whole
    bytes_all = sum(tensor.nbytes for tensor in merged.values())
    bytes_done = 0
    tensors: dict[str, Tensor] = {}
    for name, tensor in merged.items():
        tensors[name] = _finished(tensor, pair=pairs.get(name), scale=rules.scale, dtype=dtype)
        bytes_done += tensor.nbytes
        if progress is not None and bytes_done < bytes_all:
            progress(bytes_done, bytes_all)
    return tensors


def _finished(tensor: Tensor, *, pair: Pair | None, scale: float, dtype: np.dtype[Any]) -> Tensor:
    """The tensor with its pair merged; whole numbers (position ids) stay as they are."""
    if not np.issubdtype(tensor.dtype, np.floating):
        return np.ascontiguousarray(tensor)
    floats = tensor.astype(np.float32)
    if pair is not None:
        a, b = pair
        floats = floats + np.float32(scale) * (b @ a)
    return np.ascontiguousarray(floats.astype(dtype))


def _pairs(delta: Mapping[str, Tensor], renamed: Mapping[str, Tensor]) -> dict[str, Pair]:
    """Low-rank pairs (A, B) by the name of the tensor that they change."""
    pairs: dict[str, Pair] = {}
    names = {name.rpartition(".")[0] for name in delta if name.endswith((".lora_a", ".lora_b"))}
    for name in sorted(names):
        a, b = delta.get(f"{name}.lora_a"), delta.get(f"{name}.lora_b")
        if a is None or b is None:
            half = "lora_a" if a is None else "lora_b"
            raise ValueError(f"The delta lacks {name}.{half}: a low-rank pair needs both. Write the delta again.")
        if name in delta:
            raise ValueError(f"The delta both replaces {name!r} and adds a pair to it. Write the delta again.")
        if name not in renamed:
            raise ValueError(
                f"The delta changes {name!r}, which the base does not have: check its prefix and dropped names."
            )
        shape = renamed[name].shape
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != shape:
            raise ValueError(
                f"The pair for {name!r} has shapes {b.shape} @ {a.shape}, which do not make the base's {shape}: "
                "train the starter over this base, or install the base that it was trained over."
            )
        pairs[name] = (a.astype(np.float32), b.astype(np.float32))
    return pairs


def _rules(metadata: Mapping[str, str]) -> Rules:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"The delta's format is {metadata.get('format')!r}, expected {FORMAT!r}: update Tollgate or the starter."
        )
    try:
        dropped: object = json.loads(metadata.get("dropped", "[]"))
        scale = float(metadata.get("scale", "1.0"))
        base_sha256 = metadata["base_sha256"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"The delta's metadata cannot be read ({error!r}): write the delta again.") from error
    if not isinstance(dropped, list) or not all(isinstance(name, str) for name in cast("list[object]", dropped)):
        raise ValueError("The delta's `dropped` must be a JSON list of names: write the delta again.")
    return Rules(base_sha256, metadata.get("prefix", ""), frozenset(cast("list[str]", dropped)), scale)


def _base_folder(package_folder: Path, options: Mapping[str, str]) -> Path:
    if "base" not in options:
        raise ValueError("The option `base` is missing: name the folder with model.safetensors inside the package.")
    folder = (package_folder / options["base"]).resolve()
    if not folder.is_relative_to(package_folder.resolve()):
        raise ValueError(f"The option `base` ({options['base']!r}) leads out of the package. Correct it.")
    return folder


def _refuse_absent(paths: list[Path], remedy: str) -> None:
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path.name} is not in {path.parent}. {remedy}.")


def _refuse_other_base(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ValueError(
            f"The base {path} has sha256 {digest}, but the delta was trained over {expected}: "
            "install the package version that the catalogue names."
        )


def _read_all(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file."""
    try:
        with cast("Any", safe_open)(str(path), framework="numpy") as opened:
            tensors = {str(name): cast("Tensor", opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
            return tensors, cast("dict[str, str]", opened.metadata() or {})
    except (SafetensorError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as safetensors in a type that numpy knows ({error}): install or fetch it again."
        ) from error


def _copy_base_file(source: Path, target: Path) -> None:
    """A tokenizer.json loses its preset truncation and padding: whoever serves the model decides on lengths."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.name != "tokenizer.json":
        shutil.copyfile(source, target)
        return
    tokenizer: dict[str, object] = json.loads(source.read_text(encoding="utf-8"))
    tokenizer |= {"truncation": None, "padding": None}
    target.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file(cast("Any", tensors), partial, metadata={"format": "pt"})
    partial.replace(path)
