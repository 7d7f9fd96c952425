"""Where webhooks may go: https to public addresses, and only where the operator says so to others."""

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from app.delivery.addresses import CheckedConnections, Refused, checked_url, is_permitted, is_public, resolved
from app.errors import InvalidRequest

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:db8::1",
    ],
)  # fmt: skip
def test_what_only_this_machine_can_reach_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not is_permitted(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_the_operator_may_allow_a_network_and_no_more() -> None:
    assert is_permitted(ipaddress.ip_address("127.0.0.1"), LOOPBACK)
    assert not is_permitted(ipaddress.ip_address("10.0.0.1"), LOOPBACK)
    assert not is_permitted(ipaddress.ip_address("::1"), LOOPBACK)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://", "https:///x", "https://user:pw@example.com/",
        "https://user@example.com/", "https://example.com:99999/", "https://example.com:0/", "https://exa mple.com/",
        "https://example.com/\r\nx", "https://example.com/#x", "//example.com/", "example.com", "https://[::1",
        "http://inside.evil/", "https://example.com/" + "x" * 2000, "https://exämple.com/",
    ],
)  # fmt: skip
def test_what_is_no_address_for_webhooks_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_url(url, ["inside"])
    assert refused.value.field == "url"


def test_https_and_allowed_hosts_are_taken_as_they_are() -> None:
    for url in ("https://example.com/hooks?a=b", "https://example.com:8443/", "http://inside:8080/x"):
        assert checked_url(url, ["INSIDE"]) == url


async def test_a_name_with_one_private_address_is_refused_and_no_name_is_looked_up_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def answers(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = ["8.8.8.8", "127.0.0.1"] if host == "mixed.test" else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    monkeypatch.setattr("app.delivery.addresses.looked_up", answers)
    with pytest.raises(Refused, match="not public"):
        await resolved("mixed.test", 443, ())
    stream = await CheckedConnections(LOOPBACK).connect_tcp("turns.test", port)
    assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
    assert asked == ["mixed.test", "turns.test"], "the address that was checked is the one that is connected to"
    await stream.aclose()
    listening.close()


async def test_a_real_name_of_this_machine_is_refused() -> None:
    with pytest.raises(Refused, match="not public"):
        await CheckedConnections(()).connect_tcp("localhost", 80)
    with pytest.raises(Refused, match="sockets"):
        await CheckedConnections(LOOPBACK).connect_unix_socket("/run/docker.sock")
