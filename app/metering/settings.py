"""Metering's slice of the settings."""

from pydantic import BaseModel, ConfigDict, Field

from app.secret import SecretUrl


class MeteringSettings(BaseModel):
    """Where the ledger is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database_url: SecretUrl | None = Field(
        None, description="postgresql://user:password@host/database for several replicas; null is SQLite in `home`."
    )
    connections: int = Field(8, ge=1, le=100, description="Connections to PostgreSQL that this replica opens at most.")
    start_wait_s: float = Field(
        120.0, ge=0, description="How long a start waits for PostgreSQL, before it gives up with exit code 1."
    )
    escrow_share: float = Field(
        0.1, ge=0, le=0.5,
        description="Part of what a budget has left that a replica may set aside for when PostgreSQL is away.",
    )  # fmt: skip
    dead_after_s: float = Field(
        120.0, ge=1, description="How long a replica is silent before others settle what it held."
    )
    replay_bytes: int = Field(
        64 * 2**20, ge=0, description="Memory for answers that an Idempotency-Key may replay; 0 keeps none."
    )
    replay_s: float = Field(600.0, ge=0, description="How long such an answer is kept.")
    issuer: str = Field("", max_length=1000, description="Who sends invoices: name and address, a line each.")

    @property
    def opened_url(self) -> str | None:
        """The URL with its password, for who opens it."""
        return None if self.database_url is None else self.database_url.get_secret_value()
