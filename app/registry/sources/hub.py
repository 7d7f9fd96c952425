"""A repository on the Hugging Face hub, kept in the data folder's cache at its pinned commit."""

from pathlib import Path
from typing import Any, cast

import huggingface_hub
from httpx import HTTPError
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from app.errors import SourceError
from app.registry.model import HubSource, Model

PATTERNS = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja")
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
PICKLES = ("pytorch_model.bin",)
LEFT_OUT = ("*/[!c]*", "*/*/*")
"""What lies in a repository's folders, but for their config.json: sentence-transformers says in one how to pool."""


def locate(model: Model, source: HubSource, *, cache: Path, endpoint: str | None = None) -> Path:
    """The snapshot's folder, complete: fetched, resumed, or found in the cache when there is no network.

    Shows huggingface_hub's own progress bars where standard error is a terminal. Raises SourceError saying what to do.
    """
    patterns = [*PATTERNS, *WEIGHTS, *(PICKLES if model.allow_pickle else ())]
    fetch = cast("Any", huggingface_hub).snapshot_download
    try:
        return Path(
            fetch(
                source.repo, revision=source.revision, cache_dir=cache, endpoint=endpoint, allow_patterns=patterns,
                ignore_patterns=list(LEFT_OUT),
            )
        )  # fmt: skip
    except GatedRepoError as cause:
        raise SourceError(f"{source.repo} is gated: accept its terms on the hub and set HF_TOKEN") from cause
    except RevisionNotFoundError as cause:
        raise SourceError(f"{source.repo} has no revision {source.revision}; correct it in the catalogue") from cause
    except RepositoryNotFoundError as cause:
        raise SourceError(f"the hub has no repository {source.repo}, or HF_TOKEN may not read it") from cause
    except LocalEntryNotFoundError as cause:
        raise SourceError(
            f"{source.repo}@{source.revision} is not in the cache and the hub cannot be reached "
            f"(or HF_HUB_OFFLINE is set); run `tollgate models pull {model.id}` where there is a network"
        ) from cause
    except EntryNotFoundError as cause:
        raise SourceError(f"{source.repo}@{source.revision} lacks a file: {first_line(cause)}") from cause
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as cause:
        raise SourceError(
            f"{source.repo} could not be fetched ({first_line(cause)}); run it again to resume"
        ) from cause


def commit_of(folder: Path) -> str:
    """The commit of a snapshot: the name of its folder."""
    return folder.name


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
