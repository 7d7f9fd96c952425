"""Every table that Tollgate keeps. Money is integer nano-units; times are UTC microseconds since 1970, as integers."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)  # fmt: skip

NAMES = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)
SERIAL = BigInteger().with_variant(Integer, "sqlite")

tenant = Table(
    "tenant",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("weight", Integer, nullable=False, server_default="1"),
    Column("created_us", BigInteger, nullable=False),
    Column("status", String(20), nullable=False, server_default="active"),
    Column("tier", String(40), nullable=False, server_default="standard"),
    Column("requests_per_minute", BigInteger, nullable=True),
    Column("tokens_per_minute", BigInteger, nullable=True),
    Column("concurrent_requests", BigInteger, nullable=True),
    Column("alert_percents", JSON(none_as_null=True), nullable=True),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=False, index=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("pepper_id", String(16), nullable=False),
    Column("display", String(40), nullable=False),
    Column("name", String(200), nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("tasks", JSON, nullable=True),
    Column("models", JSON, nullable=True),
    Column("networks", JSON, nullable=True),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=True),
    Column("revoked_us", BigInteger, nullable=True),
    Column("replaced_by", String(40), nullable=True),
    Column("last_used_us", BigInteger, nullable=True),
    Column("acts", JSON, nullable=True),
    Column("requests_per_minute", BigInteger, nullable=True),
    Column("tokens_per_minute", BigInteger, nullable=True),
    Column("concurrent_requests", BigInteger, nullable=True),
)

# `key_id` names a key, or a tenant when all of its keys are concerned.
key_change = Table(
    "key_change",
    metadata,
    Column("sequence", SERIAL, primary_key=True, autoincrement=True),
    Column("key_id", String(40), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

# Rows are never changed, but for `details` and `salt`, which an erasure empties: the chain binds their digest.
audit_log = Table(
    "audit_log",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("act", String(60), nullable=False),
    Column("target", String(40), nullable=False),
    Column("tenant_id", String(40), nullable=True, index=True),
    Column("details", JSON, nullable=True),
    Column("salt", LargeBinary(16), nullable=True),
    Column("details_digest", LargeBinary(32), nullable=False),
    Column("pepper_id", String(16), nullable=False),
    Column("chain", LargeBinary(32), nullable=False),
)

price = Table(
    "price",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=True),
    Column("model", String(200), nullable=False),
    Column("task", String(40), nullable=False),
    Column("meter", String(20), nullable=False),
    Column("pico_per_unit", BigInteger, nullable=False),
    Column("effective_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Index("ix_price_lookup", "model", "task", "meter", "effective_us"),
)

hold = Table(
    "hold",
    metadata,
    Column("request_id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=False),
    Column("key_id", String(40), ForeignKey("api_key.id"), nullable=False),
    Column("model", String(200), nullable=False),
    Column("task", String(40), nullable=False),
    Column("route", String(100), nullable=False),
    Column("prices", JSON, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("characters", BigInteger, nullable=False),
    Column("replica_id", String(40), nullable=False, index=True),
    Column("admitted_us", BigInteger, nullable=False),
    Column("windows", JSON, nullable=False, server_default="[]"),
)

usage_entry = Table(
    "usage_entry",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("occurred_us", BigInteger, nullable=False, index=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=False),
    Column("key_id", String(40), ForeignKey("api_key.id"), nullable=False),
    Column("model", String(200), nullable=False),
    Column("task", String(40), nullable=False),
    Column("route", String(100), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("characters", BigInteger, nullable=False),
    Column("prices", JSON, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("replica_id", String(40), nullable=False),
    Index("ix_usage_entry_tenant_time", "tenant_id", "occurred_us"),
)


def rollup(name: str, moment: str) -> Table:
    """Sums of entries by what they have in common."""
    return Table(
        name,
        metadata,
        Column(moment, BigInteger, primary_key=True),
        Column("tenant_id", String(40), primary_key=True),
        Column("key_id", String(40), primary_key=True),
        Column("model", String(200), primary_key=True),
        Column("task", String(40), primary_key=True),
        Column("requests", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("cost_nano", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False, server_default="0"),
        Column("characters", BigInteger, nullable=False, server_default="0"),
    )


usage_hour = rollup("usage_hour", "hour_us")
usage_day = rollup("usage_day", "day_us")
# The sums of entries that are no longer here (pruning.py): with those that are, they make the other two.
usage_pruned = rollup("usage_pruned", "hour_us")

budget = Table(
    "budget",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=False),
    Column("key_id", String(40), ForeignKey("api_key.id"), nullable=True),
    Column("scope_id", String(40), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("limit_nano", BigInteger, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("scope_id", "kind"),
)

budget_window = Table(
    "budget_window",
    metadata,
    Column("budget_id", String(40), ForeignKey("budget.id"), primary_key=True),
    Column("window_us", BigInteger, primary_key=True, autoincrement=False),
    Column("limit_nano", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("alert_nano", BigInteger, nullable=True, server_default="0"),
    Column("alert_from_nano", BigInteger, nullable=False, server_default="0"),
    Column("pruned_nano", BigInteger, nullable=False, server_default="0"),
)

# What a replica has set aside of a budget for the time when the database is away: part of the window's `held_nano`.
budget_lease = Table(
    "budget_lease",
    metadata,
    Column("replica_id", String(40), primary_key=True),
    Column("budget_id", String(40), ForeignKey("budget.id"), primary_key=True),
    Column("window_us", BigInteger, primary_key=True, autoincrement=False),
    Column("amount_nano", BigInteger, nullable=False),
    Index("ix_budget_lease_window", "budget_id", "window_us"),
)

top_up = Table(
    "top_up",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("budget_id", String(40), ForeignKey("budget.id"), nullable=False, index=True),
    Column("amount_nano", BigInteger, nullable=False),
    Column("note", String(200), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("reference_hash", String(64), nullable=True, unique=True),
)

budget_charge = Table(
    "budget_charge",
    metadata,
    Column("request_id", String(40), ForeignKey("usage_entry.id"), primary_key=True),
    Column("budget_id", String(40), ForeignKey("budget.id"), primary_key=True),
    Column("window_us", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Index("ix_budget_charge_window", "budget_id", "window_us"),
)

# Who serves: a living process moves its `beat` on. `folder` is where its journal lies, on a disk that may be shared.
replica = Table(
    "replica",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("beat", BigInteger, nullable=False),
    Column("folder", String(1000), nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant_id", String(40), primary_key=True),
    Column("key_hash", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("request_id", String(40), nullable=False),
    Column("state", String(10), nullable=False),
    Column("replica_id", String(40), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False, index=True),
)

# An alert goes out once for a window and a limit; `reached` is a percentage, or `refused`.
budget_alert = Table(
    "budget_alert",
    metadata,
    Column("budget_id", String(40), ForeignKey("budget.id"), primary_key=True),
    Column("window_us", BigInteger, primary_key=True, autoincrement=False),
    Column("limit_nano", BigInteger, primary_key=True, autoincrement=False),
    Column("reached", String(10), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)

# Its secret is made of its id and the pepper, and stored nowhere.
webhook = Table(
    "webhook",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=True),
    Column("url", String(2000), nullable=False),
    Column("pepper_id", String(16), nullable=False),
    Column("secret_number", Integer, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("webhook_id", String(40), ForeignKey("webhook.id"), nullable=False),
    Column("tenant_id", String(40), nullable=True),
    Column("type", String(60), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_us", BigInteger, nullable=False),
    Column("lease_id", String(40), nullable=True),
    Column("status", Integer, nullable=True),
    Column("error", String(200), nullable=True),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=True),
    Index("ix_webhook_delivery_due", "state", "next_us"),
)

# Who takes usage events; entries are queued for each that was seen lately.
usage_feed = Table(
    "usage_feed",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("seen_us", BigInteger, nullable=False),
)

usage_event = Table(
    "usage_event",
    metadata,
    Column("feed", String(40), primary_key=True),
    Column("entry_id", String(40), primary_key=True),
    Column("leased_until_us", BigInteger, nullable=False),
    Column("lease_id", String(40), nullable=True),
)

pepper_use = Table(
    "pepper_use",
    metadata,
    Column("pepper_id", String(16), primary_key=True),
    Column("activated_us", BigInteger, nullable=False),
)
