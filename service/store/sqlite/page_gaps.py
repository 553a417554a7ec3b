"""What SQLite leaves behind between the entries of its pages.

When SQLite moves entries from one page of a table to another it does not always overwrite where they stood, not even
with ``secure_delete``: the page has no entry there any more, but the bytes (https://sqlite.org/fileformat2.html, "the
unallocated region"). They are never read. So they can be overwritten in the file itself, while nothing is in the log
and nobody writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

_LEAF, _INTERIOR = 0x0D, 0x05
"""The types of a table's pages."""
_LEAF_HEAD, _INTERIOR_HEAD = 8, 12
_DATABASE_HEAD = 100
"""At the beginning of the first page."""
_ZEROS = bytes(1 << 16)


class DatabaseFile:
    """The pages of a database, as they are in its file. Nobody must write it, and its log must be empty.

    It must stay open as long as a connection of this process is: to close any file of a database drops the locks that
    the process holds on it (https://sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)

    @cached_property
    def _head(self) -> bytes:
        """It never changes in what is read of it here, but is there only since the first checkpoint."""
        return os.pread(self._file, _DATABASE_HEAD, 0)

    @cached_property
    def _page_bytes(self) -> int:
        size = int.from_bytes(self._head[16:18])
        return 65_536 if size == 1 else size

    @property
    def _usable_bytes(self) -> int:
        return self._page_bytes - self._head[20]

    def close(self) -> None:
        os.close(self._file)

    def leaves(self, root: int, ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
        """The pages of a table that hold the rows whose numbers are in these ranges, which are in order and apart, and
        those between which such rows would be. ``root`` is the table's first page.
        """
        page = self._read(root)
        start = _DATABASE_HEAD if root == 1 else 0
        if page[start] != _INTERIOR:
            yield root
            return
        below = -(1 << 63)
        for child, last in self._children(page, start):
            inside = [(low, high) for low, high in ranges if low <= last and high > below]
            if inside:
                yield from self.leaves(child, inside)
            below = last

    def clear_gaps(self, pages: Iterable[int]) -> int:
        """Overwrite what is between the heads and the entries of these pages; in how many there was anything."""
        cleared = 0
        for number in pages:
            page = self._read(number)
            start = _DATABASE_HEAD if number == 1 else 0
            if page[start] != _LEAF:
                continue
            begin = start + _LEAF_HEAD + 2 * int.from_bytes(page[start + 3 : start + 5])
            end = int.from_bytes(page[start + 5 : start + 7]) or 65_536
            if begin < end <= self._usable_bytes and any(page[begin:end]):
                os.pwrite(self._file, _ZEROS[: end - begin], (number - 1) * self._page_bytes + begin)
                cleared += 1
        if cleared:
            os.fdatasync(self._file)
        return cleared

    def _children(self, page: bytes, start: int) -> Iterator[tuple[int, int]]:
        """The pages below one, each with the largest number of a row in it."""
        for cell in range(int.from_bytes(page[start + 3 : start + 5])):
            place = start + _INTERIOR_HEAD + 2 * cell
            at = int.from_bytes(page[place : place + 2])
            yield int.from_bytes(page[at : at + 4]), _varint(page, at + 4)
        yield int.from_bytes(page[start + 8 : start + 12]), 1 << 63

    def _read(self, number: int) -> bytes:
        return os.pread(self._file, self._page_bytes, (number - 1) * self._page_bytes)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _varint(data: bytes, at: int) -> int:
    """A number as SQLite writes it, of one to nine bytes. Those of rows are never negative here."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value
    return value << 8 | data[at + 8]
