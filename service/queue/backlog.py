"""Who waits, and whose turn it is."""

from __future__ import annotations

from typing import NamedTuple

from service.job import Line


class Pick(NamedTuple):
    """A turn that was given to a line, and what it was charged for it in backend milliseconds."""

    line: Line
    charged_ms: float
