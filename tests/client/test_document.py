"""The document that this client comes from: its examples run, only the import changed, and its sentences hold."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from corral import Client, ConfigurationError, CorralError
from corral import Client as ollama  # noqa: N813 - as the document calls it
from tests.client.servers import Servers, both_servers

MESSAGES = [{"role": "user", "content": "Hello, how are you?"}]
STATS = {
    "total_requests",
    "successful_requests",
    "failed_requests",
    "total_tokens",
    "total_prompt_tokens",
    "total_completion_tokens",
}

NAMES = """
    max_retries backoff_factor initial_retry_delay max_retry_delay queue_size max_concurrent_requests circuit_state
    failure_count failure_threshold circuit_timeout PRIORITY_HIGH PRIORITY_NORMAL PRIORITY_LOW usage_stats
    active_requests default_model ollama_api_url metadata resources __call__
"""
EXAMPLES = {
    "usage": """
        client = ollama(metadata={"ollama_api_url": URL, "ollama_model": "llama3"})

        response = client.chat(
            model="llama3",
            messages=[{"role": "user", "content": "Hello, how are you?"}],
            max_tokens=100,
            temperature=0.7
        )
        assert response["text"]

        response = client.generate(
            model="llama3",
            prompt="Explain quantum computing in simple terms",
            max_tokens=200
        )
        assert response["text"]

        for chunk in client.stream_chat(
            model="llama3",
            messages=[{"role": "user", "content": "Tell me a story"}]
        ):
            print(chunk.get("text", ""), end="", flush=True)
        """,
    "callable": """
        client = ollama(metadata={"ollama_api_url": URL})
        response = client("chat", model="llama3", messages=[{"role": "user", "content": "Hello"}])
        assert response["text"]
        """,
    "priority": """
        client = ollama(metadata={"ollama_api_url": URL})
        response = client.make_post_request_ollama(
            endpoint_url=f"{client.ollama_api_url}/chat",
            data={"model": "llama3", "messages": [{"role": "user", "content": "Urgent request"}]},
            priority=client.PRIORITY_HIGH
        )
        assert response["message"]["content"] and response["done"] is True
        """,
    "statistics": """
        client = ollama(metadata={"ollama_api_url": URL, "ollama_model": "llama3"})
        client.generate(prompt="Hello")
        stats = client.usage_stats
        print(f"Total requests: {stats['total_requests']}")
        print(f"Successful requests: {stats['successful_requests']}")
        print(f"Failed requests: {stats['failed_requests']}")
        print(f"Total tokens: {stats['total_tokens']}")
        assert stats["total_requests"] == stats["successful_requests"] == 1 and stats["total_tokens"] > 0
        client.reset_usage_stats()
        assert client.usage_stats["total_requests"] == 0
        """,
    "configuration": """
        client = ollama(metadata={
            "ollama_api_url": URL,
            "ollama_model": "llama3",
            "timeout": 30,  # seconds
        })
        client.max_concurrent_requests = 10
        client.queue_size = 200
        client.max_retries = 3
        client.backoff_factor = 1.5
        client.initial_retry_delay = 2
        client.max_retry_delay = 30
        client.failure_threshold = 10
        client.circuit_timeout = 60
        assert client.timeout == 30 and client.default_model == "llama3"
        assert client.chat(messages=[{"role": "user", "content": "Hello"}])["text"]
        """,
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with both_servers(tmp_path_factory.mktemp("servers")) as found:
        yield found


@pytest.fixture(params=["corral", "ollama"])
def url(request: pytest.FixtureRequest, servers: Servers) -> str:
    return str(getattr(servers, request.param))


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, model="llama3") as client:
        yield client


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_of_the_document(url: str, example: str) -> None:
    names: dict[str, Any] = {"ollama": ollama, "URL": f"{url}/api"}
    exec(textwrap.dedent(EXAMPLES[example]), names)
    names["client"].close()


# Basic functionality


def test_support_for_chat_generate_and_completions_endpoints(client: Client) -> None:
    for answer in (
        client.chat(messages=MESSAGES, max_tokens=3),
        client.generate(prompt="Hello", max_tokens=3),
        client.completions(prompt="Hello", max_tokens=3),
    ):
        assert answer["text"]
        assert answer["implementation_type"] == "(REAL)"
        assert answer["usage"]["completion_tokens"] == 3


def test_support_for_stream_and_non_stream_modes(client: Client) -> None:
    whole = client.chat(messages=MESSAGES, max_tokens=5, seed=1)["text"]
    chunks = list(client.stream_chat(messages=MESSAGES, max_tokens=5, seed=1))
    assert "".join(chunk["text"] for chunk in chunks) == whole
    assert [chunk["done"] for chunk in chunks].count(True) == 1


def test_model_listing_and_endpoint_handling(client: Client) -> None:
    assert "llama3" in {model["name"].partition(":")[0] for model in client.list_models()}
    assert client.test_ollama_endpoint() is True
    assert client.test_ollama_endpoint(f"{client.ollama_api_url}/chat") is True
    with pytest.raises(ConfigurationError):
        client.test_ollama_endpoint("http://elsewhere:11434/api/chat")
    client.default_model = "nosuch"
    assert client.test_ollama_endpoint() is False


# Queue and concurrency


def test_the_queue_its_size_and_the_concurrency_have_the_documents_defaults() -> None:
    client = Client("http://localhost:1")
    assert (client.queue_size, client.max_concurrent_requests) == (100, 5)
    assert (client.PRIORITY_HIGH, client.PRIORITY_NORMAL, client.PRIORITY_LOW) == (0, 1, 2)


def test_backoff_and_circuit_breaker_have_the_documents_defaults() -> None:
    client = Client("http://localhost:1")
    assert (client.max_retries, client.initial_retry_delay, client.backoff_factor) == (5, 1, 2)
    assert (client.max_retry_delay, client.failure_threshold, client.circuit_timeout) == (16, 5, 30)
    assert (client.circuit_state, client.failure_count) == ("CLOSED", 0)


# Usage statistics


def test_request_counting_token_usage_and_reset(client: Client) -> None:
    client.generate(prompt="Hello", max_tokens=3)
    with pytest.raises(CorralError):
        client.generate(model="nosuch", prompt="Hello")
    stats = client.usage_stats
    assert set(stats) == STATS
    assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (2, 1, 1)
    assert stats["total_completion_tokens"] == 3
    assert stats["total_tokens"] == stats["total_prompt_tokens"] + 3
    client.reset_usage_stats()
    assert set(client.usage_stats.values()) == {0}


# Parameter compatibility


def test_method_signatures_are_the_documents() -> None:
    chat = ["model_name", "model", "messages", "max_tokens", "temperature", "request_id", "options", "kwargs"]
    generate = ["model", "prompt", "max_tokens", "temperature", "request_id", "kwargs"]
    for name, wanted in (("chat", chat), ("stream_chat", chat), ("generate", generate), ("completions", generate)):
        parameters = inspect.signature(getattr(Client, name)).parameters
        assert list(parameters)[1:] == wanted
        assert all(one.default is None for one in list(parameters.values())[1:-1])


def test_both_names_of_the_model_and_request_ids(client: Client) -> None:
    for model_name, model in ((None, "llama3"), ("llama3", None), ("llama3", "llama3")):
        answer = client.chat(model_name, model, MESSAGES, 2, request_id="test_123")
        assert (answer["request_id"], answer["model"]) == ("test_123", "llama3")
    with pytest.raises(ConfigurationError):
        client.chat(model="llama3", model_name="other", messages=MESSAGES)


# The original's own programs


def test_eight_calls_with_two_at_a_time(client: Client) -> None:
    client.max_concurrent_requests = 2
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda number: client.generate("llama3", f"{number}", 3, 0.7, f"req_{number}"), range(8))
        )
    assert [answer["request_id"] for answer in answers] == [f"req_{number}" for number in range(8)]
    assert client.usage_stats["successful_requests"] == 8


def test_a_subclass_that_takes_the_requests_over_sees_chats() -> None:
    class Recording(Client):
        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.requests: list[dict[str, Any]] = []

        def make_post_request_ollama(
            self,
            endpoint_url: str,
            data: Any,
            stream: bool = False,
            request_id: str | None = None,
            priority: int | str | None = None,
        ) -> Any:
            self.requests.append({"url": endpoint_url, "data": data, "id": request_id, "priority": priority})
            if stream:
                return ({"message": {"content": f"piece {n}"}, "done": n == 2} for n in range(3))
            return {"message": {"content": "made up"}, "prompt_eval_count": 10, "eval_count": 20}

    client = Recording(metadata={"ollama_api_url": "http://localhost:1/api"})
    calls = (
        client.chat(model_name="llama3", messages=MESSAGES, max_tokens=30, temperature=0.7, request_id="test_123"),
        client.generate(model="llama3", prompt="text", max_tokens=30, temperature=0.7, request_id="test_123"),
        client.completions(model="llama3", prompt="text", max_tokens=30, temperature=0.7, request_id="test_123"),
        client("chat", model="llama3", messages=MESSAGES, max_tokens=30, temperature=0.7, request_id="test_123"),
    )
    for answer, request in zip(calls, client.requests, strict=True):
        assert (answer["text"], answer["usage"]["total_tokens"], answer["request_id"]) == ("made up", 30, "test_123")
        assert (request["url"], request["id"]) == ("http://localhost:1/api/chat", "test_123")
        assert request["data"]["options"] == {"num_predict": 30, "temperature": 0.7}
        assert request["data"]["model"] == "llama3"
        assert request["data"]["messages"][0]["content"] in ("text", "Hello, how are you?")
    pieces = list(client.stream_chat("llama3", messages=MESSAGES))
    assert [piece["text"] for piece in pieces] == ["piece 0", "piece 1", "piece 2"]


def test_the_attributes_that_programs_look_for_are_there() -> None:
    client = Client("http://localhost:1")
    for name in NAMES.split():
        assert hasattr(client, name), name
