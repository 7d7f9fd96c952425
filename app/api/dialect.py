"""How a dialect dresses its refusals: a route class whose errors leave in the dialect's own envelope."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.errors import InvalidRequest, TollgateError


def route_in(dress: Callable[[TollgateError], Response]) -> type[APIRoute]:
    """For APIRouter(route_class=…). Bugs are no refusals: they go on to be logged."""

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def dressed(request: Request) -> Response:
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    fault = error.errors()[0]
                    return dress(InvalidRequest(f"{fault['loc'][-1]}: {fault['msg']}", field=str(fault["loc"][-1])))
                except TollgateError as error:
                    return dress(error)

            return dressed

    return DialectRoute
