"""Delivery's slice of the settings: webhooks."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork

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
