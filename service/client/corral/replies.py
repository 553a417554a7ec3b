"""What a server says, as callers get it. Everything here is pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from corral.call import Call
from corral.errors import ConnectionFailedError, JobCancelledError, JobFailedError
from corral.pieces import parsed
from corral.settings import is_number
from corral.shapes import Answer, Chunk, Embeddings, JobEvent, JobResult, JobStatus, Timings, Usage
from corral.stats import usage_of

_REAL = "(REAL)"
_TIMINGS = {
    "load_seconds": "load_duration",
    "prompt_seconds": "prompt_eval_duration",
    "generation_seconds": "eval_duration",
    "total_seconds": "total_duration",
}


def native_usage(reply: Mapping[str, Any]) -> Usage:
    """Tokens as Ollama counts them; as OpenAI and Anthropic do where it is one of their replies."""
    usage = reply.get("usage")
    if isinstance(usage, Mapping):
        return usage_of(
            usage.get("prompt_tokens", usage.get("input_tokens")),
            usage.get("completion_tokens", usage.get("output_tokens")),
        )
    return usage_of(reply.get("prompt_eval_count"), reply.get("eval_count"))


def native_answer(reply: Mapping[str, Any], call: Call, model: str) -> Answer:
    """Of ``/api/chat`` and ``/api/generate``."""
    answer: Answer = {
        "text": _text(reply),
        "model": reply.get("model") or model,
        "usage": native_usage(reply),
        "implementation_type": _REAL,
        "request_id": call.request_id,
        "done_reason": reply.get("done_reason"),
        "attempts": call.attempts,
    }
    if thinking := _of_message(reply, "thinking"):
        answer["thinking"] = thinking
    if tool_calls := _of_message(reply, "tool_calls"):
        answer["tool_calls"] = tool_calls
    if logprobs := reply.get("logprobs"):
        answer["logprobs"] = logprobs
    timings: Timings = {}
    for name, field in _TIMINGS.items():
        if is_number(reply.get(field)):
            timings[name] = reply[field] / 1e9  # type: ignore[literal-required]
    if timings:
        answer["timings"] = timings
    if call.job_id:
        answer["job_id"] = call.job_id
    return answer


def require_whole(reply: Any) -> Any:
    """Raises ConnectionFailedError for an answer of Ollama's that does not say that it is done."""
    if not isinstance(reply, dict) or reply.get("done") is not True:
        raise ConnectionFailedError("the reply has come in part: it does not say that it is done")
    return reply


def require_models(reply: Any) -> Any:
    """Raises ConnectionFailedError for what is no list of models."""
    if not isinstance(reply, dict) or not isinstance(reply.get("models") or [], list):
        raise ConnectionFailedError("the reply is no list of models")
    return reply


def native_chunk(part: Mapping[str, Any], call: Call, model: str) -> Chunk | None:
    """A line of a streamed reply; None when there is nothing in it, as in a sign of life."""
    is_done = part.get("done") is True
    thinking, tool_calls = _of_message(part, "thinking"), _of_message(part, "tool_calls")
    chunk: Chunk = {"text": _text(part), "done": is_done, "model": part.get("model") or model}
    if thinking:
        chunk["thinking"] = thinking
    if tool_calls:
        chunk["tool_calls"] = tool_calls
    if is_done:
        chunk["usage"] = native_usage(part)
        chunk["done_reason"] = part.get("done_reason")
        chunk["request_id"] = call.request_id
    return chunk if is_done or chunk["text"] or thinking or tool_calls else None


def text_of_part(part: Mapping[str, Any]) -> str:
    """What an object of a stream adds to the answer, in whichever dialect."""
    match part:
        case (
            {"message": {"content": str(text)}}
            | {"response": str(text)}
            | {"choices": [{"delta": {"content": str(text)}}, *_]}
            | {"choices": [{"text": str(text)}, *_]}
            | {"delta": {"text": str(text)}}
            | {"type": "response.output_text.delta", "delta": str(text)}
        ):
            return text
        case _:
            return ""


def embeddings(reply: Any, model: str) -> Embeddings:
    """Of ``/api/embed``."""
    if not isinstance(reply, Mapping) or not isinstance(reply.get("embeddings"), list):
        raise ConnectionFailedError("the reply has come in part: it has no embeddings")
    return {
        "embeddings": reply["embeddings"],
        "model": reply.get("model") or model,
        "usage": usage_of(reply.get("prompt_eval_count"), 0),
    }


def require_accepted(reply: Any) -> Any:
    """Raises ConnectionFailedError for what is no answer of Corral's to a submission."""
    if not isinstance(reply, dict) or not isinstance(reply.get("id"), str) or not reply["id"]:
        raise ConnectionFailedError("the reply names no job")
    return reply


