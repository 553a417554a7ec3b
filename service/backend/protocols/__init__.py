"""One reader a wire format: what a reply of Ollama's says, found in its bytes while they pass.

Which reader an endpoint has stands in :mod:`service.endpoints`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from service.backend.protocols.reading import Ending, Reader
from service.endpoints import ENDPOINTS, Body

__all__ = ["Ending", "Reader", "reader_for"]


def _attribute(name: str) -> Any:
    """What has this name, which is ``module.name`` within this package."""
    module, _, attribute = name.partition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def _maker(name: str) -> Callable[[], Reader]:
    """What makes the reader of this name."""
    make: Callable[[], Reader] = _attribute(name)
    return make


_WHOLE = {path: _maker(row.whole_reader) for path, row in ENDPOINTS.items()}
_STREAMED = {path: _maker(row.streamed_reader) for path, row in ENDPOINTS.items() if row.streamed_reader is not None}
_TEXT: Mapping[str, Callable[[str], Reader]] = {
    path: _attribute(row.text_reader) for path, row in ENDPOINTS.items() if row.text_reader is not None
}


def reader_for(endpoint: str, *, streamed: bool, media_type: str = Body.JSON) -> Reader:
    """A new reader for one reply of status 200; ``streamed`` says what the request asked for, and ``media_type`` what
    the reply calls itself.

    The reply to a load or unload request is one object although a stream was asked for: the reader of streams takes
    that as well. Raises KeyError for a path that is no drop-in endpoint's.
    """
    if media_type != Body.JSON and (text := _TEXT.get(endpoint)) is not None:
        return text(media_type)
    make = _STREAMED.get(endpoint) if streamed else None
    return (make or _WHOLE[endpoint])()
