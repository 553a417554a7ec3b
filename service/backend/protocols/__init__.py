"""One reader a wire format: what a reply of Ollama's says, found in its bytes while they pass.

Which reader an endpoint has stands in :mod:`service.endpoints`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from service.backend.protocols.reading import Ending, Reader
from service.endpoints import ENDPOINTS

__all__ = ["Ending", "Reader", "reader_for"]


def _maker(name: str) -> Callable[[], Reader]:
    """What makes the reader of this name, which is ``module.name`` within this package."""
    module, _, attribute = name.partition(".")
    make: Callable[[], Reader] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return make


_WHOLE = {path: _maker(row.whole_reader) for path, row in ENDPOINTS.items()}
_STREAMED = {path: _maker(row.streamed_reader) for path, row in ENDPOINTS.items() if row.streamed_reader is not None}


def reader_for(endpoint: str, *, streamed: bool) -> Reader:
    """A new reader for one reply of status 200; ``streamed`` says what the request asked for.

    The reply to a load or unload request is one object although a stream was asked for: the reader of streams takes
    that as well. Raises KeyError for a path that is no drop-in endpoint's.
    """
    make = _STREAMED.get(endpoint) if streamed else None
    return (make or _WHOLE[endpoint])()
