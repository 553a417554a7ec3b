"""How far the reply to one attempt may grow, and how much of it is held."""

from __future__ import annotations

from service.backend.protocols import Reader
from service.endpoints import ENDPOINTS, Kind
from service.errors import OUTPUT_TOO_LARGE, BackendError, Fault
from service.live.held_replies import FREE_BYTES, GrowingReply, HeldPart, HeldReplies
from service.scheduling.assignment import Running

_RELAYED_TIMES = 4
"""How many times longer than a text a relayed reply may be: it is JSON with a frame around each token."""
_BYTES_OF_NUMBER = 32
"""The most that a number of a vector takes: it has up to 24 characters, and a comma."""


class ReplyGrowth:
    """What has come of a reply, against the bounds of its own and the one of all that are held in memory."""

    __slots__ = ("_gathered", "_growing", "_most_bytes", "_reader", "_replies", "_running")

    def __init__(self, running: Running, reader: Reader, replies: HeldReplies) -> None:
        is_of_numbers = ENDPOINTS[running.job.endpoint].kind is Kind.EMBEDS
        times = _BYTES_OF_NUMBER if is_of_numbers else _RELAYED_TIMES
        self._most_bytes = times * running.output.max_bytes
        self._running = running
        self._reader = reader
        self._replies = replies
        self._growing: GrowingReply | None = None
        self._gathered: HeldPart | None = None

    def check(self, kept_back: int) -> GrowingReply | None:
        """To be called after each piece; ``kept_back`` bytes are held by the attempt itself. What must have its turn
        before the reply may grow further; None where there is room, and for a stream that is passed on as it comes.
        Raises BackendError for one that is too long.
        """
        output, relay, numbers = self._running.output, self._running.relay, self._reader.numbers
        received = kept_back if relay is None else relay.size + kept_back
        if output.is_too_large or numbers > output.max_bytes or received > self._most_bytes:
            raise self._too_long()
        if received <= FREE_BYTES and output.size <= FREE_BYTES:
            return None
        self.weigh(kept_back)
        growing = self._growing
        return None if growing is None or growing.is_taken or self._replies.has_room_for(growing) else growing

    def weigh(self, kept_back: int) -> None:
        """Count what is held of the reply, once that is much."""
        output, relay = self._running.output, self._running.relay
        # A line whose end has not come is gathered for the caller, too.
        gathered_bytes = 2 * self._reader.gathered_bytes + kept_back
        if self._growing is None:
            relayed_bytes = relay.held_bytes if relay is not None else 0
            if output.size + gathered_bytes + relayed_bytes <= FREE_BYTES:
                return
            self._growing = self._replies.reply(self._running.job.owner)
            self._gathered = self._growing.part()
            output.held_part = self._growing.part(is_untaken=False)
            if relay is not None:
                relay.held_part = self._growing.part()
        if self._gathered is not None:
            self._gathered.set(gathered_bytes)
        if output.held_part is not None:
            output.held_part.set(output.size)
        if relay is not None and relay.held_part is not None:
            relay.held_part.set(relay.held_bytes)

    def _too_long(self) -> BackendError:
        most, most_bytes = self._running.output.max_bytes, self._most_bytes
        if self._running.output.is_too_large:
            what = f"the answer is longer than {most} bytes (output.max_bytes)"
        elif self._reader.numbers > most:
            what = f"the reply holds more than {most} numbers (output.max_bytes)"
        else:
            what = f"the reply is longer than {most_bytes} bytes (as JSON: {most_bytes // most} times output.max_bytes)"
        remedy = "ask for less at once, or have output.max_bytes raised"
        return BackendError(f"{what}; {remedy}", code=OUTPUT_TOO_LARGE, fault=Fault.PERMANENT)
