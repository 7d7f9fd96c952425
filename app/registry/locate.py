"""From a catalogue's entry to a folder on this machine, whichever source it names."""

from collections.abc import Callable
from pathlib import Path

from app.registry.model import FolderSource, HubSource, Model, PackageSource
from app.registry.settings import RegistrySettings
from app.registry.sources import folder, hub, package


def locate(
    model: Model,
    *,
    catalogue_folder: Path,
    home: Path,
    settings: RegistrySettings,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fetch, assemble or find the model's Hugging Face folder. Blocking. Raises SourceError or VerificationFailed."""
    match model.source:
        case FolderSource():
            return folder.locate(model.source, catalogue_folder=catalogue_folder)
        case HubSource():
            return hub.locate(model, model.source, cache=home / "hub", endpoint=settings.hub_endpoint)
        case PackageSource():
            return package.locate(
                model, model.source, catalogue_folder=catalogue_folder, cache=home / "models", progress=progress
            )
