"""The API's slice of the settings."""

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork


class ApiSettings(BaseModel):
    """Where the server listens, and what it accepts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(default=1, ge=1, le=64, description="Processes that answer HTTP; all share one engine.")
    trusted_proxies: list[IPvAnyNetwork] = Field(
        default_factory=list, description="Networks of proxies whose X-Forwarded-For tells the caller's address."
    )
    admin_networks: list[IPvAnyNetwork] = Field(
        default_factory=list, description="Networks that operators' routes and keys may be used from; elsewhere the "
        "routes do not exist and the keys are refused. [] is everywhere."
    )  # fmt: skip
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="A port for operators' routes and keys, and /metrics: on `port` there are none.",
    )
    body_bytes_max: int = Field(default=2 * 2**20, ge=1024, description="Largest request body.")
    connections_max: int = Field(default=4096, ge=1, description="Open connections a process; more get 503.")
    header_bytes_max: int = Field(default=32 * 2**10, ge=1024, description="Largest head of a request, with its URL.")
    headers_max: int = Field(default=100, ge=10, description="Most header lines of a request.")
    header_timeout_s: float = Field(
        default=10.0, gt=0, description="How long a connection may take to send a request's head, once it has begun."
    )
    body_timeout_s: float = Field(default=60.0, gt=0, description="How long it may then take to send the body.")
    drain_delay_s: float = Field(
        default=0.0, ge=0, description="How long requests are still accepted after SIGTERM, while /readyz already says "
        "no: longer than a balancer takes to notice. 0 without a balancer."
    )  # fmt: skip
    drain_s: float = Field(
        default=30.0, ge=0, description="How long running requests may then go on, before they are cut off and settled."
    )
    keep_alive_s: float = Field(default=15.0, gt=0, description="Silence in a stream after which a comment is sent.")
    queue_wait_s: float = Field(
        default=30.0, gt=0, description="Longest predicted wait for the engine at which a request is still taken on; "
        "beyond it 503 with retry-after, at once."
    )  # fmt: skip
    request_timeout_s: float = Field(default=600.0, gt=0, description="Longest a request may take, streams included.")
    model_aliases: list[str] = Field(
        default_factory=lambda: ["tgi", "dummy"],
        description="Names that stand for the catalogue's first model of the task, as clients send; [] for none.",
    )
