"""Turns a Mozilla "tiny" translation model inside an installed package into a standard Hugging Face Marian folder.

The package holds marian-nmt's binary with weights of eight bits. Its decoder's two recurrent sublayers (SSRU) have no
place in MarianMTModel; a committed delta brings distilled self-attention in their stead (models/recipes/translation).
No torch and no transformers.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

Weights = dict[str, NDArray[np.float32]]
Progress = Callable[[int, int], None]
FLOAT32, INT8 = 0x404, 0x4101
"""Type codes of marian-nmt's binary: float32, and intgemm's eight bits with one factor at the end."""
FLOAT_BYTES = 4
HEADER_FIELDS = 4
DELTA_FILE = "delta.safetensors"
DELTA_PREFIX = "model.decoder.layers."
ENCODER_LAYERS = 6
DECODER_LAYERS = 2
STARTER_FILES = ("config.json", "generation_config.json", "tokenizer_config.json")
NO_BIAS = -1e4
"""Logit of the padding entry, which must never be drawn."""


def read_binary(path: Path) -> Weights:
    """The float tensors of a marian-nmt binary; eight-bit matrices come as (outputs, inputs), like torch's Linear.

    Raises ValueError when the file is not one.
    """
    data = path.read_bytes()
    try:
        return _tensors(data)
    except (struct.error, UnicodeDecodeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no marian-nmt binary ({error}): reinstall the package.") from error


def _tensors(data: bytes) -> Weights:
    _version, count = struct.unpack_from("<2Q", data)
    place = 16
    headers = [struct.unpack_from("<4Q", data, place + 32 * index) for index in range(count)]
    place += 32 * count
    names: list[str] = []
    for length, *_ in headers:
        names.append(data[place : place + length - 1].decode())
        place += length
    shapes: list[tuple[int, ...]] = []
    for _, _, dimensions, _ in headers:
        shapes.append(struct.unpack_from(f"<{dimensions}i", data, place))
        place += FLOAT_BYTES * dimensions
    place += 8 + struct.unpack_from("<Q", data, place)[0]
    found: Weights = {}
    for name, (_, kind, _, size), shape in zip(names, headers, shapes, strict=True):
        values = int(np.prod(shape))
        if kind == FLOAT32:
            found[name] = np.frombuffer(data, "<f4", values, place).reshape(shape).copy()
        elif kind == INT8 and not name.endswith("QuantMultA"):
            whole = np.frombuffer(data, np.int8, values, place).astype(np.float32)
            factor = np.frombuffer(data, "<f4", 1, place + values)[0]
            # Every matrix but the embeddings is stored transposed.
            found[name] = (whole / factor).reshape(shape if name == "Wemb" else shape[::-1])
        place += size
    return found


def to_marian(weights: Weights) -> Weights:
    """The same under MarianMTModel's names, without the decoder's self-attention; one zero row more, for padding."""
    embeddings = np.concatenate([weights["Wemb"], np.zeros((1, weights["Wemb"].shape[1]), np.float32)])
    bias = np.concatenate([weights["decoder_ff_logit_out_b"], np.full((1, 1), NO_BIAS, np.float32)], axis=1)
    named: Weights = {"model.shared.weight": embeddings, "final_logits_bias": bias}
    for index in range(ENCODER_LAYERS):
        layer, source = f"model.encoder.layers.{index}", f"encoder_l{index + 1}"
        named |= _attention(weights, source=f"{source}_self", layer=layer, name="self_attn")
        named |= _feed_forward(weights, source=source, layer=layer)
    for index in range(DECODER_LAYERS):
        layer, source = f"model.decoder.layers.{index}", f"decoder_l{index + 1}"
        named |= _attention(weights, source=f"{source}_context", layer=layer, name="encoder_attn")
        named |= _feed_forward(weights, source=source, layer=layer)
        named[f"{layer}.self_attn_layer_norm.weight"] = weights[f"{source}_rnn_ffn_ln_scale"][0]
        named[f"{layer}.self_attn_layer_norm.bias"] = weights[f"{source}_rnn_ffn_ln_bias"][0]
    return named


def _attention(weights: Weights, *, source: str, layer: str, name: str) -> Weights:
    named: Weights = {}
    for ours, theirs in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "o")):
        named[f"{layer}.{name}.{ours}.weight"] = weights[f"{source}_W{theirs}"]
        named[f"{layer}.{name}.{ours}.bias"] = weights[f"{source}_b{theirs}"][0]
    named[f"{layer}.{name}_layer_norm.weight"] = weights[f"{source}_Wo_ln_scale"][0]
    named[f"{layer}.{name}_layer_norm.bias"] = weights[f"{source}_Wo_ln_bias"][0]
    return named


def _feed_forward(weights: Weights, *, source: str, layer: str) -> Weights:
    named: Weights = {}
    for index in (1, 2):
        named[f"{layer}.fc{index}.weight"] = weights[f"{source}_ffn_W{index}"]
        named[f"{layer}.fc{index}.bias"] = weights[f"{source}_ffn_b{index}"][0]
    named[f"{layer}.final_layer_norm.weight"] = weights[f"{source}_ffn_ffn_ln_scale"][0]
    named[f"{layer}.final_layer_norm.bias"] = weights[f"{source}_ffn_ffn_ln_bias"][0]
    return named


def write_vocabulary(spm: Path, target: Path) -> None:
    """MarianTokenizer's three vocabulary files out of one SentencePiece model."""
    pieces: Any = sentencepiece.SentencePieceProcessor()
    pieces.Load(str(spm))
    count = cast("int", pieces.GetPieceSize())
    vocabulary = {cast("str", pieces.IdToPiece(index)): index for index in range(count)} | {"<pad>": count}
    (target / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    for name in ("source.spm", "target.spm"):
        shutil.copyfile(spm, target / name)


def assemble_bergamot(
    *,
    package_folder: Path,
    starter_folder: Path,
    target: Path,
    options: Mapping[str, str],
    progress: Progress | None = None,
) -> None:
    """Write the finished Marian folder into `target`: weights in float16, config and tokenizer.

    `options`: `weights` and `vocabulary` are paths inside the package. Weights are written last, so that a folder with
    them is complete. Raises ValueError when the package, the starter and the options do not fit together.
    """
    paths: dict[str, Path] = {}
    for option in ("weights", "vocabulary"):
        if option not in options:
            raise ValueError(f"The option `{option}` is missing in the catalogue entry.")
        paths[option] = (package_folder / options[option]).resolve()
        if not paths[option].is_relative_to(package_folder.resolve()) or not paths[option].is_file():
            raise ValueError(f"{options[option]} is not in {package_folder}. Reinstall the package.")
    for name in (DELTA_FILE, *STARTER_FILES):
        if not (starter_folder / name).is_file():
            raise ValueError(f"{name} is not in {starter_folder}. Restore the starter folder.")
    target.mkdir(parents=True, exist_ok=True)
    for name in STARTER_FILES:
        shutil.copyfile(starter_folder / name, target / name)
    write_vocabulary(paths["vocabulary"], target)
    tensors = to_marian(read_binary(paths["weights"]))
    delta = cast("Weights", load_file(starter_folder / DELTA_FILE))
    strangers = [name for name in delta if not name.startswith(DELTA_PREFIX)]
    if strangers:
        raise ValueError(f"The delta holds {strangers[0]!r}, which is none of the decoder's layers: write it again.")
    halves = {name: np.ascontiguousarray(tensor.astype(np.float16)) for name, tensor in (tensors | delta).items()}
    size = sum(tensor.nbytes for tensor in halves.values())
    if progress is not None:
        progress(size // 2, size)
    partial = target / "model.partial"
    save_file(cast("Any", halves), partial, metadata={"format": "pt"})
    partial.replace(target / "model.safetensors")
    if progress is not None:
        progress(size, size)
