"""The toll around a request: a hold when it is admitted, one entry when it leaves, whatever happens in between."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.errors import DeadlineExceeded, KeyRevoked, RequestCancelled, StorageUnavailable
from app.metering.books import Books
from app.metering.ledger import Admission, Outcome, Receipt, Usage

HOLD_TOKENS = 64
"""For how many more output tokens a growing text holds money at a time."""


class Reservation:
    """An admitted request's account: open, then settled, once."""

    def __init__(self, *, books: Books, admission: Admission, is_streaming: bool) -> None:
        self.admission = admission
        self.receipt: Receipt | None = None
        self.delivered = Usage()
        self.is_streaming = is_streaming
        self._books = books
        self._held_tokens = admission.output_tokens_at_first
        self._is_refused = False

    def note(self, delivered: Usage) -> None:
        """What the customer will have been given with the next piece; cheap, called before each leaves."""
        self.delivered = delivered
        if self.is_streaming:
            self._books.note(self.admission, delivered)

    async def allow(self, delivered_tokens: int, more_tokens: int) -> int:
        """How many of `more_tokens` may still be delivered; fewer when the budgets cover no more."""
        if not self.admission.windows:
            return more_tokens
        wanted = delivered_tokens + more_tokens
        if wanted > self._held_tokens and not self._is_refused:
            asked = max(wanted, min(self._held_tokens + HOLD_TOKENS, self.admission.output_tokens_max))
            try:
                self._held_tokens = await self._books.extend(
                    self.admission, held_tokens=self._held_tokens, wanted_tokens=asked
                )
            except StorageUnavailable:
                self._is_refused = True
            self._is_refused |= self._held_tokens < wanted
        return max(0, min(more_tokens, self._held_tokens - delivered_tokens))

    def covered(self, output_tokens: int) -> int:
        """So many of them as money is held for."""
        return min(output_tokens, self._held_tokens) if self.admission.windows else output_tokens

    async def settle(self, outcome: Outcome, usage: Usage) -> Receipt:
        """Commit the entry. Await this before the last chunk: what is shown is then durable. Repeating is harmless."""
        self.receipt = await self._books.settle(self.admission, outcome, usage)
        return self.receipt


class Gate:
    """Admits requests against the ledger of one replica."""

    def __init__(self, *, books: Books) -> None:
        self._books = books

    @asynccontextmanager
    async def admit(self, admission: Admission, *, is_streaming: bool = True) -> AsyncGenerator[Reservation]:
        """Hold money, and settle on leaving if the road has not: cancelled, timed out or failed.

        A failure of ours, or a key's end, costs nothing unless a part of the answer had left; a customer who breaks a
        request off pays for what was read and delivered, or produced where the answer was to be whole.
        """
        admission = await self._opened(admission)
        reservation = Reservation(books=self._books, admission=admission, is_streaming=is_streaming)
        outcome = Outcome.CANCELLED
        try:
            yield reservation
        except DeadlineExceeded:
            outcome = Outcome.TIMEOUT
            raise
        except RequestCancelled:
            raise
        except KeyRevoked:
            outcome = Outcome.KEY_REVOKED
            raise
        except Exception:
            outcome = Outcome.FAILED
            raise
        finally:
            if reservation.receipt is None:
                is_free = outcome is not Outcome.CANCELLED and not is_streaming
                used = Usage() if is_free else reservation.delivered
                await asyncio.shield(asyncio.create_task(reservation.settle(outcome, used)))

    async def _opened(self, admission: Admission) -> Admission:
        """Opening is never cut short: a caller that is cancelled meanwhile was not admitted, and holds nothing."""
        opening = asyncio.ensure_future(self._books.open(admission))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._books.abandon(await opening)
            raise
