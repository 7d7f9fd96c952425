"""The caller's address: the peer's, unless a proxy that is trusted speaks for another."""

import ipaddress

import pytest
from fastapi import Request

from app.api.context import peer_of

TRUSTED = [ipaddress.ip_network("10.0.0.0/8")]


def request(peer: str | None, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    return Request({"type": "http", "client": None if peer is None else (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("203.0.113.9",), "192.0.2.1"),
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("198.51.100.1, 203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("198.51.100.1, 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.1", ("203.0.113.9", "10.0.0.2"), "203.0.113.9"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("nonsense",), "nonsense"),
        (None, ("203.0.113.9",), None),
    ],
)
def test_only_a_trusted_proxy_speaks_for_others(peer: str | None, forwarded: tuple[str, ...], found: str) -> None:
    assert peer_of(request(peer, *forwarded), TRUSTED) == found
