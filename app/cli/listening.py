"""The sockets that a server accepts from."""

import socket

from app.api.settings import ApiSettings
from app.errors import SettingsError

BACKLOG = 2048


def listen_all(api: ApiSettings) -> list[socket.socket]:
    """Of everybody first, then of operators, where they have a port of their own. Raises SettingsError."""
    ports = [api.port] if api.admin_port is None else [api.port, api.admin_port]
    return [listen(api.host, port) for port in ports]


def listen(host: str, port: int) -> socket.socket:
    """A socket of one address. Raises SettingsError when it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as cause:
        raise SettingsError(f"cannot listen on {host}:{port}: {cause}; choose another --host or --port") from cause
    return listener
