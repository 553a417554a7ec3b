"""Which headers of Ollama's replies travel on to callers."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict

from service.relay import Head

_KEPT_BACK = frozenset(
    {
        # They belong to one connection, or are written anew for ours.
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # Who may read what is ours to say.
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
    }
)


def passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of Ollama's reply that are the caller's to see."""
    return CIMultiDict([(name, value) for name, value in headers.items() if name.lower() not in _KEPT_BACK])


def media_type(head: Head) -> str:
    """The media type without its parameters, in lower case; "" when there is none."""
    return head.headers.get("Content-Type", "").partition(";")[0].strip().lower()
