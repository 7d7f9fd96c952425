"""Where a webhook may go. A customer's URL must not reach what only this machine can: its network, say.

The address that was checked is the one that is connected to, so a name cannot change its mind in between.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from typing import Any, cast
from urllib.parse import urlsplit

import httpcore

from app.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.ip_network("64:ff9b::/96")
URL_LENGTH_MAX = 2000


class Refused(Exception):
    """This address may not be connected to."""


def checked_url(url: str, allowed_hosts: Collection[str]) -> str:
    """A URL that may be tried: https, or http to a host that the operator allows. Raises InvalidRequest."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as cause:
        raise InvalidRequest("url is no URL", field="url") from cause
    if not host or len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequest(f"url must be a URL in at most {URL_LENGTH_MAX} ASCII characters", field="url")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidRequest("url must have no user, password or fragment", field="url")
    if port == 0:
        raise InvalidRequest("url has no such port", field="url")
    is_allowed = host in {allowed.lower() for allowed in allowed_hosts}
    if parts.scheme != "https" and not (parts.scheme == "http" and is_allowed):
        raise InvalidRequest(
            "url must begin with https:// (webhooks.allowed_hosts names the hosts to which http is allowed)",
            field="url",
        )
    return url


def is_public(address: Address) -> bool:
    """Whether everybody on the internet could reach the same place there."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None,))[0]
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_loopback or address.is_link_local
    )


def is_permitted(address: Address, networks: Collection[Network]) -> bool:
    """Public, or in a network that the operator allows."""
    return is_public(address) or any(address in network for network in networks if network.version == address.version)


async def looked_up(host: str, port: int) -> list[Any]:
    """What the machine's resolver says, as socket.getaddrinfo does."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def resolved(host: str, port: int, networks: Collection[Network]) -> Address:
    """An address of the host. Raises Refused when any of its addresses is not permitted, or there is none."""
    try:
        found = await looked_up(host, port)
        addresses = [ipaddress.ip_address(str(place[4][0]).partition("%")[0]) for place in found]
    except (OSError, UnicodeError, ValueError) as cause:
        raise Refused("the host's name has no address") from cause
    if not addresses:
        raise Refused("the host's name has no address")
    if not all(is_permitted(address, networks) for address in addresses):
        raise Refused("the host's address is not public; webhooks.allowed_networks may allow it")
    return addresses[0]


class CheckedConnections(httpcore.AsyncNetworkBackend):
    """Opens connections only to permitted addresses. TLS still checks the certificate against the host's name."""

    def __init__(self, networks: Collection[Network]) -> None:
        self._networks = networks
        self._plain = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())  # pyright: ignore[reportUnknownMemberType]

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,  # noqa: ASYNC109
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        """See httpcore. Raises Refused."""
        address = await resolved(host, port, self._networks)
        return await self._plain.connect_tcp(str(address), port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        """Never."""
        raise Refused("sockets of this machine are not for webhooks")

    async def sleep(self, seconds: float) -> None:
        """See httpcore."""
        await asyncio.sleep(seconds)
