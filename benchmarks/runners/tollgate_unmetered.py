"""Tollgate's server without its toll: no key is looked up, nothing is limited, held, journaled or entered in the books.

What the toll costs is the difference to `tollgate_http`. This lives beside the benchmarks and not in the application:
no setting, flag or variable of a server leads here, so nobody serves for free by accident.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import app.main
from app.admission.authenticate import Authenticator, Principal
from app.admission.buckets import Ask, LocalBuckets
from app.admission.limits import Limits, Permit, Standing
from app.cli.main import main
from app.clock import SystemClock
from app.metering.books import Books
from app.metering.ledger import Admission, Outcome, Receipt, Usage
from benchmarks.runners.tollgate_http import TollgateHttp

ANYBODY = Principal(
    tenant_id="tenant_anybody", tenant="anybody", key_id="key_anybody", key_name="anybody", is_admin=False, tasks=None,
    models=None, weight=1.0,
)  # fmt: skip


class NoKeys(Authenticator):
    """Everybody may come in."""

    async def authenticate(self, presented: str | None, peer: str | None) -> Principal:
        return ANYBODY

    @asynccontextmanager
    async def watch(self, principal: Principal) -> AsyncGenerator[asyncio.Event]:
        yield asyncio.Event()


class NoLimits(Limits):
    """As much as anybody likes."""

    @asynccontextmanager
    async def permit(self, principal: Principal, **asked: Any) -> AsyncGenerator[Permit]:
        ask = Ask(request_id=asked["request_id"], tenant_id=principal.tenant_id, limits=(), tokens=0)
        yield Permit(ask, LocalBuckets(clock=SystemClock()))

    def standing(self, principal: Principal) -> list[Standing]:
        return []


class NoBooks(Books):
    """Nothing is written down."""

    async def open(self, admission: Admission) -> Admission:
        return dataclasses.replace(admission, admitted_us=1)

    def abandon(self, admission: Admission) -> None:
        pass

    def note(self, admission: Admission, delivered: Usage) -> None:
        pass

    async def settle(self, admission: Admission, outcome: Outcome, usage: Usage) -> Receipt:
        return Receipt(
            request_id=admission.request_id, outcome=outcome, input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens, cost_nano=0, currency="USD",
        )  # fmt: skip


def make(precision: str) -> TollgateHttp:
    """See make_runner."""
    return TollgateHttp(precision, command=__name__)


if __name__ == "__main__":
    app.main.Authenticator, app.main.Limits, app.main.Books = NoKeys, NoLimits, NoBooks
    main()
