"""One POST to somebody else's server: bounded in time, in what is read, and in where it goes; no redirects."""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import httpcore

from app.delivery.addresses import CheckedConnections, Network, Refused

ANSWER_BYTES_MAX = 16 * 1024
AT_ONCE = 8
FAILURES = (
    httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol,
    ssl.SSLError, OSError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: a status, or none and why; never the answer's body."""

    status: int | None
    error: str | None

    @property
    def has_arrived(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None

    @property
    def is_final(self) -> bool:
        """Whether the receiver said that it is gone for good."""
        return self.status == 410


class Sender:
    """A few connections to receivers."""

    def __init__(self, *, networks: Collection[Network], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), max_connections=AT_ONCE, http1=True, http2=False, retries=0,
            keepalive_expiry=15.0, network_backend=CheckedConnections(networks),
        )  # fmt: skip

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once. Every failure comes back as an Answer."""
        step_s = self._timeout_s / 2
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), step_s)
        sent = {"content-length": str(len(body)), "user-agent": "tollgate-webhooks", **headers}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._pool.stream(
                    "POST", url, headers=list(sent.items()), content=body, extensions={"timeout": timeouts}
                ) as response,
            ):
                read = 0
                async for part in response.aiter_stream():
                    read += len(part)
                    if read > ANSWER_BYTES_MAX:
                        break
                status = response.status
        except Refused as error:
            return Answer(None, str(error))
        except TimeoutError:
            return Answer(None, f"no answer within {self._timeout_s:g} s")
        except FAILURES as error:
            return Answer(None, f"no connection: {type(error).__name__}")
        if 300 <= status < 400:
            return Answer(status, f"status {status}: redirects are not followed; give the webhook its final address")
        return Answer(status, None if 200 <= status < 300 else f"status {status}")

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
