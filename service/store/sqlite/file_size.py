"""How much of SQLite's file is in use, and free room given back to the disk."""

from __future__ import annotations

from service.store.database import Database, Statement

_AT_ONCE_BYTES = 1 << 20
"""What is moved at a time, so that no other write waits long for it."""
_PAGES = """
    SELECT page_size, page_count, freelist_count FROM pragma_page_size, pragma_page_count, pragma_freelist_count
"""


async def used_bytes(database: Database) -> int:
    """What the pages take that are not free."""
    [(page_bytes, pages, free)] = await database.read(_PAGES, {})
    return int(page_bytes * (pages - free))


async def given_back(database: Database, above_bytes: int) -> bool:
    """Shorten a file that is larger than that, where it has free pages; whether it has more to give."""
    [(page_bytes, pages, free)] = await database.read(_PAGES, {})
    count = min(free, pages - above_bytes // page_bytes, _AT_ONCE_BYTES // page_bytes)
    if count <= 0:
        return False
    await database.write(Statement(f"PRAGMA incremental_vacuum({count})", {}))
    # A file that another program has made anew may not be one that can be shortened.
    [(_, left, _)] = await database.read(_PAGES, {})
    return bool(left < pages)
