"""A client for Corral, the queue in front of Ollama, and for a bare Ollama.

    from corral import Client

    with Client() as client:
        print(client.generate(prompt="Why is the sky blue?")["text"])

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corral.async_client import AsyncClient as AsyncClient
    from corral.client import Client as Client
    from corral.errors import (
        AuthenticationError as AuthenticationError,
    )
    from corral.errors import (
        BadRequestError as BadRequestError,
    )
    from corral.errors import (
        CallTimeoutError as CallTimeoutError,
    )
    from corral.errors import (
        CircuitOpenError as CircuitOpenError,
    )
    from corral.errors import (
        ConfigurationError as ConfigurationError,
    )
    from corral.errors import (
        ConnectionFailedError as ConnectionFailedError,
    )
    from corral.errors import (
        CorralError as CorralError,
    )
    from corral.errors import (
        JobCancelledError as JobCancelledError,
    )
    from corral.errors import (
        JobFailedError as JobFailedError,
    )
    from corral.errors import (
        NotFoundError as NotFoundError,
    )
    from corral.errors import (
        NotSupportedError as NotSupportedError,
    )
    from corral.errors import (
        PermissionDeniedError as PermissionDeniedError,
    )
    from corral.errors import (
        QueueFullError as QueueFullError,
    )
    from corral.errors import (
        RateLimitError as RateLimitError,
    )
    from corral.errors import (
        ResponseError as ResponseError,
    )
    from corral.errors import (
        ServerError as ServerError,
    )
    from corral.errors import (
        StreamBrokenError as StreamBrokenError,
    )
    from corral.job import AsyncJob as AsyncJob
    from corral.job import Job as Job
    from corral.shapes import (
        Answer as Answer,
    )
    from corral.shapes import (
        Chunk as Chunk,
    )
    from corral.shapes import (
        Embeddings as Embeddings,
    )
    from corral.shapes import (
        JobError as JobError,
    )
    from corral.shapes import (
        JobEvent as JobEvent,
    )
    from corral.shapes import (
        JobStatus as JobStatus,
    )
    from corral.shapes import (
        Timings as Timings,
    )
    from corral.shapes import (
        Usage as Usage,
    )
    from corral.shapes import (
        UsageStats as UsageStats,
    )

_PLACES = {
    "async_client": ("AsyncClient",),
    "client": ("Client",),
    "job": ("AsyncJob", "Job"),
    "errors": (
        "AuthenticationError",
        "BadRequestError",
        "CallTimeoutError",
        "CircuitOpenError",
        "ConfigurationError",
        "ConnectionFailedError",
        "CorralError",
        "JobCancelledError",
        "JobFailedError",
        "NotFoundError",
        "NotSupportedError",
        "PermissionDeniedError",
        "QueueFullError",
        "RateLimitError",
        "ResponseError",
        "ServerError",
        "StreamBrokenError",
    ),
    "shapes": (
        "Answer",
        "Chunk",
        "Embeddings",
        "JobError",
        "JobEvent",
        "JobStatus",
        "Timings",
        "Usage",
        "UsageStats",
    ),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
