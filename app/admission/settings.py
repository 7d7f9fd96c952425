"""Admission's slice of the settings: rate limits."""

from pydantic import BaseModel, ConfigDict, Field

from app.secret import SecretUrl


class TierLimits(BaseModel):
    """What each key, and the tenant as a whole, may use when no limit of its own is set; null is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, ge=1, description="Requests a minute.")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="Tokens a minute, read and written.")
    concurrent_requests: int | None = Field(default=None, ge=1, description="Requests at the same time.")


GENEROUS = TierLimits(requests_per_minute=60_000, tokens_per_minute=60_000_000)


class LimitSettings(BaseModel):
    """Rate limits: where they are counted, and what holds for tenants that have none of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    redis_url: SecretUrl | None = Field(
        default=None, description="A Redis (redis://, rediss:// or unix://) that replicas share; null counts in memory."
    )
    redis_timeout_s: float = Field(default=0.1, gt=0, le=5, description="Longest wait for Redis in a request.")
    replicas: int = Field(
        default=1, ge=1, description="How many replicas share the limits; each enforces its share when Redis is away."
    )
    tiers: dict[str, TierLimits] = Field(
        default_factory=lambda: {"standard": GENEROUS},
        description="Limits of a tenant by its tier; a tier that is not named has none.",
    )
