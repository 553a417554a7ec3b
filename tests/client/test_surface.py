"""What programs write down of a client: names, parameters, defaults, and what is refused."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

import corral.shapes
from corral import AsyncClient, Client, ConfigurationError, Job
from corral.requests import embed_request, generate_request

PROMISED = """
class Client:
    def __init__(self, base_url: str | None = None, *, api_key: str | None = None, model: str | None = None,
                 timeout: float | None = None, headers: Mapping[str, str] | None = None,
                 metadata: Mapping[str, Any] | None = None, resources: Mapping[str, Any] | None = None,
                 transport: httpx2.AsyncBaseTransport | None = None) -> None: ...
    def chat(self, model_name=None, model=None, messages=None, max_tokens=None, temperature=None, request_id=None,
             options=None, **kwargs) -> Answer: ...
    def generate(self, model=None, prompt=None, max_tokens=None, temperature=None, request_id=None,
                 **kwargs) -> Answer: ...
    def completions(self, model=None, prompt=None, max_tokens=None, temperature=None, request_id=None,
                    **kwargs) -> Answer: ...
    def stream_chat(self, model_name=None, model=None, messages=None, max_tokens=None, temperature=None,
                    request_id=None, options=None, **kwargs) -> Iterator[Chunk]: ...
    def __call__(self, endpoint_type: str, **kwargs) -> Any: ...
    def make_post_request_ollama(self, endpoint_url: str, data: Mapping[str, Any], stream: bool = False,
                                 request_id: str | None = None, priority: int | str | None = None) -> Any: ...
    def list_models(self) -> list[dict[str, Any]]: ...
    def create_ollama_endpoint_handler(self, endpoint_url: str | None = None) -> Callable[..., Awaitable[Answer]]: ...
    def test_ollama_endpoint(self, endpoint_url: str | None = None) -> bool: ...
    def reset_usage_stats(self) -> None: ...
    def embed(self, input: str | Sequence[str], model=None, *, request_id=None, **kwargs) -> Embeddings: ...
    def submit(self, prompt=None, *, messages=None, model=None, priority=None, max_tokens=None, temperature=None,
               options=None, system=None, format=None, images=None, think=None, keep_alive=None, tools=None,
               not_before=None, expires_in_seconds=None, request_id=None, idempotency_key=None) -> Job: ...
    def submit_future(self, endpoint_type: str = "chat", /, **kwargs) -> concurrent.futures.Future[Answer]: ...
    def map(self, prompts: Iterable[str | Mapping[str, Any]], *, in_flight: int = 32, return_exceptions: bool = False,
            **shared): ...
    def job(self, job_id: str) -> Job: ...
    def jobs(self, *, status=None, model=None, text=None) -> Iterator[JobStatus]: ...
    def cancel_all(self, *, status=None, model=None, everybody=False) -> int: ...
    def close(self) -> None: ...

class Job:
    def status(self) -> JobStatus: ...
    def wait(self, timeout=None) -> JobStatus: ...
    def result(self, timeout=None) -> Answer: ...
    def stream(self, from_=None) -> Iterator[JobEvent]: ...
    def cancel(self) -> JobStatus: ...
    def request(self) -> dict[str, Any]: ...
