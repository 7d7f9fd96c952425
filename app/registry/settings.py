"""The registry's slice of the settings."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

GIBIBYTE = 2**30


class RegistrySettings(BaseModel):
    """Which models there are, and how much memory they may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    catalogue: Path | None = Field(None, description="A catalogue in place of the shipped models/catalog.yaml.")
    enable: tuple[str, ...] = Field((), description="Ids that are enabled although the catalogue disables them.")
    disable: tuple[str, ...] = Field((), description="Ids that are disabled although the catalogue enables them.")
    memory_bytes: int = Field(
        8 * GIBIBYTE, ge=0, description="Memory for all resident models; 0 sets no bound. The least used goes first."
    )
    load_wait_s: float = Field(
        60.0, ge=0, description="How long a request waits for its model to be loaded before it is told to come back."
    )
    hub_endpoint: str | None = Field(None, description="The hub's address; None takes huggingface_hub's own default.")
