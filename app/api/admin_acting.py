"""Who acts on an admin route, and how: in one transaction, with its trace in the audit log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Query, Request

from app.api.context import Admin, serving_of
from app.clock import Clock
from app.metering.acts import Operator
from app.metering.database import Database, Work
from app.metering.keys import Pepper
from app.metering.tenants import find_tenant
from app.serving import Serving

T = TypeVar("T")
After = Annotated[str, Query(description="The last id of the page before.")]
PageSize = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
OfTenant = Annotated[str | None, Query(description="Only this tenant's: its id or name.")]


@dataclass(frozen=True, slots=True)
class Desk:
    """What admin routes work with; main.py puts it into the application's state."""

    database: Database
    clock: Clock
    pepper: Pepper


@dataclass(frozen=True, slots=True)
class Acting:
    """One operator's request."""

    operator: Operator
    desk: Desk
    serving: Serving

    async def do(self, work: Work[T]) -> T:
        """Run an act of the operator's; when it returns, this replica has taken note of it."""
        done = await self.desk.database.run(work)
        await self.serving.notice_changes()
        return done

    async def read(self, act: str, work: Work[T]) -> T:
        """Read what `act` allows to be read. Raises NotAllowed."""
        self.operator.require(act)
        return await self.desk.database.run(work)

    async def read_page(
        self, act: str, listed: Callable[..., list[T]], shown: Callable[[T], Any], *,
        tenant: str | None, after: Any, limit: int, **chosen: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """A page of what `listed` finds after `after`, of one tenant or of all. Raises NotAllowed, NotFound."""

        def work(connection: Any) -> list[T]:
            tenant_id = None if tenant is None else find_tenant(connection, tenant).id
            return listed(connection, after=after, limit=limit + 1, tenant_id=tenant_id, **chosen)

        return page(await self.read(act, work), limit, shown)

    async def note(self, act: str, target: str, details: dict[str, Any]) -> None:
        """Write down an act that changes nothing in the database. Raises NotAllowed."""
        self.operator.require(act)
        await self.desk.database.run(
            lambda connection: self.operator.note(connection, act=act, target=target, details=details)
        )


async def acting(request: Request, principal: Admin) -> Acting:
    """The operator behind an admin key."""
    desk = cast("Desk", request.app.state.desk)
    operator = Operator(actor=f"key:{principal.key_id}", clock=desk.clock, pepper=desk.pepper, acts=principal.acts)
    return Acting(operator, desk, serving_of(request))


Acts = Annotated[Acting, Depends(acting)]


def page(found: list[T], limit: int, shown: Callable[[T], Any]) -> dict[str, Any]:
    """A page of what was read with one more than `limit`."""
    return {"object": "list", "data": [shown(one) for one in found[:limit]], "has_more": len(found) > limit}
