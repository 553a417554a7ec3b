"""The operator's ceilings and defaults for each model, applied to a request's body before it becomes a job.

So stray options do not make Ollama load a model anew, and an answer without end does not hold a seat for ever. Names
match as Ollama matches them. What a route cannot carry is left alone, and so is a value of the wrong type: Ollama words
the refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.config import ModelConfig, duration_seconds
from service.endpoints import ENDPOINTS
from service.job import RELOADING, SHIFT, model_key

_UNCARRIED = ("num_ctx", "default_num_ctx", "keep_alive", "default_keep_alive")
"""The settings that no ``/v1`` route has a field for, but ``/v1/systemone``, which has ``keep_alive``."""


class ModelLimits:
    """The limits of all models; ``replace`` takes new ones while the service runs."""

    def __init__(self, models: Mapping[str, ModelConfig]) -> None:
        self.replace(models)

    def replace(self, models: Mapping[str, ModelConfig]) -> None:
        """From now on these apply."""
        self._models = {model_key(name): limits for name, limits in models.items()}

    def applied(self, endpoint: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """``body`` for the backend's ``endpoint``: itself where nothing applies, else a copy with the limits in it.

        The runner's key (:func:`service.job.runner_key`) is to be computed from what this returns.
        """
        limits = self._models.get(model_key(model))
        if limits is None:
            return body
        row = ENDPOINTS[endpoint]
        field = row.token_field
        if row.has_options:
            allowed = _with_allowed(limits, body)
            return _with_changes(allowed, _native_changes(limits, allowed, field))
        if row.has_keep_alive:
            return _with_changes(body, {"keep_alive": _keep_alive(limits, body.get("keep_alive"))})
        if field is None or (row.needs_tokens and not _is_positive(body.get(field))):
            return body
        return _with_changes(body, {field: _tokens(limits, body.get(field))})


def uncarried_limits(models: Mapping[str, ModelConfig]) -> list[str]:
    """What the operator should know of each model with settings that have no effect on ``/v1`` routes."""
    warnings = []
    for name, limits in models.items():
        keys = [key for key in _UNCARRIED if getattr(limits, key) is not None]
        if keys:
            warnings.append(
                f'models."{name}": {", ".join(keys)} cannot be applied to requests on /v1, which have no such field; '
                "set OLLAMA_CONTEXT_LENGTH and OLLAMA_KEEP_ALIVE of the server to the same values"
            )
    return warnings


def unreachable_limits(models: Mapping[str, ModelConfig]) -> list[str]:
    """What the operator should know of each model whose ceiling bounds what no request may ask for."""
    return [
        f'models."{name}": num_ctx bounds nothing, since requests may not ask for it (allow_options); '
        "what they are to have is default_num_ctx"
        for name, limits in models.items()
        if limits.allow_options is not None
        and "num_ctx" not in limits.allow_options
        and limits.num_ctx is not None
        and limits.default_num_ctx is None
    ]


def _with_allowed(limits: ModelConfig, body: dict[str, Any]) -> dict[str, Any]:
    """The body without the options that would load the model again and that requests may not set."""
    allowed = limits.allow_options
    if allowed is None:
        return body
    dropped = {name for name in (*RELOADING, SHIFT) if name not in allowed}
    left = body if SHIFT not in dropped or SHIFT not in body else {k: v for k, v in body.items() if k != SHIFT}
    options = left.get("options")
    if isinstance(options, dict) and not dropped.isdisjoint(options):
        left = {**left, "options": {name: value for name, value in options.items() if name not in dropped}}
    return left


def _with_changes(body: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = {name: value for name, value in changes.items() if value is not None and value != body.get(name)}
    return {**body, **changed} if changed else body


def _native_changes(limits: ModelConfig, body: Mapping[str, Any], token_field: str | None) -> dict[str, Any]:
    changes = {"keep_alive": _keep_alive(limits, body.get("keep_alive"))}
    given = body.get("options")
    if given is None or isinstance(given, dict):
        options = given or {}
        wanted = {"num_ctx": _num_ctx(limits, options.get("num_ctx"))}
        if token_field is not None:
            wanted[token_field] = _tokens(limits, options.get(token_field))
        changed = _with_changes(options, wanted)
        if changed is not options:
            changes["options"] = changed
    return changes


def _num_ctx(limits: ModelConfig, asked: Any) -> Any:
    if asked is None:
        return limits.default_num_ctx
    if not _is_number(asked) or limits.num_ctx is None:
        return asked
    # Ceiling and default in one value: it is the model's only context length, and no request loads it anew.
    return limits.num_ctx if asked > limits.num_ctx or limits.num_ctx == limits.default_num_ctx else asked


def _tokens(limits: ModelConfig, asked: Any) -> Any:
    if asked is None:
        # Without a word from the caller an answer has no end but the model's own: the ceiling holds for it, too.
        return limits.max_tokens if limits.default_max_tokens is None else limits.default_max_tokens
    if not _is_number(asked) or limits.max_tokens is None:
        return asked
    # 0 is without end to Ollama and a negative number is ten contexts (wire contract 9.6); it cuts fractions off.
    return limits.max_tokens if asked < 1 or asked > limits.max_tokens else asked


def _keep_alive(limits: ModelConfig, asked: Any) -> Any:
    if asked is None:
        return None if limits.default_keep_alive is None else _sent_seconds(limits.default_keep_alive)
    ceiling = limits.keep_alive
    if ceiling is None or ceiling < 0:
        return asked
    try:
        seconds = duration_seconds(asked)
    except ValueError:
        return asked
    return _sent_seconds(ceiling) if seconds < 0 or seconds > ceiling else asked


def _sent_seconds(seconds: float) -> float:
    return int(seconds) if seconds.is_integer() else seconds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and bool(value > 0)
