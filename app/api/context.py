"""What every route needs of a request: the caller's key, the request's id, and the rooms behind it."""

import re
from typing import Annotated

from fastapi import Depends, Request

from app.admission.authenticate import Principal
from app.serving import Serving

CLIENT_ID = re.compile(r"[\x21-\x7e]{1,128}")


def serving_of(request: Request) -> Serving:
    """The road, put into the application's state by main.py."""
    return request.app.state.serving


def presented_key(request: Request) -> str | None:
    """The key as clients send it: `Authorization: Bearer`, or `x-api-key`."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("x-api-key")


async def authenticated(request: Request) -> Principal:
    """Raises MissingKey or InvalidKey. Runs before the body is looked at."""
    return await serving_of(request).authenticate(presented_key(request))


async def admin(request: Request) -> Principal:
    """Raises NotAllowed unless the key is an admin's."""
    principal = await authenticated(request)
    principal.require_admin()
    return principal


def request_id_of(request: Request) -> str:
    """This request's own id, made once; the ledger's entry bears it."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = serving_of(request).new_request_id()
    return request.state.request_id


Caller = Annotated[Principal, Depends(authenticated)]
Admin = Annotated[Principal, Depends(admin)]
Rooms = Annotated[Serving, Depends(serving_of)]
RequestId = Annotated[str, Depends(request_id_of)]
