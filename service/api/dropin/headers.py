"""Which headers of Ollama's replies travel on to callers."""

from __future__ import annotations

from collections.abc import Mapping

from service.live.relay import Head

_KEPT_BACK = frozenset(
    {
        # They belong to the backend's connection, or are written anew for ours.
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
        # Which pages may read our replies is our own decision (CORS).
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        # They would speak for our address, to callers of everything else on it.
        "alt-svc",
        "clear-site-data",
        "expect-ct",
        "nel",
        "public-key-pins",
        "report-to",
        "reporting-endpoints",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        # They would have a proxy before us send its own files, and say how it passes our replies on.
        "x-accel-buffering",
        "x-accel-charset",
        "x-accel-expires",
        "x-accel-limit-rate",
        "x-accel-redirect",
        "x-sendfile",
        # Callers show their keys to us.
        "authentication-info",
        "www-authenticate",
        # They tell what stands behind us, and mostly its address.
        "content-location",
        "forwarded",
        "link",
        "location",
        "refresh",
        "via",
        "x-backend",
        "x-backend-host",
        "x-backend-server",
        "x-envoy-upstream-host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-server",
        "x-host",
        "x-real-ip",
        "x-served-by",
        "x-server",
        "x-upstream",
        "x-upstream-addr",
        "x-upstream-address",
        "x-aspnet-version",
        "x-aspnetmvc-version",
        "x-powered-by",
    }
)

_NONE: Mapping[str, str] = {}


def passed_on(headers: Mapping[str, str], ours: Mapping[str, str] = _NONE) -> list[tuple[str, str]]:
    """The headers of Ollama's reply that the caller is to see, and ``ours``, which replace any of the same name."""
    taken = {name.lower() for name in ours}
    for name, value in headers.items() if "Connection" in headers else ():
        if name.lower() == "connection":
            taken.update(one.strip().lower() for one in value.split(","))
    passed = [
        header for header in headers.items() if (name := header[0].lower()) not in _KEPT_BACK and name not in taken
    ]
    return [*passed, *ours.items()]


def media_type(head: Head) -> str:
    """The media type without its parameters, in lower case; "" when there is none."""
    return head.headers.get("Content-Type", "").partition(";")[0].strip().lower()
