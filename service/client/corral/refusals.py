"""Whole replies: their JSON, or why there is none, whichever server refuses."""

from __future__ import annotations

import email.utils
import json
import time
from typing import Any

import httpx2

from corral.errors import ConnectionFailedError, ResponseError, error_of_status

_LONGEST_MESSAGE = 500


def json_of(response: httpx2.Response) -> Any:
    """None for a reply that says that there is nothing in it."""
    if not response.content and (response.status_code == 204 or response.headers.get("content-length") == "0"):
        return None
    if "json" not in response.headers.get("content-type", "application/json"):
        raise not_ours(response)
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise ConnectionFailedError(f"the reply has come in part ({len(response.content)} bytes): {error}") from error


def not_ours(response: httpx2.Response) -> ResponseError:
    kind = response.headers.get("content-type", "something without a type")
    message = f"the server answers with {kind}, as neither Corral nor Ollama does: is base_url right?"
    return error_of_status(response.status_code, message, response.content, None, is_final=True)


def require_success(response: httpx2.Response) -> None:
    if response.is_success:
        return
    _raise_refusal(response)


def require_access(response: httpx2.Response) -> None:
    if response.status_code in (401, 403):
        _raise_refusal(response)


def _raise_refusal(response: httpx2.Response) -> None:
    try:
        message = words_of(json.loads(response.content))
    except (ValueError, RecursionError):
        message = ""
    if not message and response.is_redirect:
        message = f"the server has moved to {response.headers.get('location', 'somewhere')}: set base_url to that"
    raise error_of_status(
        response.status_code,
        message[:_LONGEST_MESSAGE] or response.reason_phrase or "the server refused",
        response.content,
        _retry_after_seconds(response.headers.get("retry-after")),
        is_final=response.headers.get("x-should-retry", "").strip().lower() == "false",
    )


def words_of(body: Any) -> str:
    """An error in any of the shapes in which Ollama, OpenAI, Anthropic and Corral tell it."""
    for _ in range(2):
        if not isinstance(body, dict):
            break
        body = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
    return body if isinstance(body, str) else ""


def _retry_after_seconds(value: str | None) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3); None for what is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def code_of_body(content: bytes) -> str:
    """The stable word that a refusal has beside its message; "" where it has none."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    error = body.get("error") if isinstance(body, dict) else None
    for place in (error, body):
        code = place.get("code") if isinstance(place, dict) else None
        if isinstance(code, str):
            return code
    return ""
