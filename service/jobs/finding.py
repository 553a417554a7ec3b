"""Finding all jobs that a filter means, however many there are, between other work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from service.jobs.searching import SliceSize
from service.store.job_filters import Filter
from service.store.job_queries import JobQueries

_MOST_IDS = 10_000
"""Jobs that are looked up at a time."""
_FIRST_TEXTS = 4
"""Jobs whose texts are looked through together at first. Any of them may be very long."""


async def found_ids(queries: JobQueries, which: Filter, newest: int) -> AsyncIterator[list[str]]:
    """The ids of the jobs of one status up to the number ``newest``, the oldest first. Texts are looked through in
    slices, like a search's: other scans go on between two of them.
    """
    loop, size = asyncio.get_running_loop(), SliceSize(_FIRST_TEXTS)
    without_text, first, is_more = which._replace(text=None), 0, True
    while is_more:
        most = _MOST_IDS if which.text is None else min(_MOST_IDS, size.entries)
        found = await queries.ids(without_text, first, newest, most)
        is_more = len(found) == most
        if which.text is not None and found:
            begun, last = loop.time(), found[-1][0]
            matching = await queries.ids(which, first, last, most)
            size.took(loop.time() - begun)
        else:
            matching = found
        if found:
            first = found[-1][0] + 1
            yield [job_id for _, job_id in matching]
