"""What the admin routes read and show: tenants, keys, limits, the audit log."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.metering.limits import LimitRule
from app.registry.model import TaskName

Amount = Annotated[int, Field(ge=1, lt=2**53)]
Networks = Annotated[list[str], Field(description="CIDR, such as 192.0.2.0/24.", examples=[["192.0.2.0/24"]])]
LIMITS: dict[str, Any] = {"requests_per_minute": 600, "tokens_per_minute": 100_000, "concurrent_requests": 8}
TENANT: dict[str, Any] = {
    "id": "tenant_019aef…", "name": "acme", "weight": 1, "status": "active", "tier": "standard",
    "created_at": "2026-11-24T07:00:00+00:00", "limits": LIMITS,
}  # fmt: skip
KEY: dict[str, Any] = {
    "id": "key_019aef…", "tenant_id": "tenant_019aef…", "tenant": "acme", "weight": 1, "name": "web",
    "display": "sk-tg-Ab12cd…Wx9z", "is_admin": False, "replaced_by": None, "tasks": ["translation"], "models": None,
    "networks": None, "acts": None, "created_at": "2026-11-24T07:00:00+00:00", "expires_at": None, "revoked_at": None,
    "last_used_at": None, "limits": LIMITS,
}  # fmt: skip


class AdminBody(BaseModel):
    """An unknown field is refused: it is most likely a typo."""

    model_config = ConfigDict(extra="forbid")

    def given(self) -> dict[str, Any]:
        """The fields that were sent, null included."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class LimitsBody(AdminBody):
    """Limits; null or absent sets none: a tenant then has its tier's."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [LIMITS]})

    requests_per_minute: Amount | None = None
    tokens_per_minute: Amount | None = None
    concurrent_requests: Amount | None = None

    def rule(self) -> LimitRule:
        """As the rooms know it."""
        return LimitRule(**self.model_dump())


class TenantBody(AdminBody):
    """A tenant to make."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "acme", "weight": 2, "limits": LIMITS}]}
    )

    name: str = Field(description="Unique; what lists and usage show.")
    weight: int = Field(default=1, ge=1, le=1000, description="Its share when many tenants wait.")
    tier: str = Field(default="standard", description="Which of limits.tiers holds where it has no limit of its own.")
    limits: LimitsBody = Field(default_factory=LimitsBody)


class TenantChangeBody(AdminBody):
    """What to change of a tenant."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"weight": 4}]})

    name: str = ""
    weight: int = Field(default=1, ge=1, le=1000)
    tier: str = ""


class ErasureBody(AdminBody):
    """What is erased is gone, so the name is asked for again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"confirm": "acme"}]})

    confirm: str = Field(description="The tenant's name.")


class ScopesBody(AdminBody):
    """What a key may be used for; null allows all."""

    tasks: list[TaskName] | None = None
    models: list[str] | None = Field(default=None, description="Ids, or patterns as in a shell.")
    networks: Networks | None = None
    acts: list[str] | None = Field(default=None, description="For an admin key: acts, or patterns such as `key.*`.")
    expires: str | None = Field(default=None, description="A length from now (90d) or a date in ISO 8601.")


class KeyBody(ScopesBody):
    """A key to make."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"tenant": "acme", "name": "web", "tasks": ["translation"], "expires": "90d", "limits": LIMITS}
            ]
        },
    )

    tenant: str = Field(description="Whose key it is: a name; a new one makes a new tenant.")
    name: str
    is_admin: bool = False
    limits: LimitsBody = Field(default_factory=LimitsBody)


class KeyChangeBody(ScopesBody):
    """What to change of a key; a field that is absent stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"networks": ["192.0.2.0/24"]}]})

    name: str = ""


class RotationBody(AdminBody):
    """How long the old key lives beside its successor."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap": "24h"}]})

    overlap: str = Field(default="24h", description="Such as 0s, 30m, 24h.")
    expires: str | None = Field(default=None, description="When the successor ends: as in POST /admin/keys.")


class TenantShown(BaseModel):
    """A tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [TENANT]})

    id: str
    name: str
    weight: int
    status: Literal["active", "suspended", "erased"]
    tier: str
    created_at: str
    limits: LimitsBody


class KeyShown(BaseModel):
    """A key, without the key."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEY]})

    id: str
    tenant_id: str
    tenant: str
    weight: int
    name: str
    display: str
    is_admin: bool
    tasks: list[str] | None
    models: list[str] | None
    networks: list[str] | None
    acts: list[str] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    replaced_by: str | None
    limits: LimitsBody


class NewKeyShown(KeyShown):
    """A key at its birth."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "sk-tg-…", **KEY}]})

    key: str = Field(description="Shown this once: only its digest is stored.")


class TenantList(BaseModel):
    """A page of tenants, oldest first."""

    object: Literal["list"] = "list"
    data: list[TenantShown]
    has_more: bool


class KeyList(BaseModel):
    """A page of keys, oldest first."""

    object: Literal["list"] = "list"
    data: list[KeyShown]
    has_more: bool


class AuditRow(BaseModel):
    """An act."""

    sequence: int
    at: str
    actor: str = Field(examples=["key:key_019aef…"])
    act: str = Field(examples=["key.create"])
    target: str
    tenant_id: str | None
    details: dict[str, Any] | None = Field(description="What changed: before and after; null once it was erased.")
    chain: str = Field(description="The row's signature, which covers the row before it.")


class AuditList(BaseModel):
    """A page of the audit log, oldest first."""

    object: Literal["list"] = "list"
    data: list[AuditRow]
    has_more: bool


class AuditVerdict(BaseModel):
    """What a walk along the chain found."""

    is_sound: bool
    rows: int
    head: str = Field(description="Note it elsewhere; given back as `head`, it proves that nothing was cut off.")
    faults: list[str]
