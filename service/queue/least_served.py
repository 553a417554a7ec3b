"""Which of the waiting owners was served least, found without a look at all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping

Lines = Mapping[int, int]
"""Ready jobs of one owner by priority."""
Waiting = Mapping[str, Lines]
"""Ready jobs by owner and priority; no entry is empty."""
Place = tuple[float, int, str]
"""An owner's rank, when it last had a turn, and the owner: who is next has the smallest."""


class LeastServed:
    """Some owners, each with the lowest rank that it can have; it is ranked anew when it comes to the top.

    ``lowest`` and ``place`` say the lowest and the present place of an owner.
    """

    def __init__(self, lowest: Callable[[str], Place], place: Callable[[str, Lines], Place]) -> None:
        self._lowest = lowest
        self._place = place
        self._heap: list[Place] = []
        self._entries: dict[str, Place] = {}
        """The valid entry of each owner; its older ones are passed over."""

    def __contains__(self, owner: str) -> bool:
        return owner in self._entries

    def enter(self, owner: str) -> None:
        """The owner waits, or its rank may have fallen."""
        entry, known = self._lowest(owner), self._entries.get(owner)
        if known is None or entry < known:
            self._entries[owner] = entry
            heapq.heappush(self._heap, entry)

    def first(self, waiting: Waiting, limited: Waiting) -> str | None:
        """The waiting owner whose turn it is; None when no owner has a line left.

        ``limited`` holds the lines that are left to owners of whom some are passed over; it may be none of them.
        """
        aside: list[Place] = []
        if not len(waiting) <= len(self._heap) <= 4 * len(waiting) + 64:
            self._rebuild(waiting)
        owner = self._first(waiting, limited, aside)
        if owner is None and len(aside) < len(waiting):
            # An owner waits of whom nothing was told here.
            self._rebuild(waiting)
            aside.clear()
            owner = self._first(waiting, limited, aside)
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return owner

    def _first(self, waiting: Waiting, limited: Waiting, aside: list[Place]) -> str | None:
        heap, entries = self._heap, self._entries
        best: Place | None = None
        while heap:
            entry = heap[0]
            owner = entry[2]
            lines = waiting.get(owner)
            if best is not None and best < entry:
                break
            if entries.get(owner) is not entry:
                heapq.heappop(heap)
            elif lines is None:
                del entries[owner]
                heapq.heappop(heap)
            elif owner in limited:
                # Its entry is put back afterwards: with all its lines the owner may rank lower than now.
                aside.append(heapq.heappop(heap))
                if limited[owner]:
                    mine = self._place(owner, limited[owner])
                    best = mine if best is None else min(best, mine)
            else:
                fresh = self._place(owner, lines)
                if fresh == entry:
                    return owner
                entries[owner] = fresh
                heapq.heapreplace(heap, fresh)
        return best and best[2]

    def _rebuild(self, owners: Iterable[str]) -> None:
        self._entries.clear()
        self._heap.clear()
        for owner in owners:
            self.enter(owner)