def require_job(reply: Any) -> Any:
    """Raises ConnectionFailedError for what is no job of Corral's."""
    for name in ("status", "model"):
        if not isinstance(require_accepted(reply).get(name), str):
            raise ConnectionFailedError(f"the reply is no job: it has no {name}")
    error = reply.get("error")
    is_error = error is None or (isinstance(error, dict) and isinstance(error.get("code"), str))
    if not is_error or not isinstance(reply.get("result", ""), str):
        raise ConnectionFailedError("the reply is no job: its error or its result has another shape")
    return reply


def require_page(reply: Any) -> Any:
    """Raises ConnectionFailedError for what is no list of jobs."""
    if not isinstance(reply, dict) or not isinstance(reply.get("prompts"), list):
        raise ConnectionFailedError("the reply is no list of jobs")
    if not isinstance(reply.get("next"), str | None):
        raise ConnectionFailedError("the reply does not say where the list of jobs goes on")
    for job in reply["prompts"]:
        require_job(job)
    return reply


def require_number(name: str) -> Callable[[Any], Any]:
    """What raises ConnectionFailedError for a reply without this number."""

    def check(reply: Any) -> Any:
        if not isinstance(reply, dict) or type(reply.get(name)) is not int:
            raise ConnectionFailedError(f"the reply does not say how many were {name}")
        return reply

    return check


def require_default(reply: Any) -> Any:
    """Raises ConnectionFailedError for a reply that names no default model."""
    if not isinstance(reply, dict) or not isinstance(reply.get("default"), str):
        raise ConnectionFailedError("the reply names no default model")
    return reply


def job_event(name: str, text: str, position: str | None) -> JobEvent | None:
    """News of a job; None for a kind that is not known here. Raises ConnectionFailedError for what is broken."""
    data = parsed(text)
    match name, data:
        case "status", _:
            return {"type": "status", "position": position, "job": require_job(data)}
        case "output", {"kind": "tool_calls", "data": str(piece)}:
            return {"type": "tool_calls", "position": position, "tool_calls": _tool_calls(piece)}
        case "output", {"kind": "text" | "thinking" as kind, "data": str(piece)}:
            return {"type": kind, "position": position, "text": piece}
        case "restart", _:
            return {"type": "restart", "position": position}
        case "done", {"status": str(status)}:
            done: JobEvent = {"type": "done", "position": position, "status": status}  # type: ignore[typeddict-item]
            if "done_reason" in data:
                done["done_reason"] = data["done_reason"]
            if "error" in data:
                done["error"] = data["error"]
            return done
        case "output" | "done", _:
            raise ConnectionFailedError(f"news of another shape came: {name}")
        case _:
            return None


def _tool_calls(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConnectionFailedError(f"the tool calls are broken: {error}") from error
    if not isinstance(found, list):
        raise ConnectionFailedError("the tool calls are no list")
    return found


def job_usage(job: JobResult) -> Usage:
    """The tokens of a job."""
    return usage_of(job.get("prompt_tokens"), job.get("completion_tokens"))


def job_answer(job: JobResult, call: Call) -> Answer:
    """Of a job that is final. Raises JobFailedError and JobCancelledError."""
    raise_failure(job)
    answer: Answer = {
        "text": job.get("result", ""),
        "model": job["model"],
        "usage": job_usage(job),
        "implementation_type": _REAL,
        "request_id": call.request_id,
        "done_reason": job.get("done_reason"),
        "attempts": call.attempts,
        "job_id": job["id"],
    }
    if "thinking" in job:
        answer["thinking"] = job["thinking"]
    if "tool_calls" in job:
        answer["tool_calls"] = job["tool_calls"]
    if "timings" in job:
        answer["timings"] = job["timings"]
    return answer


def raise_failure(job: JobStatus) -> None:
    """Raises JobFailedError or JobCancelledError, unless the job is completed."""
    if job["status"] == "completed":
        return
    error = job.get("error") or {"code": job["status"], "message": None}
    words = error.get("message") or error["code"]
    failure: JobFailedError | JobCancelledError
    if job["status"] == "cancelled":
        failure = JobCancelledError(f"the job was cancelled: {words}", job)
    else:
        failure = JobFailedError(f"the job failed ({error['code']}): {words}", error["code"], job)
    failure.job_id = job["id"]
    raise failure


def last_chunk(job: JobResult, call: Call) -> Chunk:
    """The end of a stream."""
    return {
        "text": "",
        "done": True,
        "model": job["model"],
        "usage": job_usage(job),
        "done_reason": job.get("done_reason"),
        "request_id": call.request_id,
    }


def _text(reply: Mapping[str, Any]) -> str:
    text = _of_message(reply, "content") if isinstance(reply.get("message"), Mapping) else reply.get("response")
    return text if isinstance(text, str) else ""


def _of_message(reply: Mapping[str, Any], name: str) -> Any:
    message = reply.get("message")
    return message.get(name) if isinstance(message, Mapping) else reply.get(name)
