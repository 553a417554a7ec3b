"""What SQLite leaves behind in its pages, where nothing is stored any more.

When SQLite moves entries from one page of a table or an index to another it does not always overwrite where they stood,
not even with ``secure_delete``: the page has no entry there any more, but the bytes (https://sqlite.org/fileformat2.html,
"the unallocated region"). An entry may have stood in any page, and its neighbours there may be far from it by now. What
was written without ``secure_delete``, by an earlier version, is left in free blocks and free pages, too.

All of this is never read. So it can be overwritten in the file itself, while nothing is in the log and nobody writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

_HEADS = {0x02: 12, 0x05: 12, 0x0A: 8, 0x0D: 8}
"""The types of the pages that have entries, and the bytes of their heads."""
_MOST_TOLD_APART = 0x02000000
"""In smaller files no other page begins with one of these types, but for those of the map."""
_DATABASE_HEAD = 100
"""At the beginning of the first page."""
_FREE, _ENTRIES = (2,), (1, 5)
"""What the map of the pages calls those that are free, and those that have entries ("Pointer Map or Ptrmap Pages")."""
_MAP_ENTRY = 5
_LOCKED_BYTE = 1 << 30
"""The page that has it is never used ("The Lock-Byte Page")."""
_ZEROS = bytes(1 << 16)


class DatabaseFile:
    """The pages of a database, as they are in its file. Nobody must write it, and its log must be empty.

    It must stay open as long as a connection of this process is: to close any file of a database drops the locks that
    the process holds on it (https://sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._next: int | None = 1
        self._count = 0

    def close(self) -> None:
        os.close(self._file)

    @property
    def is_clear(self) -> bool:
        """All pages were gone through."""
        return self._next is None

    def begin_anew(self) -> None:
        """More was deleted, in whatever pages."""
        self._next = 1

    def clear(self, is_enough: Callable[[], bool]) -> int:
        """Overwrite what is left behind in the next pages, until it ``is_enough`` for this time; in how many there was
        anything.
        """
        pages = _Pages(self._file)
        if self._next is not None and pages.count < self._count:
            # When the file is shortened, its last pages go to the places of free ones before.
            self._next = 1
        self._count = pages.count
        while self._next is not None:
            self._next = pages.clear_some(self._next)
            if is_enough():
                break
        if pages.cleared:
            os.fdatasync(self._file)
        return pages.cleared


class _Pages:
    """The pages as they are now."""

    def __init__(self, file: int) -> None:
        self._file = file
        head = os.pread(file, _DATABASE_HEAD, 0)
        self._page_bytes = 65_536 if head[16:18] == b"\0\1" else int.from_bytes(head[16:18])
        self._usable_bytes = self._page_bytes - head[20]
        self._first_free = int.from_bytes(head[32:36])
        self._has_map = any(head[52:56])
        self.count = min(int.from_bytes(head[28:32]), os.fstat(file).st_size // self._page_bytes)
        self._lists: dict[int, int] | None = None
        self.cleared = 0

    def clear_some(self, first: int) -> int | None:
        """Clear the pages from one on, up to the next page of the map; where to go on."""
        if first > self.count:
            return None
        # Behind each page of the map are those of which it tells; the first page of all is in none.
        mapped = self._usable_bytes // _MAP_ENTRY
        if not self._has_map:
            # Another program has made the file anew.
            for number in range(first, min(first + mapped, self.count + 1, _MOST_TOLD_APART)):
                self._clear_entries(number)
            return first + mapped
        base = 2 + (max(first, 2) - 2) // (mapped + 1) * (mapped + 1)
        at = base + (base == _LOCKED_BYTE // self._page_bytes + 1)
        kinds = self._read(at)[: mapped * _MAP_ENTRY : _MAP_ENTRY]
        if first == 1:
            self._clear_entries(1)
        for number, kind in enumerate(kinds[: base + mapped - at], at + 1):
            if number > self.count:
                return None
            if kind in _ENTRIES:
                self._clear_entries(number)
            elif kind in _FREE:
                self._clear_free(number)
        return base + mapped + 1

    def _clear_entries(self, number: int) -> None:
        page = self._read(number)
        start = _DATABASE_HEAD if number == 1 else 0
        head = _HEADS.get(page[start])
        if head is not None:
            begin = start + head + 2 * int.from_bytes(page[start + 3 : start + 5])
            end = int.from_bytes(page[start + 5 : start + 7]) or 65_536
            self._clear(number, page, begin, end)
            for begin, end in _free_blocks(page, start):
                self._clear(number, page, begin, end)

    def _clear_free(self, number: int) -> None:
        # Where the page is one of those that name the free ones, its names stay.
        named = self._free_lists().get(number)
        self._clear(number, self._read(number), 0 if named is None else 8 + 4 * named, self._usable_bytes)

    def _free_lists(self) -> dict[int, int]:
        """The pages that name the free ones, and how many each names ("The Freelist")."""
        if self._lists is None:
            self._lists, number = {}, self._first_free
            while 0 < number <= self.count and number not in self._lists:
                head = os.pread(self._file, 8, (number - 1) * self._page_bytes)
                self._lists[number] = int.from_bytes(head[4:8])
                number = int.from_bytes(head[:4])
        return self._lists

    def _clear(self, number: int, page: bytes, begin: int, end: int) -> None:
        # No such place is where the page is damaged.
        if not begin < end <= self._usable_bytes:
            return
        zeros = _ZEROS[: end - begin]
        if page[begin:end] != zeros:
            os.pwrite(self._file, zeros, (number - 1) * self._page_bytes + begin)
            self.cleared += 1

    def _read(self, number: int) -> bytes:
        return os.pread(self._file, self._page_bytes, (number - 1) * self._page_bytes)


def _free_blocks(page: bytes, start: int) -> Iterator[tuple[int, int]]:
    """What is behind the heads of the free blocks between the entries; each head names the next one, further on."""
    at, before = int.from_bytes(page[start + 1 : start + 3]), start
    while before < at <= len(page) - 4:
        yield at + 4, at + int.from_bytes(page[at + 2 : at + 4])
        at, before = int.from_bytes(page[at : at + 2]), at
