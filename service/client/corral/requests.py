"""What a call says, as the server takes it. Everything here is pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.errors import ConfigurationError
from corral.places import rank_of, word_of
from corral.settings import require_seconds
from corral.shapes import Priority

CHAT, GENERATE, EMBED = "/api/chat", "/api/generate", "/api/embed"

_TOP = frozenset(
    {
        "system",
        "format",
        "images",
        "think",
        "keep_alive",
        "tools",
        "logprobs",
        "top_logprobs",
        "raw",
        "suffix",
        "template",
        "context",
        "truncate",
        "shift",
        "dimensions",
    }
)
"""Keywords that stand at the top of a body; every other one is an option of the model."""
_OF_A_COMPLETION = ("raw", "suffix", "template", "context")
"""What only ``/api/generate`` takes."""
_OF_A_PROMPT = frozenset({"model", "messages", "system", "options", "format", "think", "keep_alive", "tools"})
"""The fields that Corral's prompts API takes as Ollama does."""
_OF_A_MESSAGE = frozenset({"role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"})


@dataclass
class Wishes:
    """What a call says to the client itself, and to the queue."""

    priority: Priority = None
    max_wait_seconds: float | None = None
    idempotency_key: str | None = None
    not_before: Any = None
    expires_in_seconds: float | None = None

    @property
    def rank(self) -> int:
        return rank_of(self.priority)


WISHES = frozenset(Wishes.__dataclass_fields__)


@dataclass
class Request:
    """A question to a model: where it goes, its body but for ``stream``, and what the client is to know."""

    endpoint: str
    body: dict[str, Any]
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def model(self) -> str | None:
        model: str | None = self.body.get("model")
        return model

    @property
    def is_prompt(self) -> bool:
        """Whether Corral's prompts API takes it."""
        messages = self.body.get("messages", ())
        return (
            self.endpoint == CHAT
            and self.body.keys() <= _OF_A_PROMPT
            and all(
                isinstance(message, Mapping)
                and message.keys() <= _OF_A_MESSAGE
                and isinstance(message.get("content", ""), str)
                for message in messages
            )
        )

    def prompt_body(self) -> dict[str, Any]:
        """As the prompts API takes it."""
        body = dict(self.body)
        body["priority"] = word_of(self.wishes.rank)
        if self.wishes.not_before is not None:
            body["not_before"] = _moment(self.wishes.not_before)
        if self.wishes.expires_in_seconds is not None:
            body["expires_in_seconds"] = self.wishes.expires_in_seconds
        return body

    def native_body(self, model: str, *, is_streamed: bool) -> dict[str, Any]:
        """As Ollama takes it."""
        body: dict[str, Any] = {"model": model, **{name: value for name, value in self.body.items() if name != "model"}}
        if self.endpoint == CHAT and "system" in body:
            body["messages"] = [{"role": "system", "content": body.pop("system")}, *body["messages"]]
        if self.endpoint != EMBED:
            body["stream"] = is_streamed
        return body


def chosen_model(model_name: Any, model: Any) -> str | None:
    """Raises ConfigurationError when both are named and differ."""
    if model_name and model and model_name != model:
        raise ConfigurationError(f"model_name = {model_name!r} and model = {model!r}: give one of them")
    chosen = model_name or model or None
    if chosen is None or isinstance(chosen, str):
        return chosen
    raise ConfigurationError(f"model = {chosen!r}: give the name of a model")


