"""Operators' routes and keys are good from their own networks only; elsewhere there are no such routes."""

import re
from ipaddress import ip_network
from typing import Any

from tests.fixtures.server import Running

OUTSIDE, INSIDE = {"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "10.1.2.3"}


def fence(server: Running) -> None:
    """As behind a balancer: operators are in 10.0.0.0/8."""
    settings = server.app.state.settings
    networks = {"trusted_proxies": [ip_network("127.0.0.0/8")], "admin_networks": [ip_network("10.0.0.0/8")]}
    server.app.state.settings = settings.model_copy(update={"api": settings.api.model_copy(update=networks)})


def operators_routes(server: Running) -> list[tuple[str, str]]:
    """Method and address of every route that the OpenAPI document files under operators."""
    paths: dict[str, dict[str, Any]] = server.app.openapi()["paths"]
    return [
        (method, re.sub(r"\{[^}]*\}", "x", path))
        for path, methods in paths.items()
        for method, route in methods.items()
        if any(tag.startswith(("admin", "organization")) for tag in route.get("tags", []))
    ]


async def test_from_elsewhere_there_are_no_routes_for_operators(server: Running) -> None:
    fence(server)
    routes = operators_routes(server)
    assert len(routes) > 40
    nothing = await server.client.get("/nothing", headers=OUTSIDE)
    for method, path in routes:
        for key in (server.admin_key, server.key, "noise"):
            headers = OUTSIDE | {"authorization": f"Bearer {key}"}
            answer = await server.client.request(method, path, headers=headers, json={} if method != "get" else None)
            assert answer.status_code == 404, (method, path, answer.text)
            assert answer.json()["error"] == nothing.json()["error"], (method, path)


async def test_an_admin_s_key_is_refused_elsewhere_and_good_inside(server: Running) -> None:
    fence(server)
    key = {"authorization": f"Bearer {server.admin_key}"}
    refused = await server.client.get("/v1/models", headers=OUTSIDE | key)
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "key_not_allowed"
    assert (await server.client.get("/admin/keys", headers=INSIDE | key)).status_code == 200
    assert (await server.client.get("/v1/models", headers=INSIDE | key)).status_code == 200
    assert (await server.client.get("/v1/models", headers=OUTSIDE)).status_code == 200
