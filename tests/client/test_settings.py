"""Where the server is, who asks, for which model; and what goes where in a request."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from corral import AsyncClient, Client, ConfigurationError
from corral.requests import chat_request, embed_request, generate_request

MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    "path", ["", "/", "/api", "/api/", "/api/generate", "/api/chat", "/v1", "/v1/chat/completions", "/api/v1/prompt"]
)
@pytest.mark.parametrize("prefix", ["", "/ollama", "/api/ollama"])
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_every_spelling_of_an_address_is_the_same_server(scheme: str, prefix: str, path: str) -> None:
    client = Client(f"{scheme}box:11434{prefix}{path}")
    assert client.base_url == f"http://box:11434{prefix}"
    assert client.ollama_api_url == f"http://box:11434{prefix}/api"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://box//api//", "http://box"),
        ("http://box/prefix//v1//chat/completions", "http://box/prefix"),
        ("HTTP://BOX:80/api", "http://box"),
        ("https://box:443/", "https://box"),
        ("http://box:443", "http://box:443"),
        ("box:", "http://box"),
        ("[::1]:11434", "http://[::1]:11434"),
        ("http://[::1]/prefix/api/generate", "http://[::1]/prefix"),
        ("http://me:secret@[::1]:80/api/", "http://[::1]"),
        ("me:secret@box:1/prefix/v1/", "http://box:1/prefix"),
        (" http://box ", "http://box"),
    ],
)
def test_one_server_has_one_address(address: str, url: str) -> None:
    client = Client(address)
    assert client.base_url == url
    for own in (url, f"{address.strip().rstrip('/')}"):
        client.create_ollama_endpoint_handler(own)
    client.create_ollama_endpoint_handler("/api/generate")
    assert client._parts.address.path_of(f"{url}/api/chat") == "/api/chat"


@pytest.mark.parametrize(
    "address",
    [
        *("http://", "ftp://box", "box:port", "http://box:99999", "a b", "http://bo x/api", " ", "//box", "::1"),
        *("http:///box", "http:box", "http://[::1]x/", "http://bo\x00x", "http://box/\x00", "http://a..b", "http://."),
        *("http://box\\x", "http://a,b", "http://box:0", "http://box?x=1", "http://box#x", f"http://{'a' * 64}"),
        *("http://me:12/secret@box", "http://me:12#secret@box", "http://me:12?secret@box"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address") as refused:
        Client(address)
    assert "secret" not in str(refused.value)


def test_an_address_with_one_slash_is_told_with_two() -> None:
    for address in ("http:/box:1/api", "https:/me:secret@box", "HTTP:/box"):
        with pytest.raises(ConfigurationError, match=r"http(s://box|://box:1/api|://box)$") as refused:
            Client(address)
        assert "secret" not in str(refused.value)


def test_the_nearest_word_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().base_url == "http://localhost:8000"
    monkeypatch.setenv("OLLAMA_API_URL", "http://four/api")
    assert Client().base_url == "http://four"
    monkeypatch.setenv("CORRAL_URL", "http://three")
    assert Client().base_url == "http://three"
    metadata = {"ollama_api_url": "http://two/api", "ollama_model": "m2", "timeout": 30, "queue_size": 7, "groq_key": 1}
    client = Client(metadata=metadata, resources={"a": 1})
    assert (client.base_url, client.default_model, client.timeout, client.queue_size) == ("http://two", "m2", 30, 7)
    assert (client.metadata, client.resources) == (metadata, {"a": 1})
    client = Client("one", metadata=metadata, model="m1", timeout=20)
    assert (client.base_url, client.default_model, client.timeout) == ("http://one", "m1", 20)
    monkeypatch.setenv("OLLAMA_MODEL", "m3")
    assert (Client().default_model, Client(metadata=metadata).default_model) == ("m3", "m2")
    with pytest.raises(ConfigurationError, match="queue_size"):
        Client(metadata={"queue_size": -1})


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_KEY", "sk-from-the-environment")
    clients = (Client(api_key="sk-1"), Client(metadata={"api_key": "sk-2"}), Client())
    sent = [client._parts.server.wire._headers["Authorization"] for client in clients]
    assert sent == ["Bearer sk-1", "Bearer sk-2", "Bearer sk-from-the-environment"]
    client = Client("http://me:secret@box", api_key="sk-1")
    assert repr(client) == "Client('http://box')"
    for address, key in ((None, "sk-\nsecret"), ("http://me:secret@box:port", None)):
        with pytest.raises(ConfigurationError) as error:
            Client(address, api_key=key)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:secret@[box",
        "http://me:[secret@box",
        "http://me:sec]ret@box",
        "http://me:secret/secret@box:port",
        "http://me:secret://secret@bo x",
        "me:secret@secret@box:99999",
        "http://me:secret\uff03@box",
        "ftp://me:secret?secret@box",
    ],
)
def test_no_message_shows_the_password_of_an_address(address: str) -> None:
    client = Client("http://box")
    for tried in (lambda: Client(address), lambda: client._parts.address.path_of(address)):
        with pytest.raises(ConfigurationError) as raised:
            tried()
        error = raised.value
        told = traceback.format_exception(error)
        assert not any(part in told[-1] for part in ("secret", "sec]", "ret@"))
        assert error.__suppress_context__ or error.__context__ is None
        assert error.__cause__ is None


def test_what_is_said_once_beats_what_the_options_say_and_every_other_name_is_an_option() -> None:
    asked = chat_request(
        "m", MESSAGES, 5, 0.5, {"num_predict": 9, "temperature": 1, "seed": 1}, {"num_ctx": 8192, "system": "Be brief."}
    )
    assert asked.body == {
        "model": "m",
        "messages": MESSAGES,
        "system": "Be brief.",
        "options": {"num_predict": 5, "temperature": 0.5, "seed": 1, "num_ctx": 8192},
    }
    assert asked.is_prompt


def test_wishes_stay_with_the_client() -> None:
    wishes: dict[str, Any] = {
        "priority": "high",
        "max_wait_seconds": 3,
        "idempotency_key": "k",
        "expires_in_seconds": 9,
    }
    asked = generate_request("m", "Why?", None, None, {**wishes, "not_before": "2026-11-30T10:00:00Z"})
    assert asked.body == {"model": "m", "messages": MESSAGES}
    assert asked.prompt_body() == {
        **asked.body,
        "priority": "high",
        "not_before": "2026-11-30T10:00:00Z",
        "expires_in_seconds": 9,
    }


@pytest.mark.parametrize("name", ["raw", "suffix", "template", "context"])
def test_a_completion_goes_where_only_that_can_be_had(name: str) -> None:
    asked = generate_request("m", "def f(", None, None, {name: "x", "images": ["aGk="]})
    assert (asked.endpoint, asked.body["prompt"], asked.body[name]) == ("/api/generate", "def f(", "x")
    assert not asked.is_prompt
    with pytest.raises(ConfigurationError, match=name):
        chat_request("m", MESSAGES, None, None, None, {name: "x"})


def test_messages_are_passed_as_they_are() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look", "images": ["aGk="]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "4", "tool_name": "f"},
    ]
    asked = chat_request("m", messages, None, None, None, {})
    assert asked.body["messages"] == messages
    assert asked.is_prompt
    named = chat_request("m", [{"role": "user", "content": "x", "name": "me"}], None, None, None, {})
    assert not named.is_prompt
    assert named.native_body("m", is_streamed=True)["messages"] == [{"role": "user", "content": "x", "name": "me"}]


@pytest.mark.parametrize("messages", [None, [], "hello", {"role": "user"}])
def test_a_chat_without_messages_is_refused(messages: Any) -> None:
    with pytest.raises(ConfigurationError, match="messages"):
        chat_request("m", messages, None, None, None, {})


def test_embeddings_take_one_text_or_several_and_no_others() -> None:
    assert embed_request("a", "m", {"dimensions": 3, "num_ctx": 9}).body == {
        "model": "m",
        "input": ["a"],
        "dimensions": 3,
        "options": {"num_ctx": 9},
    }
    wrong: Any
    for wrong in ([], [1], "x"):
        with pytest.raises(ConfigurationError):
            embed_request(wrong, "m", {"tools": []} if wrong == "x" else {})


def test_an_api_key_and_an_authorization_of_ones_own_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"authorization": "Basic secret"}
    assert Client(headers=headers)._parts.server.wire._headers["Authorization"] == "Basic secret"
    with pytest.raises(ConfigurationError, match="Authorization") as refused:
        Client(api_key="sk-secret", headers=headers)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("CORRAL_KEY", "sk-1")
    with pytest.raises(ConfigurationError, match="CORRAL_KEY"):
        Client(headers=headers)


async def test_a_closed_client_tests_nothing() -> None:
    waiting, asking = Client("http://localhost:1"), AsyncClient("http://localhost:1")
    waiting.close()
    await asking.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        waiting.test_ollama_endpoint()
    with pytest.raises(ConfigurationError, match="closed"):
        await asking.test_ollama_endpoint()


@pytest.mark.parametrize("name", ["naïve", "a\nb", "", "x" * 129])
def test_a_request_id_that_cannot_be_sent_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="request_id"):
        Client("http://localhost:1").generate(prompt="x", request_id=name)


def test_an_address_of_this_server_may_hold_the_clients_own_password_and_no_other() -> None:
    address = Client("http://me:secret@box/prefix")._parts.address
    for given in ("http://box/prefix/api/chat", "http://me:secret@box/prefix/api/chat"):
        assert address.path_of(given) == "/api/chat"
    with pytest.raises(ConfigurationError) as refused:
        address.path_of("http://you:secret@box/prefix/api/chat")
    assert "secret" not in str(refused.value)
