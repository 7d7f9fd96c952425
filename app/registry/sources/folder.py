"""A folder on this machine."""

from pathlib import Path

from app.errors import SourceError
from app.registry.model import FolderSource


def locate(source: FolderSource, *, catalogue_folder: Path) -> Path:
    """The folder itself. Raises SourceError when there is none."""
    folder = (catalogue_folder / Path(source.path).expanduser()).resolve()
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}; correct `folder` in the catalogue")
    return folder
