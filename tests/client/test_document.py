"""The document that this client comes from: its examples run, only the import changed, and so do the
programs that its authors tried it with. Its list of features is in ``test_document_features``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from corral import Client
from corral import Client as ollama  # noqa: N813 - as the document calls it
from tests.client.servers import Servers, both_servers

MESSAGES = [{"role": "user", "content": "Hello, how are you?"}]
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


def test_an_assignment_that_takes_the_requests_over_is_as_good_as_a_subclass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def post(endpoint_url: str, *_: Any, **__: Any) -> Any:
        asked.append(endpoint_url)
        return {"message": {"content": "made up"}, "done": True}

    client = Client("http://localhost:1", model="llama3")
    monkeypatch.setattr(client, "make_post_request_ollama", post)
    assert client.generate(prompt="x")["text"] == "made up"
    assert client.test_ollama_endpoint()
    assert client.submit_future(messages=MESSAGES).result()["text"] == "made up"
    assert asked == ["http://localhost:1/api/chat"] * 3
