"""Whether a folder holds what the catalogue promises: files, sizes, hashes, and nothing that could run code."""

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from app.errors import VerificationFailed
from app.registry.model import Model, PackageSource

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "source.spm")


def check_files(model: Model, folder: Path) -> None:
    """The pinned files' sizes and hashes. Raises VerificationFailed naming the first that is missing or another."""
    for file in model.files:
        path = (folder / file.path).resolve()
        if not path.is_file():
            raise VerificationFailed(f"{model.id}: {file.path} is not in {folder}")
        if file.size is not None and path.stat().st_size != file.size:
            raise VerificationFailed(
                f"{model.id}: {path} has {path.stat().st_size} bytes, the catalogue says {file.size}; fetch it again"
            )
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != file.sha256:
            raise VerificationFailed(
                f"{model.id}: {path} has sha256 {found}, the catalogue says {file.sha256}; "
                "it was changed or broken: fetch it again, do not load it"
            )


def verify(model: Model, folder: Path) -> None:
    """Check a located folder before it is loaded. Raises VerificationFailed."""
    if not isinstance(model.source, PackageSource):
        check_files(model, folder)
    try:
        config = cast("dict[str, Any]", json.loads((folder / "config.json").read_text(encoding="utf-8")))
        found = config.get("model_type")
    except (OSError, ValueError, AttributeError) as cause:
        raise VerificationFailed(f"{model.id}: {folder / 'config.json'} cannot be read: {cause}") from cause
    if found != model.family:
        raise VerificationFailed(f"{model.id}: config.json says {found!r}, the catalogue says {model.family!r}")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise VerificationFailed(f"{model.id}: {folder} holds no tokenizer ({', '.join(TOKENIZER_FILES)})")
    if not any(folder.glob("*.safetensors")):
        if not (folder / "pytorch_model.bin").is_file():
            raise VerificationFailed(f"{model.id}: {folder} holds no *.safetensors")
        if not model.allow_pickle:
            raise VerificationFailed(
                f"{model.id}: {folder} holds only pytorch_model.bin, a pickle; convert it to safetensors, "
                "or set allow_pickle: true in the catalogue (it is then read as plain tensors only)"
            )
