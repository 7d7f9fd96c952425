"""What a key or a tenant may use in a minute and at once, as the tables hold it. admission/limits.py enforces it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from app.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """Limits of one key or tenant; None sets none (a tenant then has its tier's)."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value: int | None = getattr(self, name)
            if value is not None and not 1 <= value < 2**53:
                raise InvalidRequest(f"{name} must be at least 1; to refuse everything, suspend or revoke", field=name)

    def over(self, default: "LimitRule") -> "LimitRule":
        """These limits, and the default's where there is none."""
        return LimitRule(
            requests_per_minute=self.requests_per_minute or default.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute or default.tokens_per_minute,
            concurrent_requests=self.concurrent_requests or default.concurrent_requests,
        )


NO_LIMITS = LimitRule()


def rule_of(row: RowMapping, prefix: str = "") -> LimitRule:
    """The limits in a row."""
    values: dict[str, Any] = {name: row[prefix + name] for name in LimitRule.__dataclass_fields__}
    return LimitRule(**values)