"""
DEFAULTS: dict[str, Any] = {
    "max_concurrent_requests": 5,
    "queue_size": 100,
    "max_retries": 5,
    "initial_retry_delay": 1,
    "backoff_factor": 2,
    "max_retry_delay": 16,
    "failure_threshold": 5,
    "circuit_timeout": 30,
    "timeout": 300,
    "default_model": None,
}
READ_ONLY = {
    "base_url": "http://localhost:8000",
    "ollama_api_url": "http://localhost:8000/api",
    "metadata": {},
    "resources": {},
    "server": None,
    "usage_stats": dict.fromkeys(
        (
            "total_requests",
            "successful_requests",
            "failed_requests",
            "total_tokens",
            "total_prompt_tokens",
            "total_completion_tokens",
        ),
        0,
    ),
    "circuit_state": "CLOSED",
    "failure_count": 0,
    "active_requests": 0,
    "queued_requests": 0,
}
PRIORITIES = {"PRIORITY_HIGH": 0, "PRIORITY_NORMAL": 1, "PRIORITY_LOW": 2}


def promised(name: str) -> dict[str, inspect.Signature]:
    """The methods of a class, as promised."""
    names = {**vars(typing), **vars(collections.abc), **vars(corral.shapes), "httpx2": httpx2, "concurrent": concurrent}
    names["Job"] = Job
    exec(compile(PROMISED, "promised", "exec", dont_inherit=True), names)
    return {name: inspect.signature(each) for name, each in vars(names[name]).items() if inspect.isfunction(each)}


def parameters(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in signature.parameters.values()]


@pytest.mark.parametrize("kind", [Client, Job])
def test_every_method_has_the_parameters_and_types_that_were_promised(kind: type[Any]) -> None:
    wanted = promised(kind.__name__)
    assert len(wanted) > 5
    for name, signature in wanted.items():
        found = inspect.signature(getattr(kind, name), eval_str=True)
        assert parameters(found) == parameters(signature), name
        if signature.return_annotation is not inspect.Signature.empty:
            assert found.return_annotation == signature.return_annotation, name
        for parameter, one in signature.parameters.items():
            if one.annotation is not inspect.Parameter.empty:
                assert found.parameters[parameter].annotation == one.annotation, (name, parameter)


def test_the_other_client_is_the_same_and_neither_has_names_of_its_own() -> None:
    wanted = promised("Client")
    for name, signature in wanted.items():
        if name not in ("submit_future", "close"):
            assert parameters(inspect.signature(getattr(AsyncClient, name))) == parameters(signature), name
    names = {name for name in wanted if not name.startswith("_")} | DEFAULTS.keys() | READ_ONLY.keys()
    names |= PRIORITIES.keys()
    assert {name for name in dir(Client) if not name.startswith("_")} == names
    other = names - {"submit_future", "close"} | {"aclose"}
    assert {name for name in dir(AsyncClient) if not name.startswith("_")} == other


def test_every_attribute_has_its_default_and_what_is_read_only_cannot_be_assigned() -> None:
    for client in (Client(), AsyncClient()):
        assert {name: getattr(client, name) for name in DEFAULTS} == DEFAULTS
        assert {name: getattr(client, name) for name in READ_ONLY} == READ_ONLY
        assert {name: getattr(client, name) for name in PRIORITIES} == PRIORITIES
        for name in READ_ONLY:
            with pytest.raises(AttributeError):
                setattr(client, name, None)
    client = Client(metadata={"max_concurrent_requests": 7, "queue_size": 8, "timeout": 9, "max_retries": 1})
    assert (client.max_concurrent_requests, client.queue_size, client.timeout, client.max_retries) == (7, 8, 9, 5)


NEVER: list[Any] = [-1, float("nan"), float("inf"), 10**400 * -1, True, "5", b"5", [], {}]


@pytest.mark.parametrize("name", DEFAULTS)
def test_no_attribute_takes_a_value_that_makes_no_sense(name: str) -> None:
    wrong = NEVER if name != "default_model" else ["", " ", 5, b"m", [], True]
    if name in ("max_concurrent_requests", "queue_size", "max_retries", "failure_threshold"):
        wrong = [*wrong, 1.5, None]
    for client in (Client(), AsyncClient()):
        for value in wrong:
            with pytest.raises(ConfigurationError, match=name) as refused:
                setattr(client, name, value)
            assert isinstance(refused.value, ValueError)
            assert getattr(client, name) == DEFAULTS[name]


@pytest.mark.parametrize("priority", [3, -1, True, 1.0, "urgent", "", b"high", [], "0"])
async def test_a_priority_that_makes_no_sense_is_refused_wherever_one_is_taken(priority: Any) -> None:
    client = AsyncClient("http://localhost:1")
    asks: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.generate(prompt="x", priority=priority),
        lambda: client.embed("x", priority=priority),
        lambda: client.submit("x", priority=priority),
        lambda: client.make_post_request_ollama("/api/chat", {}, priority=priority),
        lambda: anext(client.map(["x"], priority=priority)),
    ]
    for ask in asks:
        with pytest.raises(ConfigurationError, match="priority"):
            await ask()
    assert client.usage_stats["total_requests"] == 0


TOP = (
    "system format images think keep_alive tools logprobs top_logprobs raw suffix template context truncate shift "
    "dimensions"
)


@pytest.mark.parametrize("name", TOP.split())
def test_what_is_no_option_goes_to_the_top_of_the_body(name: str) -> None:
    if name == "dimensions":
        body = embed_request("x", "m", {name: 3, "top_p": 0.9}).native_body("m", is_streamed=False)
        assert (body[name], body["options"]) == (3, {"top_p": 0.9})
        return
    # As a bare completion; in a chat pictures belong to a message.
    given = {"raw": True, name: ["given"], "top_p": 0.9}
    body = generate_request("m", "x", None, None, given).native_body("m", is_streamed=False)
    assert (body[name], body["options"]) == (["given"], {"top_p": 0.9})


async def test_a_call_with_stream_is_refused_and_says_where_to_go() -> None:
    client = AsyncClient("http://localhost:1")
    messages = [{"role": "user", "content": "Why?"}]
    for ask in (
        client.chat(messages=messages, stream=True),
        client.generate(prompt="x", stream=False),
        client.completions(prompt="x", stream=True),
        client("chat", messages=messages, stream=True),
        client.embed("x", stream=True),
    ):
        with pytest.raises(ConfigurationError, match="stream_chat"):
            await ask


MESSAGES = [{"role": "user", "content": "Why?"}]
ASKING: dict[str, Callable[[Any], Any]] = {
    "chat": lambda client: client.chat(messages=MESSAGES),
    "generate": lambda client: client.generate(prompt="x"),
    "completions": lambda client: client.completions(prompt="x"),
    "stream_chat": lambda client: next_of(client.stream_chat(messages=MESSAGES)),
    "embed": lambda client: client.embed("x"),
    "__call__": lambda client: client("chat", messages=MESSAGES),
    "make_post_request_ollama": lambda client: client.make_post_request_ollama("/api/chat", {}),
    "list_models": lambda client: client.list_models(),
    "test_ollama_endpoint": lambda client: client.test_ollama_endpoint(),
    "submit": lambda client: client.submit("x"),
    "submit_future": lambda client: client.submit_future("generate", prompt="x"),
    "map": lambda client: next_of(client.map(["x"])),
    "job": lambda client: client.job("x").result(),
    "jobs": lambda client: next_of(client.jobs()),
    "cancel_all": lambda client: client.cancel_all(),
}


def next_of(items: Any) -> Any:
    return anext(items) if hasattr(items, "__anext__") else next(items)


@pytest.mark.parametrize("name", ASKING)
async def test_whatever_is_asked_of_a_closed_client_is_a_configuration_error(name: str) -> None:
    client, other = Client("http://localhost:1"), AsyncClient("http://localhost:1")
    client.close()
    await other.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        ASKING[name](client)
    if name != "submit_future":
        with pytest.raises(ConfigurationError, match="closed"):
            await ASKING[name](other)


def test_all_that_asks_is_tried_there() -> None:
    silent = {"__init__", "create_ollama_endpoint_handler", "reset_usage_stats", "close"}
    assert promised("Client").keys() - silent == ASKING.keys()
