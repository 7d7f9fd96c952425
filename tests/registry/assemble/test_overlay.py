"""Overlays: base and delta make exactly the tensors that the recipe trained; what does not fit is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app.registry.assemble.overlay import assemble_overlay

save, load = cast("Any", save_file), cast("Any", load_file)


class Kit:
    """A package with a base of two tensors, and a starter folder to write deltas into."""

    def __init__(self, folder: Path) -> None:
        self.package, self.starter, self.target = folder / "package", folder / "starter", folder / "target"
        (self.package / "model").mkdir(parents=True)
        self.starter.mkdir()
        noise = np.random.default_rng(1)
        self.base = {"w": noise.random((3, 4), np.float32), "pooler": noise.random((2,), np.float32)}
        save(self.base, self.package / "model" / "model.safetensors")
        (self.package / "model" / "tokenizer.json").write_text('{"truncation": {"max_length": 9}, "padding": {}}')
        (self.package / "model" / "vocab.txt").write_text("a\n")
        (self.starter / "config.json").write_text("{}")

    def write_delta(self, tensors: dict[str, Any], **changed: str) -> None:
        digest = hashlib.sha256((self.package / "model" / "model.safetensors").read_bytes()).hexdigest()
        metadata = {"format": "tollgate-overlay/1", "base_sha256": digest, "prefix": "bert.", "scale": "2.0"}
        save(tensors, self.starter / "delta.safetensors", metadata=metadata | changed)

    def assemble(self, **options: str) -> dict[str, Any]:
        assemble_overlay(
            package_folder=self.package, starter_folder=self.starter, target=self.target,
            options={"base": "model", **options},
        )  # fmt: skip
        return load(self.target / "model.safetensors")


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


def pair(name: str = "bert.w", *, outputs: int = 3, inputs: int = 4) -> dict[str, Any]:
    noise = np.random.default_rng(2)
    return {
        f"{name}.lora_a": noise.random((2, inputs), np.float32).astype(np.float16),
        f"{name}.lora_b": noise.random((outputs, 2), np.float32).astype(np.float16),
    }


def test_pairs_are_added_and_whole_tensors_laid_over(kit: Kit) -> None:
    delta = pair() | {"head": np.ones((2, 3), np.float32)}
    kit.write_delta(delta, dropped=json.dumps(["pooler"]))
    made = kit.assemble()
    assert set(made) == {"bert.w", "head"}
    b, a = delta["bert.w.lora_b"].astype(np.float32), delta["bert.w.lora_a"].astype(np.float32)
    np.testing.assert_allclose(made["bert.w"], kit.base["w"] + 2.0 * b @ a, rtol=1e-6)
    written = json.loads((kit.target / "tokenizer.json").read_text())
    assert written == {"truncation": None, "padding": None}, "the server decides on lengths, not the file"


def test_half_the_disk_when_asked(kit: Kit) -> None:
    kit.write_delta(pair())
    assert kit.assemble(dtype="float16")["bert.w"].dtype == np.float16


@pytest.mark.parametrize(
    ("delta", "metadata", "options", "message"),
    [
        (pair(outputs=5), {}, {}, "do not make the base's"),
        (pair("bert.other"), {}, {}, "does not have"),
        ({"bert.w.lora_a": np.ones((2, 4), np.float32)}, {}, {}, "lacks bert.w.lora_b"),
        ({"bert.w": np.ones((4, 4), np.float32)}, {}, {}, "has shape"),
        (pair(), {"base_sha256": "0" * 64}, {}, "trained over"),
        (pair(), {"format": "other/9"}, {}, "format"),
        (pair(), {"dropped": '["nothing"]'}, {}, "do not belong together"),
        (pair(), {}, {"base": "../.."}, "leads out of the package"),
        (pair(), {}, {"dtype": "int3"}, "choose one of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_remedy(
    kit: Kit, delta: dict[str, Any], metadata: dict[str, str], options: dict[str, str], message: str
) -> None:
    kit.write_delta(delta, **metadata)
    with pytest.raises(ValueError, match=message):
        kit.assemble(**options)
    assert not (kit.target / "model.safetensors").exists()
