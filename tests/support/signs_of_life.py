"""Telling signs of life from a reply, and waiting until so many of them were sent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import aiohttp
import pytest

from service.api.dropin.caller_stream import CallerStream
from tests.support.running import PATIENCE_SECONDS

OFTEN = {"queue.heartbeat_seconds": 0.02}
"""So often that a test sees several at once. How often it really is depends on the machine; tests count them."""

_AT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def is_sign(path: str, piece: bytes) -> bool:
    """Whether this line or event is a sign of life; fails for one that is not in the shape of its endpoint."""
    if path == "/v1/messages":
        return piece == b'event: ping\ndata: {"type":"ping"}\n\n'
    if path.startswith("/v1/"):
        return piece == b": waiting\n\n"
    line = json.loads(piece)
    is_empty = line.get("response", line.get("message", {}).get("content")) == ""
    if line.get("done") is not False or not is_empty or not _AT.fullmatch(line["created_at"]):
        return False
    content = {"response": ""} if path == "/api/generate" else {"message": {"role": "assistant", "content": ""}}
    assert line == {"model": line["model"], "created_at": line["created_at"], **content, "done": False}
    return True


class Reading:
    """A stream as one caller reads it, at once and piece by piece, the signs of life apart; for ``async with``."""

    def __init__(self, path: str, response: aiohttp.ClientResponse) -> None:
        self.path = path
        self.response = response
        self.signs = 0
        self.body = b""
        """Without the signs of life."""
        self.is_whole = False
        self._news = asyncio.Event()

    async def __aenter__(self) -> Reading:
        # Not only when somebody asks: aiohttp's client forgets what has come when the connection breaks behind it.
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def sees(self, signs: int) -> None:
        """Wait until so many more signs of life have come."""
        until = self.signs + signs
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.signs < until:
                assert not self._task.done(), f"the stream has ended: {self.body!r}"
                self._news.clear()
                await self._news.wait()

    async def ends(self) -> None:
        """Wait for its end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._task

    async def _read(self) -> None:
        end = b"\n" if self.path.startswith("/api/") else b"\n\n"
        came = b""
        try:
            async for data in self.response.content.iter_any():
                came += data
                while (place := came.find(end)) >= 0:
                    piece, came = came[: place + len(end)], came[place + len(end) :]
                    if is_sign(self.path, piece):
                        self.signs += 1
                    else:
                        self.body += piece
                self._news.set()
            self.is_whole = True
        except aiohttp.ClientPayloadError:
            pass
        finally:
            self._news.set()
        assert came == b"", "something was cut in two"


class Signs:
    """How many were sent, over all callers of this process."""

    def __init__(self) -> None:
        self.sent = 0
        self._news = asyncio.Condition()

    async def note(self) -> None:
        self.sent += 1
        async with self._news:
            self._news.notify_all()

    async def until_more(self, count: int) -> None:
        """Wait until so many more have been sent."""
        wanted = self.sent + count
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: self.sent >= wanted)


@contextmanager
def counted_signs() -> Iterator[Signs]:
    """Count them, for clients that do not show them."""
    signs, beat = Signs(), CallerStream.beat

    async def counted(stream: CallerStream, headers: Mapping[str, str]) -> None:
        await beat(stream, headers)
        await signs.note()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallerStream, "beat", counted)
        yield signs
