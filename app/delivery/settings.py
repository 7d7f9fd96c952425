"""Delivery's slices of the settings: webhooks and usage events."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork

from app.secret import SecretText, SecretUrl

Seconds = Annotated[float, Field(ge=0, le=7 * 86_400)]


class WebhookSettings(BaseModel):
    """How webhooks are delivered, and where they may go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_hosts: list[str] = Field(
        default_factory=list, description="Hosts to which http (not only https) is allowed, on any port."
    )
    allowed_networks: list[IPvAnyNetwork] = Field(
        default_factory=list, description="Private networks that webhooks may reach; public addresses always may be."
    )
    timeout_s: float = Field(default=10.0, gt=0, le=60, description="Longest that one attempt may take.")
    retry_s: tuple[Seconds, ...] = Field(
        default=(5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400),
        description="Waits between attempts, each up to a tenth longer; after the last one the message is dead.",
    )
    kept_days: int = Field(default=30, ge=1, description="How long delivered messages stay in the database.")


class EventSettings(BaseModel):
    """Where the ledger's entries go as CloudEvents; nothing: nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path | None = Field(default=None, description="Append events to this file, a JSON object a line.")
    file_bytes_max: int = Field(default=64 * 2**20, ge=1024, description="Begin another file at this size.")
    url: SecretUrl | None = Field(default=None, description="Post events here, in batches of JSON.")
    token: SecretText | None = Field(default=None, description="Sent to `url` as `Authorization: Bearer`.")
    secret: SecretText | None = Field(
        default=None, description="whsec_…: signs what is posted to `url`, as Standard Webhooks says."
    )
    batch: int = Field(default=100, ge=1, le=1000, description="Events that go out together, at most.")
    source: str = Field(default="tollgate", min_length=1, max_length=200, description="The events' `source`.")
