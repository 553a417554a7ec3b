"""What a simulated model says: words, thinking, tool calls, JSON that fits a schema, vectors; always the same."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from service.simulated.models import TOOLS, SimulatedModel
from service.simulated.settings import SimulatedSettings

WEB_SEARCH = "web_search"  # the tool that the server itself can run

_PIECE = re.compile(r"\s*\S+|\s+$")
_WORDS = re.findall(
    r"\w+",
    "the sky is blue because light of short waves is scattered more than light of long waves by the air so what "
    "comes from all sides looks blue while the sun itself looks a little yellow and at evening red",
)
_THOUGHTS = ("The", " prompt", " asks", " something", ";", " a", " short", " answer", " will", " do", ".")
_EXCERPT_LENGTH = 120


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One generation, piece by piece. An endless one repeats its tokens until the caller leaves."""

    tokens: tuple[str, ...]
    thinking: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    prompt_tokens: int = 1
    done_reason: str = "stop"
    is_endless: bool = False
    search: str | None = None  # what the server searched the web for, before the model wrote this

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def thought(self) -> str:
        return "".join(self.thinking)

    @property
    def token_count(self) -> int:
        # A tool call costs tokens too, though none of them is seen by itself.
        return len(self.thinking) + len(self.tokens) + 12 * len(self.tool_calls)

    def flow(self) -> Iterator[str]:
        """The tokens as they come: for ever when the answer is endless."""
        return itertools.cycle(self.tokens or (" ",)) if self.is_endless else iter(self.tokens)

    def repeating(self, after_tokens: int, token: str, repeats: int) -> Answer:
        """The same beginning, and then one token, which is repeated so often."""
        begun = self.tokens[:after_tokens]
        # What Ollama compares the first of all tokens with is "": a blank one repeats it.
        is_first_a_repeat = not (token.strip() or begun or self.thinking)
        tokens = (*begun, *(token,) * (repeats + (not is_first_a_repeat)))
        return replace(self, tokens=tokens, tool_calls=(), is_endless=False)

    def with_long_token(self, index: int, length: int) -> Answer:
        tokens = list(self.tokens or ("",))
        tokens[min(index, len(tokens) - 1)] = "x" * length
        return replace(self, tokens=tuple(tokens))


@dataclass(frozen=True, slots=True)
class Question:
    """What of a request decides the answer."""

    prompt: str
    history_length: int = 0  # characters of what stands beside the prompt: system, earlier messages
    tools: Sequence[dict[str, Any]] = ()
    is_tool_result: bool = False  # the last message is a tool's: the model answers in words
    format: Any = None
    is_thinking: bool = False
    num_predict: int = -1
    num_ctx: int = 4096
    stop: tuple[str, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        return count_tokens(len(self.prompt) + self.history_length)


def answer(question: Question, model: SimulatedModel, settings: SimulatedSettings) -> Answer:
    prompt_tokens = question.prompt_tokens
    thinking: tuple[str, ...] = _THOUGHTS if question.is_thinking else ()
    called = _called_tool(question, model, settings)
    if called is not None:
        return Answer((), thinking, (called,), prompt_tokens)
    tokens, is_complete = _tokens(question, model, settings)
    is_endless = question.num_predict == 0
    limit = 10 * question.num_ctx
    if 0 < question.num_predict < limit:
        limit = question.num_predict
    if len(thinking) + len(tokens) > limit:
        tokens, is_complete = tokens[: max(0, limit - len(thinking))], False
        thinking = thinking[:limit]
    elif not is_complete:
        tokens = tuple(tokens[index % len(tokens)] for index in range(limit - len(thinking)))
    reason = "stop" if is_complete and not is_endless else "length"
    return Answer(tokens, thinking, (), prompt_tokens, reason, is_endless)


def count_tokens(length: int) -> int:
    """A rough count, four characters a token, and the few that a template adds."""
    return length // 4 + 3


def _tokens(question: Question, model: SimulatedModel, settings: SimulatedSettings) -> tuple[tuple[str, ...], bool]:
    """The pieces, and whether the model stops after them by itself."""
    if question.format:
        text = json.dumps(_instance(question.format), ensure_ascii=False)
        return tuple(text[start : start + 4] for start in range(0, len(text), 4)), True
    if settings.answer_text is not None:
        return _pieces(_before_stop(settings.answer_text, question.stop)), True
    if settings.answer_style == "echo":
        return _pieces(_before_stop(question.prompt, question.stop)), True
    if settings.answer_style == "demo":
        return _pieces(_before_stop(_demo_text(question.prompt, model.name), question.stop)), True
    start = zlib.crc32(question.prompt.encode("utf-8", "replace")) % len(_WORDS)
    count = settings.tokens if settings.tokens is not None else len(_WORDS)
    words = _words(start, count)
    if question.stop:
        words = _pieces(_before_stop("".join(words), question.stop))
    return words, settings.tokens is not None


@lru_cache(maxsize=256)
def _words(start: int, count: int) -> tuple[str, ...]:
    words = [_WORDS[(start + index) % len(_WORDS)] for index in range(count)]
    return tuple(word if index == 0 else f" {word}" for index, word in enumerate(words))


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(text)) or ("",)


