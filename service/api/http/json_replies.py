"""JSON out, written in one way and never to be cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from service.api.http.raw_replies import whole_reply

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode

JSON_HEADERS = (("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store"))


def json_text(value: Any) -> str:
    """``value`` as compact JSON."""
    return _encode(value)


def json_bytes(value: Any) -> bytes:
    """``value`` as compact JSON in UTF-8; a lone surrogate that a model has written becomes a question mark."""
    try:
        return to_json(value)
    except ValueError:
        return _encode(value).encode("utf-8", "replace")


def json_reply(
    request: web.Request, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """An API's answer."""
    told = (*JSON_HEADERS, *headers.items()) if headers else JSON_HEADERS
    return whole_reply(request, status, told, json_bytes(value))
