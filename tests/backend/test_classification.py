"""What each error of Ollama's means for its job: the rows of the wire contract's table 3.2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backend.classification import classify, failure_of, failure_of_ending, foreign_reply, message_of
from service.backend.protocols import Ending, reader_for
from service.errors import Fault

RECORDINGS = Path(__file__).parent.parent / "recordings"

GENERATE, CHAT, EMBED, EMBEDDINGS = "/api/generate", "/api/chat", "/api/embed", "/api/embeddings"
PERMANENT, OUTPUT, TRANSIENT, RUNNER, BUSY = (
    Fault.PERMANENT,
    Fault.OUTPUT,
    Fault.TRANSIENT,
    Fault.RUNNER,
    Fault.BUSY,
)

OVERFLOW = (
    '{"error":{"code":400,"message":"request (900 tokens) exceeds the available context size (512 tokens), '
    'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":900,"n_ctx":512}}'
)

ROWS: list[tuple[str, int | None, str, str, Fault]] = [
    ("1", 400, GENERATE, "missing request body", PERMANENT),
    ("2", 400, CHAT, "invalid character 'x' looking for beginning of value", PERMANENT),
    ("2", 400, CHAT, "unexpected EOF", PERMANENT),
    ("2", 400, EMBED, "unexpected EOF", PERMANENT),
    ("2", 400, "/v1/embeddings", "EOF", PERMANENT),
    (
        "2",
        400,
        EMBED,
        "json: cannot unmarshal number into Go struct field EmbedRequest.model of type string",
        PERMANENT,
    ),
    ("2", 400, GENERATE, 'time: missing unit in duration "5"', PERMANENT),
    ("2", 400, GENERATE, 'invalid think value: "server busy, please try again." (must be "high")', PERMANENT),
    ("2", 400, GENERATE, "illegal base64 data at input byte 4", PERMANENT),
    ("2", 500, CHAT, "Failed to create new sequence: failed to process inputs: image: unknown format", PERMANENT),
    ("3", 404, GENERATE, "model '' not found", PERMANENT),
    ("4", 400, CHAT, "model is required", PERMANENT),
    ("5", 400, CHAT, "invalid model name", PERMANENT),
    ("6", 400, CHAT, "use either :local or :cloud, not both: x", PERMANENT),
    ("7", 404, CHAT, "model 'x' not found", PERMANENT),
    ("8", 404, EMBED, 'model "x" not found, try pulling it first', PERMANENT),
    ("9", 404, "/api/copy", 'model "x" not found', PERMANENT),
    ("10", 400, GENERATE, '"x" does not support generate', PERMANENT),
    ("11", 400, CHAT, "registry.ollama.ai/library/x:latest does not support tools", PERMANENT),
    ("12", 400, CHAT, '"x" does not support thinking', PERMANENT),
    ("13", 501, EMBED, "This server does not support embeddings. Start it with `--embeddings`", PERMANENT),
    ("13b", 500, EMBEDDINGS, "This server does not support embeddings. Start it with `--embeddings`", PERMANENT),
    ("14", 400, CHAT, "top_logprobs must be between 0 and 20", PERMANENT),
    ("15", 400, GENERATE, "raw mode does not support template, system, or context", PERMANENT),
    ("16", 400, GENERATE, "image generation models are not currently supported", PERMANENT),
    ("17", 500, CHAT, 'option "num_ctx" must be of type integer', PERMANENT),
    ("17", 500, CHAT, 'option "stop" must be of an array of strings', PERMANENT),
    ("18", 500, CHAT, 'invalid format: "x"; expected "json" or a valid JSON Schema object', PERMANENT),
    ("19", 400, CHAT, "Failed to initialize samplers: failed to parse grammar", PERMANENT),
    ("19", 500, CHAT, "failed to parse grammar", PERMANENT),
    ("19", 500, CHAT, "invalid JSON schema in format", PERMANENT),
    ("20", 500, GENERATE, 'template: :1: function "x" not defined', PERMANENT),
    ("21", 400, CHAT, "the prompt is longer than the context length currently available to the model; x", PERMANENT),
    ("22", 400, CHAT, OVERFLOW, PERMANENT),
    ("22", 500, CHAT, OVERFLOW, PERMANENT),
    ("23", 400, EMBED, "the input length exceeds the context length", PERMANENT),
    ("23", 500, EMBEDDINGS, "the input length exceeds the context length", PERMANENT),
    ("24", 400, EMBED, "input after truncation exceeds maximum context length", PERMANENT),
    ("24", 400, EMBED, "input exceeds maximum context length and cannot be truncated further", PERMANENT),
    ("25", 400, EMBED, "invalid input type", PERMANENT),
    ("26", 400, EMBED, "embedding contains NaN or Inf values", RUNNER),
    ("27", 400, EMBED, 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF', RUNNER),
    ("27", 400, "/v1/embeddings", 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF', RUNNER),
    ("27", 400, EMBED, 'do embedding request: Post "http://127.0.0.1:1": dial tcp: connection refused', TRANSIENT),
    ("27", 400, EMBED, "unexpected server status: llm server loading model", TRANSIENT),
    ("27", 400, EMBED, "llama-server process no longer running: -1 x", TRANSIENT),
    ("28", 500, EMBEDDINGS, 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF', RUNNER),
    ("28", 500, EMBEDDINGS, "llama-server process no longer running: -1 x", TRANSIENT),
    ("29", 503, CHAT, "server busy, please try again.  maximum pending requests exceeded", BUSY),
    ("30", 499, CHAT, "request canceled", TRANSIENT),
    ("31", 500, CHAT, "llama-server reported out-of-memory during startup: x", RUNNER),
    ("31", 500, CHAT, "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed", RUNNER),
    ("31", 500, CHAT, "model requires more system memory (9 GiB) than is available (4 GiB)", RUNNER),
    ("31", 500, CHAT, "model requires 9 GiB but only 4 GiB are available", RUNNER),
    ("31", 500, CHAT, "unable to load full model on GPU", RUNNER),
    ("32", 500, CHAT, "llama-server process has terminated: exit status 2: x", RUNNER),
    ("32", 500, CHAT, "llama runner process has terminated: signal: killed", RUNNER),
    ("32", 500, CHAT, "model failed to load, this may be due to resource limitations or an internal error", RUNNER),
    ("32", 500, CHAT, "unable to load model: /models/blobs/sha256-5421", RUNNER),
    ("32", 500, CHAT, 'tensor "blk.1.attn_k.weight" offset+size (9066848) exceeds file size (9000000)', RUNNER),
    ("33", 500, CHAT, "timed out waiting for llama-server to start - progress 0.10 - x", RUNNER),
    (
        "34",
        500,
        CHAT,
        "llama-server process has terminated: failed to load model: this model may be incompatible with your version "
        "of Ollama. If you previously pulled this model, try updating it",
        PERMANENT,
    ),
    ("34", 500, CHAT, "error loading model architecture: unknown model architecture: 'x'", PERMANENT),
    # The host is broken, not the request: another one may take it.
    ("35", 500, CHAT, "error starting llama-server: exec: llama-server binary not found", TRANSIENT),
    ("36", 500, CHAT, "'llama3.2-vision' is no longer compatible with your version of Ollama", PERMANENT),
    ("37", 500, CHAT, "unexpected server status: llm server loading model", TRANSIENT),
    ("37", 500, CHAT, "llm busy - no slots available", TRANSIENT),
    ("37", 500, CHAT, "no slots available after 10 retries", TRANSIENT),
    ("37", 500, CHAT, "llama-server error: x", TRANSIENT),
    (
        "38",
        500,
        CHAT,
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, check "
        "ollama server logs for details",
        RUNNER,
    ),
    ("39", 500, CHAT, "an error was encountered while running the model: unexpected EOF", RUNNER),
    ("39", None, CHAT, "an error was encountered while running the model: CUDA error", RUNNER),
    ("40", 500, CHAT, "CUDA error: out of memory", RUNNER),
    ("41", None, CHAT, "error unmarshalling llama-server response: invalid character", RUNNER),
    ("41", None, CHAT, "error reading llama-server response: x", RUNNER),
    ("41", None, CHAT, "llama-server completion stream event exceeded 8 MB limit", RUNNER),
    ("42", 422, CHAT, "x", PERMANENT),
    ("42", 500, CHAT, "x", TRANSIENT),
    ("43", None, CHAT, 'llama-server returned invalid tool call arguments for "x": unexpected end', OUTPUT),
    ("43", 500, CHAT, 'llama-server returned invalid tool call arguments for "x": unexpected end', OUTPUT),
    ("44", 500, CHAT, "open /root/.ollama/models/blobs/sha256-x: permission denied", TRANSIENT),
    ("45", 403, CHAT, "ollama cloud is disabled: remote model is unavailable", PERMANENT),
    ("46", 401, CHAT, "unauthorized", PERMANENT),
    ("47", 400, CHAT, "this server cannot run this remote model", PERMANENT),
    ("48", 502, CHAT, "dial tcp: lookup ollama.com: no such host", TRANSIENT),
    ("49", 402, CHAT, "payment required", PERMANENT),
    ("49", 413, CHAT, "too large", PERMANENT),
    ("49", 429, CHAT, "too many requests", TRANSIENT),
    ("49", 503, CHAT, "Server overloaded, please retry shortly (ref: x)", TRANSIENT),
    ("50", 500, "/api/pull", "pull model manifest: file does not exist", PERMANENT),
    ("50", None, "/api/pull", "pull model manifest: file does not exist", PERMANENT),
    ("51", 500, "/api/pull", "unauthorized: access denied", PERMANENT),
    ("51", None, "/api/push", "insecure protocol http", PERMANENT),
    ("52", 403, CHAT, "", PERMANENT),
    ("53", 404, CHAT, "404 page not found", PERMANENT),
    ("53", 405, CHAT, "405 method not allowed", PERMANENT),
    ("54", None, CHAT, "", TRANSIENT),
]


@pytest.mark.parametrize(("row", "status", "endpoint", "message", "fault"), ROWS)
def test_every_row_of_the_catalogue(row: str, status: int | None, endpoint: str, message: str, fault: Fault) -> None:
    assert classify(status, message, endpoint).fault == fault


@given(name=st.text(max_size=40))
def test_words_of_a_caller_do_not_make_a_refusal_anything_else(name: str) -> None:
    for word in (name, "out of memory", "process has terminated", "server busy, please try again"):
        assert classify(404, f"model '{word}' not found", CHAT).fault == PERMANENT
        assert classify(500, f'invalid format: "{word}"; expected "json"', CHAT).fault == PERMANENT


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error":"bad"}', "bad"),
        ('{"error":"unauthorized","signin_url":"https://x"}', "unauthorized"),
        ('{"error":"bad","StatusCode":400,"Status":"400 Bad Request"}', "bad"),
        ('{"error":{"message":"bad","type":"api_error","param":null,"code":null}}', "bad"),
        ('{"type":"error","error":{"type":"api_error","message":"bad"},"request_id":"req_1"}', "bad"),
        (json.dumps({"error": '{"error":{"code":400,"message":"bad"}}'}), "bad"),
        (json.dumps({"error": {"message": '{"error":{"code":400,"message":"bad"}}'}}), "bad"),
        ('{"error":"{not json"}', "{not json"),
        ('{"error":{"code":7}}', '{"code":7}'),
        ('{"error":""}', ""),
        ("404 page not found", "404 page not found"),
        ("  bad\n", "bad"),
        ("", ""),
        ('"bad"', "bad"),
        ("\xff", "\xff"),
    ],
)
def test_the_message_is_found_in_every_shape(body: str, message: str) -> None:
    assert message_of(body.encode(), "application/json") == message


@given(body=st.binary(max_size=300), content_type=st.sampled_from(["", "text/html", "text/plain", "application/json"]))
def test_any_body_has_a_message(body: bytes, content_type: str) -> None:
    assert isinstance(message_of(body, content_type), str)


def test_a_message_is_bounded_and_nests_no_deeper_than_sense() -> None:
    assert len(message_of(b"x" * 100_000, "text/plain")) == 4000
    nested: Any = "bad"
    for _ in range(50):
        nested = {"error": nested}
    assert len(message_of(json.dumps(nested).encode(), "application/json")) < 1000


def test_an_html_page_is_not_shown() -> None:
    assert message_of(b"<html><script>", "text/html") == "an HTML page"


@pytest.mark.parametrize(
    ("status", "content_type", "fault"),
    [
        (200, "text/html", Fault.ABSENT),
        (404, "text/html", Fault.PERMANENT),
        (502, "text/html", Fault.ABSENT),
        (504, "text/html", Fault.TRANSIENT),
        (302, "", Fault.ABSENT),
        (413, "text/html", None),
        (200, "application/x-ndjson", None),
        (404, "text/plain", None),
    ],
)
def test_a_reply_of_somebody_else_is_known_by_its_head(status: int, content_type: str, fault: Fault | None) -> None:
    error = foreign_reply(status, content_type)
    assert (error and error.fault) == fault
    assert error is None or error.code == "not_ollama"


def test_a_failure_says_what_and_why() -> None:
    error = failure_of(404, b'{"error":"model \'x\' not found"}', "application/json", CHAT)
    assert (str(error), error.code, error.fault, error.status) == (
        "model 'x' not found",
        "model_not_found",
        PERMANENT,
        404,
    )
    assert failure_of(400, b'{"error":"model is required"}', "application/json", CHAT).code == "refused"
    assert failure_of(403, b"", "", CHAT).fault == PERMANENT
    assert str(failure_of(403, b"", "", CHAT)) == "status 403"
    assert failure_of(413, b"<html>", "text/html", CHAT).fault == PERMANENT


def test_json_without_an_error_is_not_ollamas() -> None:
    error = failure_of(404, b'{"detail":"Not Found"}', "application/json", CHAT)
    assert (error.code, error.fault) == ("not_ollama", Fault.ABSENT)


def test_the_end_of_a_reply_is_judged() -> None:
    assert failure_of_ending(Ending(True), CHAT) is None
    cut = failure_of_ending(Ending(False), CHAT)
    assert cut is not None
    assert (cut.code, cut.fault) == ("truncated", OUTPUT)
    ended = failure_of_ending(Ending(False, is_repeated=True), CHAT)
    assert ended is not None
    assert (ended.code, ended.fault) == ("repeated", Fault.ENDED)
    died = failure_of_ending(Ending(False, error="an error was encountered while running the model: x"), CHAT)
    assert died is not None
    assert (died.code, died.fault) == ("runner_died", RUNNER)


def failed_exchanges() -> list[Any]:
    exchanges = [(path.stem, json.loads(path.read_text())) for path in sorted(RECORDINGS.glob("*.json"))]
    return [
        pytest.param(name, exchange, id=name)
        for name, exchange in exchanges
        if exchange["response"]["status"] >= 400 or name.startswith("fault-")
    ]


@pytest.mark.parametrize(("name", "exchange"), failed_exchanges())
def test_recorded_failures_mean_what_they_should(name: str, exchange: dict[str, Any]) -> None:
    response, path = exchange["response"], exchange["request"]["path"]
    body = "".join(response["chunks"]).encode()
    content_type = response["headers"].get("Content-Type", "").partition(";")[0]
    if response["status"] == 200:
        reader = reader_for(path, streamed=True)
        for chunk in response["chunks"]:
            reader.feed(b"" if chunk.startswith("... ") else chunk.encode())
        error = failure_of_ending(reader.finish(), path)
        assert error is not None
    else:
        error = failure_of(response["status"], body, content_type, path)
    expected = BUSY if "busy" in name else RUNNER if name.startswith("fault-") else PERMANENT
    if error.code == "truncated":
        expected = OUTPUT
    assert error.fault == expected
    assert error.code in {"backend_busy", "runner_died", "truncated", "refused", "model_not_found"}