def _before_stop(text: str, stop: Sequence[str]) -> str:
    places = [text.find(each) for each in stop if each and each in text]
    return text[: min(places)] if places else text


def _demo_text(prompt: str, model: str) -> str:
    excerpt = " ".join(prompt.split())
    if len(excerpt) > _EXCERPT_LENGTH:
        excerpt = excerpt[:_EXCERPT_LENGTH].rsplit(" ", 1)[0] + " …"
    words = len(prompt.split())
    return (
        f"This is a simulated answer; no model is running. You asked “{excerpt}”, which is {words} "
        f"{'word' if words == 1 else 'words'} long, and {model} would now be thinking about it. "
        "What you see is real, though: your prompt was stored before it was accepted, it waited for a free seat, "
        "and these words reach you one by one as the simulated model makes them. "
        "You may close this page, or even kill the service, and come back: the prompt will still be answered. "
        "To get real answers, start Ollama and start the service without the word demo."
    )


def _called_tool(question: Question, model: SimulatedModel, settings: SimulatedSettings) -> ToolCall | None:
    if not question.tools or question.is_tool_result or not model.can(TOOLS):
        return None
    functions = [tool.get("function") or {} for tool in question.tools]
    named = [function for function in functions if function.get("name") and function["name"] in question.prompt]
    # The demo calls a tool only when asked for it: chat pages offer their tools with every prompt.
    if settings.answer_style == "demo" and not named:
        return None
    function = (named or functions)[0]
    name = function.get("name", "")
    arguments = _instance(function.get("parameters") or {"type": "object"})
    seed = f"{question.prompt}\n{name}".encode("utf-8", "replace")
    return ToolCall(
        f"call_{hashlib.sha256(seed).hexdigest()[:8]}", name, arguments if isinstance(arguments, dict) else {}
    )


def _instance(schema: Any, depth: int = 0) -> Any:
    """A value that fits a simple JSON Schema; `"json"` stands for any object."""
    if not isinstance(schema, dict):
        return {"answer": "simulated", "is_simulated": True}
    for choices in ("enum", "anyOf", "oneOf"):
        if schema.get(choices):
            first = schema[choices][0]
            return first if choices == "enum" else _instance(first, depth + 1)
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "string":
            return ("simulated" * (schema.get("minLength", 0) // 9 + 1))[: schema.get("maxLength")]
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return schema.get("minimum", 1.5)
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            count = max(1, int(schema.get("minItems", 1)))
            return [_instance(schema.get("items") or {"type": "string"}, depth + 1)] * count
        case _ if depth < 20:
            properties = schema.get("properties") or {}
            return {name: _instance(each, depth + 1) for name, each in properties.items()}
        case _:
            return {}


@lru_cache(maxsize=512)
def raw_vector(text: str, length: int) -> tuple[float, ...]:
    """An embedding before it is normalised: noise that depends on the text alone."""
    seed = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    numbers = [zlib.crc32(seed + struct.pack("<I", index)) / 2**31 - 1 for index in range(length)]
    return tuple(round(each * 2, 8) for each in numbers)


@lru_cache(maxsize=512)
def vector(text: str, length: int, dimensions: int = 0) -> tuple[float, ...]:
    """A vector of length one, cut to `dimensions` when that is less than the model has."""
    raw = raw_vector(text, length)
    kept = raw[:dimensions] if 0 < dimensions < length else raw
    norm = math.sqrt(sum(each * each for each in kept)) or 1.0
    return tuple(round(each / norm, 9) for each in kept)


def vector_as_base64(values: Sequence[float]) -> str:
    """Little-endian float32, which is what OpenAI's client asks for by itself."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
