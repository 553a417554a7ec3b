"""From a prompt to the job that asks Ollama for it, natively and streamed."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from service.api.prompts.schema import Message, PromptRequest
from service.clock import Clock
from service.config import QueueConfig
from service.endpoints import CHAT, GENERATE
from service.errors import InvalidRequestError
from service.job import NewJob, runner_key
from service.model_limits import ModelLimits

DOOR = "prompts"

_DAY_MS = 86_400_000
_SHARED_FIELDS = ("options", "format", "think", "keep_alive")


def to_job(
    request: PromptRequest, queue: QueueConfig, limits: ModelLimits, clock: Clock, owner: str, key_id: str | None
) -> NewJob:
    """The job for a request that ``owner`` makes now. Raises InvalidRequestError for fields that do not go together."""
    model = request.model or queue.default_model
    if request.not_before is not None:
        _refuse_far_away(request.not_before, queue.max_delay_days, clock)
    body: dict[str, Any] = {"model": model, "stream": True}
    if request.messages is None:
        endpoint, prompt = GENERATE, _fill_generate(body, request)
    else:
        endpoint, prompt = CHAT, _fill_chat(body, request, request.messages)
    given = request.model_fields_set
    for field in _SHARED_FIELDS:
        if field in given and (value := getattr(request, field)) is not None:
            body[field] = value
    body = limits.applied(endpoint, model, body)
    return NewJob(
        DOOR,
        endpoint,
        model,
        to_json(body).decode(),
        prompt,
        request.priority,
        owner,
        key_id,
        request.not_before,
        None if request.expires_in_seconds is None else _deadline(request, request.expires_in_seconds, clock),
        runner_key(model, body.get("options")),
    )


def _refuse_far_away(not_before: int, most_days: float, clock: Clock) -> None:
    if not_before > clock.now_ms() + most_days * _DAY_MS:
        raise InvalidRequestError(
            f"not_before: must lie at most {most_days:g} days ahead (queue.max_delay_days)", "not_before"
        )


def _deadline(request: PromptRequest, seconds: float, clock: Clock) -> int:
    deadline = clock.now_ms() + int(seconds * 1000)
    if request.not_before is not None and request.not_before >= deadline:
        raise InvalidRequestError(
            "expires_in_seconds: the prompt would expire before not_before allows it to begin", "expires_in_seconds"
        )
    return deadline


def _fill_generate(body: dict[str, Any], request: PromptRequest) -> str:
    """Put the prompt into the body. Returns the words that a list shows."""
    prompt = request.prompt
    if prompt is None:
        raise InvalidRequestError("prompt: is required (or messages, for a chat)", "prompt")
    if not prompt or prompt.isspace():
        # Ollama would load the model, say nothing, and call that an answer (wire contract 1.4).
        raise InvalidRequestError("prompt: must not be empty", "prompt")
    if request.tools is not None:
        raise InvalidRequestError("tools: only a chat can use them; give messages instead of prompt", "tools")
    body["prompt"] = prompt
    if request.system is not None:
        body["system"] = request.system
    if request.images:
        body["images"] = request.images
    return prompt


def _fill_chat(body: dict[str, Any], request: PromptRequest, messages: list[Message]) -> str:
    """The same for a chat, of which a list shows the user's last message."""
    if request.prompt is not None:
        raise InvalidRequestError("messages: give either prompt or messages, not both", "messages")
    if request.images is not None:
        raise InvalidRequestError("images: in a chat they belong into one of the messages", "images")
    turns = [message.model_dump(exclude_none=True) for message in messages]
    if request.system is not None:
        turns.insert(0, {"role": "system", "content": request.system})
    body["messages"] = turns
    if request.tools is not None:
        body["tools"] = request.tools
    own = [message.content for message in messages if message.role.lower() == "user"]
    return (own[-1] if own else messages[-1].content) or ""
