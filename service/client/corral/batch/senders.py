"""How lines reach a server: as jobs of Corral, or as calls that wait for their answer."""

from __future__ import annotations

import json
from typing import Any

from corral.batch.lines import Kind, Line, Outcome
from corral.call import Call, new_call
from corral.codes import code_of
from corral.errors import (
    AuthenticationError,
    ConnectionFailedError,
    CorralError,
    NotFoundError,
    ResponseError,
    ServerError,
)
from corral.prompts import Submission
from corral.replies import native_usage
from corral.requests import Request, chat_request, generate_request
from corral.shapes import JobResult
from corral.surface import Parts
from corral.wire import json_bytes

_FINAL = ("completed", "failed", "cancelled")
RESULT_GONE = "result_gone"
_LONGEST_POLL_SECONDS = 30.0
_SHORTEST_POLL_SECONDS = 0.5
"""What is cut off sooner was no long poll."""


def ends_run(error: CorralError) -> bool:
    """Whether no other line would do better: the key is known to nobody."""
    return isinstance(error, AuthenticationError)


def failed(error: CorralError, line: Line, job_id: str | None = None) -> Outcome:
    """What becomes of a line by this error."""
    message = error.message if isinstance(error, ResponseError) else str(error)
    return Outcome("failed", code=code_of(error), message=message, model=line.model, job_id=job_id)


class Jobs:
    """Lines as jobs: submitted with a key by which they are known again, and collected when they have ended."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._prompts = parts.prompts
        self._clock = parts.time.clock
        self._name = name
        self._longest_poll_seconds = _LONGEST_POLL_SECONDS

    async def submit(self, line: Line) -> str:
        """The job's id. The same line is the same job, however often it is submitted."""
        call = new_call(None, idempotency_key=key_of(self._name, line))
        return (await self._prompts.submit(Submission(call, json_bytes(line.body))))["id"]

    async def collect(self, job_id: str, wait_seconds: float) -> Outcome | None:
        """What became of a job; None when it has not ended within this time."""
        seconds, begun = min(wait_seconds, self._longest_poll_seconds), self._clock()
        try:
            job = await self._prompts.poll(new_call(None), job_id, seconds)
        except NotFoundError as error:
            words = "the service no longer has what this job has brought"
            return Outcome("failed", code=RESULT_GONE, message=f"{words}: {error.message}", job_id=job_id)
        except (ConnectionFailedError, ServerError):
            waited = self._clock() - begun
            if waited < _SHORTEST_POLL_SECONDS or seconds <= _SHORTEST_POLL_SECONDS:
                raise
            # A proxy that ends what is silent for so long; a service that is away says so at the next try.
            self._longest_poll_seconds = max(_SHORTEST_POLL_SECONDS, waited / 2)
            return None
        return _of_job(job) if job["status"] in _FINAL else None


class Calls:
    """Lines as calls that wait for their answer: OpenAI's lines, and everything at a bare Ollama."""

    def __init__(self, parts: Parts, name: str, priority: str | None) -> None:
        self._parts = parts
        self._name = name
        self._priority = priority or "low"

    async def ask(self, line: Line) -> Outcome:
        """What became of a line. Raises what may pass."""
        call = new_call(None, idempotency_key=key_of(self._name, line))
        if line.kind is Kind.OPENAI:
            return await self._by_openai(line, call)
        return await self._by_ollama(line, call)

    async def _by_openai(self, line: Line, call: Call) -> Outcome:
        server = self._parts.server
        headers = {"Idempotency-Key": call.key}
        if await server.is_corral(call):
            headers["X-Priority"] = self._priority
        begun = self._parts.time.clock()
        reply = await server.reply(call, line.url, json_bytes(line.body), headers)
        seconds = round(self._parts.time.clock() - begun, 3)
        text, body = _json(reply.content)
        if reply.error is not None:
            raise _RefusedError(reply.error, text, reply.request_id or call.request_id)
        if body is None:
            raise ConnectionFailedError("the reply has come in part: it is no JSON")
        usage = native_usage(body)
        return Outcome(
            "completed",
            model=str(body.get("model") or line.model),
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            seconds=seconds,
            reply=text,
            reply_status=reply.status,
            request_id=reply.request_id or call.request_id,
        )

    async def _by_ollama(self, line: Line, call: Call) -> Outcome:
        begun = self._parts.time.clock()
        answer = await self._parts.asking.answer(_request(line), call, is_refusable=False)
        return Outcome(
            "completed",
            result=answer["text"],
            thinking=answer.get("thinking"),
            tool_calls=answer.get("tool_calls"),
            model=answer["model"],
            prompt_tokens=answer["usage"]["prompt_tokens"],
            completion_tokens=answer["usage"]["completion_tokens"],
            seconds=round(self._parts.time.clock() - begun, 3),
        )


class _RefusedError(Exception):
    """A refusal with its body, of which a line of OpenAI's format tells."""

    def __init__(self, error: ResponseError, text: str | None, request_id: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.text = text
        self.request_id = request_id


async def asked(calls: Calls, line: Line) -> Outcome:
    """What became of a line, refused ones too. Raises what may pass, and what ends the run."""
    from corral.batch.pace import what_passes

    try:
        return await calls.ask(line)
    except _RefusedError as refusal:
        error = refusal.error
        if what_passes(error) or ends_run(error) or (error.status_code >= 500 and not error.is_final):
            raise error from None
        status = error.status_code if refusal.text is not None else None
        return Outcome(
            "failed",
            code=code_of(error),
            message=error.message,
            model=line.model,
            reply=refusal.text,
            reply_status=status,
            request_id=refusal.request_id,
        )


def key_of(name: str, line: Line) -> str:
    """The idempotency key of a line in this run, which is the same whenever the run goes on."""
    return f"{name}-{line.index}"


def _request(line: Line) -> Request:
    body = dict(line.body)
    model, messages, prompt = body.pop("model", None), body.pop("messages", None), body.pop("prompt", None)
    if messages is None:
        return generate_request(model, prompt, None, None, body)
    return chat_request(model, messages, None, None, body.pop("options", None), body)


def _of_job(job: JobResult) -> Outcome:
    error = job.get("error")
    is_good = job["status"] == "completed"
    return Outcome(
        job["status"],
        result=job.get("result", "") if is_good else None,
        thinking=job.get("thinking"),
        tool_calls=job.get("tool_calls"),
        code=error["code"] if error and not is_good else None,
        message=error["message"] if error and not is_good else None,
        model=job["model"],
        prompt_tokens=job.get("prompt_tokens"),
        completion_tokens=job.get("completion_tokens"),
        seconds=_seconds(job),
        job_id=job["id"],
    )


def _seconds(job: Any) -> float | None:
    from datetime import datetime

    if "started_at" not in job or "finished_at" not in job:
        return None
    return round(
        (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds(), 3
    )


def _json(content: bytes) -> tuple[str | None, dict[str, Any] | None]:
    """A reply's text and its object; None where it is none."""
    try:
        text = content.decode()
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None, None
    return (text, body) if isinstance(body, dict) else (None, None)
