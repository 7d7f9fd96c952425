"""An entry of the ledger as a CloudEvent (1.0, JSON): ids, counts and costs, never a name, a prompt or an output."""

from collections.abc import Mapping
from typing import Any

from app.metering.database import moment_of
from app.metering.money import decimal_text

TYPE = "tollgate.usage"
BATCH_TYPE = "application/cloudevents-batch+json"


def event_of(entry: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`id` is the entry's (the request's) id, the same each time; `subject` is the tenant's."""
    return {
        "specversion": "1.0", "id": entry["id"], "source": source, "type": TYPE, "subject": entry["tenant_id"],
        "time": moment_of(entry["occurred_us"]).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "key_id": entry["key_id"], "model": entry["model"], "task": entry["task"], "route": entry["route"],
            "outcome": entry["outcome"], "requests": 1, "input_tokens": entry["input_tokens"],
            "cached_tokens": entry["cached_tokens"], "output_tokens": entry["output_tokens"],
            "characters": entry["characters"], "cost_nano": entry["cost_nano"],
            "cost": decimal_text(entry["cost_nano"]), "currency": entry["currency"],
            "duration_ms": entry["duration_ms"],
        },
    }  # fmt: skip
