"""Observability's slice of the settings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Board = Literal["vllm", "tgi", "te"]


class ObservabilitySettings(BaseModel):
    """What metrics and traces are told, and to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics_compat: tuple[Board, ...] = Field(
        default=(),
        description="Also export metrics under the names of vLLM (vllm), text-generation-inference (tgi) or "
        "text-embeddings-inference (te), so that boards and autoscalers made for them work.",
    )
    traces_endpoint: str | None = Field(
        default=None,
        description="Where traces go, over OTLP and HTTP: http://collector:4318/v1/traces; null sends none.",
    )
    traces_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced; one whose traceparent says so always is.",
    )
