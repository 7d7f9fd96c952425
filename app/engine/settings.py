"""The engine's slice of the settings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """How much the engine takes on at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["inline", "child"] = Field(
        "child",
        description="Where the engine runs: in a child process, which is started again when it dies, or inline, in the "
        "server's own process.",
    )
    device: str = Field(
        "cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where models run: cpu, cuda, or cuda:<index>."
    )
    threads: int = Field(0, ge=0, description="CPU threads for tensor work; 0 takes all cores.")
    slots: int = Field(
        32, ge=1, le=1024, description="Rows that one decoder model decodes at a time (beams count as rows)."
    )
    step_tokens: int = Field(
        0, ge=0, description="Tokens that one decode step may process, prompt chunks included. 0 takes 512 on a CPU "
        "and 8192 on a GPU, which reads them in a few milliseconds.",
    )  # fmt: skip
    prefix_tokens: int = Field(
        16, ge=0, description="A prompt that begins with at least so many tokens of an earlier one of the same tenant "
        "reuses the work on them; 0 turns it off.",
    )  # fmt: skip
    encode_tokens: int = Field(
        0, ge=0, description="Tokens that one encoder batch may hold; a longer input is a batch by itself. 0 takes 512 "
        "on a CPU, whose caches larger ones outgrow, and 8192 on a GPU.",
    )  # fmt: skip
    queue_jobs: int = Field(1024, ge=1, description="Waiting jobs beyond which new ones are refused at once.")
    hang_s: float = Field(
        30.0, ge=2, description="Seconds after which an engine that says nothing, or is over one step, is killed and "
        "started again. Loading a model is no step."
    )  # fmt: skip
    event_queue: int = Field(
        256, ge=1, description="Token events held per job for a slow reader before its row pauses."
    )
