"""Whose fault the errors of newer Ollamas are: the request's, what the model wrote, the runner's, or the server's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backend.classification import classify, failure_of, failure_of_ending
from service.backend.error_texts import ROWS
from service.backend.protocols import Ending
from service.errors import Fault

CHAT, RESPONSES = "/api/chat", "/v1/responses"
EMBED, EMBEDDING = "/api/embed", ("/api/embed", "/api/embeddings", "/v1/embeddings")
RUNNERS = "http://127.0.0.1:40001"

JINJA = (
    "\n------------\nWhile executing CallExpression at line 85, column 32 in source:\n...first %}{{- raise_exception("
    "'System message must be at the beginning.') }}...\n           ^\nError: Jinja Exception: "
)
PEG = "The model produced output that does not match the expected peg-native format"
DIED = "an error was encountered while running the model: "

REQUESTS = [
    JINJA + "System message must be at the beginning.",
    JINJA + "Conversation roles must alternate user/assistant/user/assistant/...",
    "While executing FilterExpression at line 3, column 1 in source: x",
    "Jinja Exception: Unexpected reasoning effort high. out of memory",
    "template: :1:3: executing at <.X>: can't evaluate field X",
    "llama-server template error: map[code:500 message:x]",
    "no user query found in messages",
    "no messages provided",
    "system message cannot contain images",
    'unsupported Qwen3.8 reasoning effort "high"',
    "Assistant response prefill is incompatible with enable_thinking.",
    "llama-server chat error: map[code:500 message:Context size has been exceeded. type:server_error]",
    "Context size has been exceeded.",
    "input length (9000 tokens) exceeds the model's maximum context length (8192 tokens)",
    "input (9000 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
    "the prompt is longer than the context length currently available to the model; shorten the prompt",
    'option "num_ctx" must be of type integer',
    'invalid format: "x"; expected "json" or a valid JSON Schema object',
    "JSON schema conversion failed:\nx",
    "model 'x' not found",
    'model "x" not found, try pulling it first',
    "model is required",
    "invalid model name",
    "unauthorized; sign in at https://ollama.com/connect",
    "ollama cloud is disabled: web search is unavailable",
    "registry.ollama.ai/library/x:latest does not support tools\nregistry.ollama.ai/library/x:latest does not support "
    "insert",
    '"x" does not support chat',
    "this model does not support image input",
    "this server cannot run this remote model",
    "pull model manifest: 412: \n\nThe model you are attempting to pull requires a newer version of Ollama.",
]

MODELS = [
    "error parsing tool call: raw='{\"a\": out of memory Jinja Exception', err=invalid character 'o' looking for x",
    'llama-server returned invalid tool call arguments for "x": unexpected end of JSON input',
    PEG,
    PEG.replace("peg-native", "Content-only"),
    f"llama-server chat error: map[code:500 message:{PEG} type:server_error]",
    "Failed to parse input at pos 13: <tool_call>process has terminated",
    "invalid tool call: no matching closing parenthesis",
    "incomplete GLM tool call: XML syntax error on line 1: unexpected EOF",
    "mismatched arg_key and arg_value counts: 2 keys, 1 values",
    "empty function name",
    "XML syntax error on line 4: element <parameter> closed by </function>",
    "EOF",
    "invalid character 'l' looking for beginning of value",
    "unexpected end of JSON input",
    "json: cannot unmarshal string into Go value of type map[string]interface {}",
    "tool 'get_wether' not found",
    "failed to parse JSON: invalid character 'x' in literal true",
    'failed to parse function call "f(": invalid function call format',
    "failed to parse Laguna JSON tool call arguments: EOF",
    'undeclared Glimmer function "f"',
    "missing ATEM invoke wrapper",
    "no tool calls found",
    "invalid argument: unterminated string",
    "invalid format",
    "expected '{' in tool call",
    "repair failed to produce valid JSON arguments",
    "prediction aborted, token repeat limit reached",
    "[json.exception.type_error.316] invalid UTF-8 byte at index 359: 0xE5",
    "[json.exception.type_error.316] incomplete UTF-8 string; last byte: 0x9F",
    "[json.exception.parse_error.101] parse error at line 1: invalid string: ill-formed UTF-8 byte; last read: x",
    "web_search exceeded the maximum of 3 calls",
    "web_search requires a non-empty string query",
]

OF_RUNNERS = [
    "mlx runner failed: panic: mlx: Maximum threads per threadgroup exceeded (exit: exit status 2)",
    "mlx runner exited unexpectedly: signal: killed",
    "timeout waiting for mlx runner: loading",
    "timeout waiting for mlx runner to start",
    "unexpected EOF",
    f'Post "{RUNNERS}/completion": EOF',
    f'Post "{RUNNERS}/completion": dial tcp 127.0.0.1:40001: connect: connection refused',
    f'Post "{RUNNERS}/tokenize": read tcp 127.0.0.1:1->127.0.0.1:40001: read: connection reset by peer',
    "llama-server chat error: map[code:500 message:something type:server_error]",
    "llama-server chat error: map[code:500 message:CUDA error: out of memory type:server_error]",
    f'llama-server apply-template error: Post "{RUNNERS}/apply-template": EOF',
    "llama-server apply-template error: read: connection reset by peer",
    "failed reading llama-server template response: unexpected EOF",
    "error unmarshalling llama-server chat response: unexpected end of JSON input",
    "error reading llama-server chat response: x",
    DIED + PEG,
    DIED + "terminate called after throwing: [json.exception.type_error.316] invalid UTF-8 byte at index 1: 0xE5",
]

SERVERS = [
    f'llama-server apply-template error: Post "{RUNNERS}/apply-template": dial tcp 127.0.0.1:40001: connect: '
    "connection refused",
    "failed reading llama-server template response: context deadline exceeded",
    f'Post "{RUNNERS}/tokenize": dial tcp 127.0.0.1:40001: connect: connection refused',
    "web search request failed: dial tcp: lookup ollama.com: no such host",
    "web search returned status 500: x",
    "model list cache unavailable",
    "request canceled",
]

WHOSE = [(text, Fault.PERMANENT) for text in REQUESTS]
WHOSE += [(text, Fault.OUTPUT) for text in MODELS]
WHOSE += [(text, Fault.RUNNER) for text in OF_RUNNERS]
WHOSE += [(text, Fault.TRANSIENT) for text in SERVERS]


@pytest.mark.parametrize("status", [500, None])
@pytest.mark.parametrize(("text", "fault"), WHOSE)
def test_whose_an_error_is_is_told_by_its_text(text: str, fault: Fault, status: int | None) -> None:
    assert classify(status, text, CHAT) == (fault, True)


@pytest.mark.parametrize(("text", "fault"), WHOSE)
def test_a_text_that_a_runner_wraps_into_its_own_document_is_known(text: str, fault: Fault) -> None:
    document = json.dumps({"error": {"code": 500, "message": text, "type": "server_error"}})
    for body in ({"error": document}, {"error": {"message": document, "type": "api_error"}}):
        error = failure_of(500, json.dumps(body).encode(), "application/json", CHAT)
        assert (str(error), error.fault, error.is_known) == (text, fault, True)


@pytest.mark.parametrize("text", [text for text, _ in WHOSE])
def test_what_is_refused_with_400_is_the_requests_whatever_it_says(text: str) -> None:
    assert classify(400, text, CHAT) == (Fault.PERMANENT, True)


@pytest.mark.parametrize("endpoint", EMBEDDING)
@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f'Post "{RUNNERS}/tokenize": EOF', Fault.RUNNER),
        (f'Post "{RUNNERS}/tokenize": read: connection reset by peer', Fault.RUNNER),
        (f'Post "{RUNNERS}/detokenize": write: broken pipe', Fault.RUNNER),
        (f'Post "{RUNNERS}/tokenize": dial tcp 127.0.0.1:40001: connect: connection refused', Fault.TRANSIENT),
        (f'do embedding request: Post "{RUNNERS}/v1/embeddings": EOF', Fault.RUNNER),
        ("error reading embed response: unexpected EOF", Fault.RUNNER),
        ("error reading embed response: context deadline exceeded", Fault.TRANSIENT),
        ("tokenize error: x", Fault.TRANSIENT),
        ("detokenize error: x", Fault.TRANSIENT),
        ("tokenize error: connection reset by peer", Fault.RUNNER),
        ("unmarshal embedding response: unexpected end of JSON input", Fault.RUNNER),
        ("empty embedding response", Fault.RUNNER),
        ("server not responding", Fault.TRANSIENT),
        ("no slots available after 10 retries", Fault.TRANSIENT),
        ("model runner has unexpectedly stopped, this may be due to resource limitations", Fault.RUNNER),
        ("llama-server process has terminated: exit status 1", Fault.RUNNER),
        ("mlx runner failed: panic (exit: 2)", Fault.RUNNER),
        ("cudaMalloc failed: out of memory", Fault.RUNNER),
    ],
)
def test_embeddings_of_a_dead_runner_are_not_the_callers_fault(
    endpoint: str, status: int, text: str, fault: Fault
) -> None:
    assert classify(status, text, endpoint) == (fault, True)
    shapes = ({"error": text}, {"error": {"message": text, "type": "invalid_request_error"}})
    for body in shapes:
        assert failure_of(status, json.dumps(body).encode(), "application/json", endpoint).fault == fault


@pytest.mark.parametrize(
    "text",
    [
        "llama-server process has terminated: exit status 1: error: this build does not support vision",
        "an error was encountered while running the model: CUDA error: device does not support vision",
        "error unmarshalling llama-server chat response: invalid character: it does not support tools",
        "mlx runner failed: panic: does not support thinking (exit: 2)",
    ],
)
def test_a_dying_runners_last_words_may_be_about_anything(text: str) -> None:
    assert classify(500, text, CHAT) == (Fault.RUNNER, True)


@pytest.mark.parametrize("text", ["invalid input type", "unexpected EOF", "input exceeds maximum context length", "x"])
def test_other_embeddings_that_are_refused_are_the_callers_fault(text: str) -> None:
    assert classify(400, text, EMBED) == (Fault.PERMANENT, True)


@pytest.mark.parametrize("status", [500, 418, None])
def test_an_unknown_text_is_tried_again_and_said_to_be_unknown(status: int | None) -> None:
    assert classify(status, "something new", CHAT) == (Fault.TRANSIENT, False)
    assert failure_of(500, b'{"error":"something new"}', "application/json", CHAT).is_known is False


@pytest.mark.parametrize("status", [429, 499, 502, 503, 504])
def test_a_status_that_says_enough_makes_an_unknown_text_known(status: int) -> None:
    assert classify(status, "something new", CHAT) == (Fault.TRANSIENT, True)


@pytest.mark.parametrize(
    ("message", "status", "code", "fault"),
    [
        ("model 'x' not found", None, "model_not_found", Fault.PERMANENT),
        ('model "x" not found, try pulling it first', None, "model_not_found", Fault.PERMANENT),
        ("model is required", None, "refused", Fault.PERMANENT),
        ("unauthorized; sign in at https://x", 401, "refused", Fault.PERMANENT),
        ("who are you", 401, "refused", Fault.PERMANENT),
        ("slowly", 429, "backend_error", Fault.TRANSIENT),
        ("server busy, please try again.  maximum pending requests exceeded", None, "backend_busy", Fault.BUSY),
        (DIED + "unexpected EOF", None, "runner_died", Fault.RUNNER),
        (PEG, None, "output_failed", Fault.OUTPUT),
        ("prediction aborted, token repeat limit reached", None, "output_failed", Fault.OUTPUT),
    ],
)
def test_a_failure_inside_a_stream_is_what_it_would_be_with_its_own_status(
    message: str, status: int | None, code: str, fault: Fault
) -> None:
    error = failure_of_ending(Ending(False, error=message, error_status=status), RESPONSES)
    assert error is not None
    assert (str(error), error.code, error.fault, error.status) == (message, code, fault, status or 200)


QUOTING = ("model '{}' not found", 'invalid format: "{}"; expected', "error parsing tool call: raw='{}', err=x")


@given(words=st.sampled_from([text for text, _ in WHOSE]) | st.text(max_size=40))
def test_words_that_are_only_quoted_change_nothing(words: str) -> None:
    found = [classify(500, text.format(words), CHAT).fault for text in QUOTING]
    assert found == [Fault.PERMANENT, Fault.PERMANENT, Fault.OUTPUT]
    assert classify(500, f"Failed to parse input at pos 3: {words}", CHAT).fault == Fault.OUTPUT


def test_every_row_of_the_table_is_met_by_one_of_these_texts() -> None:
    texts = [text for text, _ in WHOSE]
    texts += ["server busy, please try again", "unable to load full model on GPU"]
    texts += ["llama-server chat stream event exceeded 8 MB limit"]
    unmet = [row for row in ROWS if not any(row.pattern.search(text) for text in texts)]
    assert unmet == []