def chat_request(
    model: str | None,
    messages: Sequence[Any] | None,
    max_tokens: int | None,
    temperature: float | None,
    options: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> Request:
    """A chat. Raises ConfigurationError for what makes no sense before anything is sent."""
    asked = _messages(messages)
    top, wishes = _sorted(keywords, max_tokens, temperature, options)
    for name in (*_OF_A_COMPLETION, "images", "dimensions"):
        if name in top:
            remedy = "put them into a message" if name == "images" else "use generate or embed"
            raise ConfigurationError(f"{name}: a chat does not take it; {remedy}")
    body: dict[str, Any] = {"messages": asked, **top}
    return Request(CHAT, _with_model(model, body), wishes)


def generate_request(
    model: str | None,
    prompt: str | None,
    max_tokens: int | None,
    temperature: float | None,
    keywords: Mapping[str, Any],
) -> Request:
    """A chat of one message, or a bare completion where only that can do what is asked for."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigurationError(f"prompt = {prompt!r}: give a text that is not empty")
    keywords = dict(keywords)
    options = keywords.pop("options", None)
    top, wishes = _sorted(keywords, max_tokens, temperature, options)
    if "dimensions" in top:
        raise ConfigurationError("dimensions: only embed takes it")
    if any(name in top for name in _OF_A_COMPLETION):
        return Request(GENERATE, _with_model(model, {"prompt": prompt, **top}), wishes)
    message: dict[str, Any] = {"role": "user", "content": prompt}
    if images := top.pop("images", None):
        message["images"] = images
    return Request(CHAT, _with_model(model, {"messages": [message], **top}), wishes)


def embed_request(text: object, model: str | None, keywords: Mapping[str, Any]) -> Request:
    """Vectors for one text or several."""
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else []
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ConfigurationError("input: give a text, or a list of texts")
    keywords = dict(keywords)
    top, wishes = _sorted(keywords, None, None, keywords.pop("options", None))
    for name in top:
        if name not in ("truncate", "dimensions", "keep_alive", "options"):
            raise ConfigurationError(f"{name}: embed does not take it")
    return Request(EMBED, _with_model(model, {"input": texts, **top}), wishes)


def submission(
    prompt: str | None,
    messages: Sequence[Any] | None,
    model: str | None,
    max_tokens: int | None,
    temperature: float | None,
    options: Mapping[str, Any] | None,
    fields: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a job to be submitted; ``fields`` are those that are passed on, where they are not None."""
    if (prompt is None) == (messages is None):
        raise ConfigurationError("prompt, messages: give one of them")
    given: object = prompt
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(f"prompt = {given!r}: give a text")
    body = {name: value for name, value in fields.items() if value is not None}
    if "priority" in body:
        body["priority"] = word_of(rank_of(body["priority"]))
    if "not_before" in body:
        body["not_before"] = _moment(body["not_before"])
    if "expires_in_seconds" in body:
        require_seconds("expires_in_seconds", body["expires_in_seconds"])
    if merged := _options(options, {}, max_tokens, temperature):
        body["options"] = merged
    asked: dict[str, Any]
    asked = {"prompt": prompt} if messages is None else {"messages": _messages(messages)}
    return _with_model(model, {**asked, **body})


def _messages(given: Any) -> list[Any]:
    """As they are, in a list of their own. Raises ConfigurationError for none, and for what is no list of them."""
    is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    messages = [dict(one) if isinstance(one, Mapping) else one for one in given] if is_list else []
    if not messages or not all(isinstance(one, dict) for one in messages):
        raise ConfigurationError('messages: give a list such as [{"role": "user", "content": "Why is the sky blue?"}]')
    return messages


def _moment(value: Any) -> Any:
    """A datetime as RFC 3339; what is written already, or seconds since the epoch, as it is."""
    isoformat = getattr(value, "isoformat", None)
    if isoformat is None:
        return value
    if getattr(value, "tzinfo", None) is None:
        raise ConfigurationError(f"not_before = {value!r}: say the time zone, too")
    return isoformat()


def _with_model(model: str | None, body: dict[str, Any]) -> dict[str, Any]:
    return body if model is None else {"model": model, **body}


def _sorted(
    keywords: Mapping[str, Any],
    max_tokens: int | None,
    temperature: float | None,
    options: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], Wishes]:
    """The top of the body with its options, and the wishes."""
    if "stream" in keywords:
        raise ConfigurationError("stream: call stream_chat for an answer piece by piece")
    top: dict[str, Any] = {}
    own: dict[str, Any] = {}
    wishes: dict[str, Any] = {}
    for name, value in keywords.items():
        if value is not None:
            (wishes if name in WISHES else top if name in _TOP else own)[name] = value
    if merged := _options(options, own, max_tokens, temperature):
        top["options"] = merged
    found = Wishes(**wishes)
    rank_of(found.priority)
    if found.expires_in_seconds is not None:
        require_seconds("expires_in_seconds", found.expires_in_seconds)
    return top, found


def _options(
    options: Mapping[str, Any] | None, own: Mapping[str, Any], max_tokens: int | None, temperature: float | None
) -> dict[str, Any]:
    if options is not None and not isinstance(options, Mapping):
        raise ConfigurationError(f"options = {options!r}: give a dict such as {{'num_ctx': 8192}}")
    merged = {**(options or {}), **own}
    if max_tokens is not None:
        merged["num_predict"] = max_tokens
    if temperature is not None:
        merged["temperature"] = temperature
    return merged
