"""The long output of a finished job, read from the store by one follower at its own pace."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from service.live.outputs import Piece
from service.store.long_texts import StoredResult


class StoredOutput:
    """A place in the output. Raises StoreError, when it is read, where it is deleted meanwhile."""

    def __init__(self, result: StoredResult) -> None:
        self.attempt = result.attempt
        self.is_read = False
        """Nothing follows."""
        self._result = result
        self._pieces = self._numbered()
        self._next: Piece | None = None
        self._place = 0

    async def skip(self, offset: int) -> bool:
        """Go on to a place; False when there is no such place."""
        while self._place < offset:
            piece = await self._take()
            if piece is None:
                return False
            if piece.end > offset:
                begin = piece.end - len(piece.data)
                self._next = piece._replace(data=piece.data[max(0, offset - begin) :])
                self._place = offset
        return self._place == offset

    async def read(self) -> list[Piece]:
        """The next stretch; empty at the end."""
        piece = await self._take()
        self.is_read = piece is None
        return [] if piece is None else [piece]

    async def begin_anew(self) -> None:
        """Go back to the beginning."""
        await self._pieces.aclose()
        self._pieces, self._next, self._place, self.is_read = self._numbered(), None, 0, False

    async def _take(self) -> Piece | None:
        piece, self._next = self._next, None
        if piece is None:
            piece = await anext(self._pieces, None)
        if piece is not None:
            self._place = piece.end
        return piece

    async def _numbered(self) -> AsyncGenerator[Piece, None]:
        end = 0
        async for found in self._result.pieces():
            data = found.data
            end += len(data)
            if data:
                yield Piece(end, found.kind, data)
