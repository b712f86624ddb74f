"""Admission: how many crops an engine has under way, and when it is offered new ones.

In steady state each decode step frees a few places. Filling them one by one makes the vision tower run at every step, on a
few crops, bound by launches; offering crops only when `wave` places are free lets it run seldom and large. Measured with
one engine on an H200: 6.3 pages/s without, 11.0 with waves of 64 and twice the places. Invariant: at most `places` are
under way; whoever waits is admitted in the order of asking, at the latest when nothing is under way any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Admission:
    """Belongs to one event loop."""

    def __init__(self, places: int, wave: int) -> None:
        self._places = places
        self._wave = min(wave, places)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._offering = False
        self.under_way = 0
        self.most = 0  # under way at once, so far

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Waits for a place and holds it while the context lasts."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        self._offer_soon()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                self._leave()  # admitted and cancelled in the same turn of the loop
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self.under_way -= 1
        self._offer_soon()

    def _offer_soon(self) -> None:
        """In the loop's next turn: whoever asks or leaves in this one is counted in."""
        if not self._offering:
            self._offering = True
            asyncio.get_running_loop().call_soon(self._offer)

    def _offer(self) -> None:
        self._offering = False
        if self.under_way and self._places - self.under_way < self._wave:
            return
        while self._waiting and self.under_way < self._places:
            ticket = self._waiting.popleft()
            if not ticket.cancelled():
                ticket.set_result(None)
                self.under_way += 1
        self.most = max(self.most, self.under_way)
