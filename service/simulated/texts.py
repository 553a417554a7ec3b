"""What newer versions of Ollama say of errors, for the faults that send them (wire contract 3.2, by its rows)."""

from __future__ import annotations

from service.simulated import go_json

RUNNER_URL = "http://127.0.0.1:40001"


def _runner_error(status: int, message: str, kind: str) -> str:
    """The runner's own JSON, which Ollama passes on as a string."""
    return go_json.encode({"error": {"code": status, "message": message, "type": kind}}).decode()


def _chat_error(status: int, message: str, kind: str) -> str:
    """An error in the middle of the runner's chat stream, as Go prints a map."""
    return f"llama-server chat error: map[code:{status} message:{message} type:{kind}]"


def template_refusal(words: str = "System message must be at the beginning.") -> str:
    """The 500 of a model's own (Jinja) template that does not take the messages (row 20b, since 0.30)."""
    place = f"...first %}}↵            {{{{- raise_exception('{words[:36]}..."
    arrow = " " * 43 + "^"
    return _runner_error(
        500,
        f"\n------------\nWhile executing CallExpression at line 85, column 32 in source:\n{place}\n{arrow}\n"
        f"Error: Jinja Exception: {words}",
        "server_error",
    )


def context_exceeded(tokens: int, context: int) -> str:
    """The 400 for a prompt that is too long (row 22)."""
    error = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size ({context} tokens), "
        "try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
    return go_json.encode({"error": error}).decode()


def mlx_context_exceeded(tokens: int, context: int) -> str:
    """The 400 of the MLX runner for the same."""
    return f"input length ({tokens} tokens) exceeds the model's maximum context length ({context} tokens)"


TOKEN_REPEATS = "prediction aborted, token repeat limit reached"  # row 39b, since 0.34.1

# What the model wrote could not be parsed (row 43): as a whole reply's 500, and in the middle of a chat's stream.
_UNPARSED = "The model produced output that does not match the expected peg-native format"
UNPARSED_OUTPUT = _runner_error(500, _UNPARSED, "server_error")
UNPARSED_IN_STREAM = _chat_error(500, _UNPARSED, "server_error")
UNPARSED_TOOL_CALL = (
    "error parsing tool call: raw='{\"city\": Paris}', err=invalid character 'P' looking for beginning of value"
)

CHAT_CONTEXT_EXCEEDED = _chat_error(500, "Context size has been exceeded.", "server_error")  # row 41
CHAT_ERROR = _chat_error(500, "Compute error.", "server_error")

# The runner was gone when it should have applied its template (row 37).
TEMPLATE_WITHOUT_RUNNER = f'llama-server apply-template error: Post "{RUNNER_URL}/apply-template": EOF'
TEMPLATE_REPLY_CUT = "failed reading llama-server template response: unexpected EOF"

# A request for vectors whose runner is gone or going: the first is said since 0.30, the second by 0.24 (row 27).
TOKENIZE_EOF = f'Post "{RUNNER_URL}/tokenize": EOF'
EMBEDDING_EOF = f'do embedding request: Post "{RUNNER_URL}/embedding": EOF'
EMBEDDING_FAILURES = (
    TOKENIZE_EOF,
    f'Post "{RUNNER_URL}/tokenize": read tcp 127.0.0.1:51812->127.0.0.1:40001: read: connection reset by peer',
    f'Post "{RUNNER_URL}/tokenize": dial tcp 127.0.0.1:40001: connect: connection refused',
    f"tokenize error: {_runner_error(503, 'Loading model', 'unavailable_error')}",
    f"detokenize error: {_runner_error(503, 'Loading model', 'unavailable_error')}",
    "error reading embed response: unexpected EOF",
    EMBEDDING_EOF,
    "unexpected server status: llm server loading model",
    "llama-server process no longer running: -1 signal: killed",
)

# The MLX runner: at a load (rows 31 to 33), before the first token (38) and after it (39).
MLX_LOAD_FAILURES = (
    "mlx runner failed: panic: mlx: [metal] Maximum threads per threadgroup exceeded (exit: exit status 2)",
    "mlx runner exited unexpectedly: exit status 2",
    "timeout waiting for mlx runner to start",
)
MLX_EOF = f'Post "{RUNNER_URL}/completion": EOF'
MLX_STREAM_EOF = "unexpected EOF"
MLX_FAILED = "mlx runner failed: panic: mlx: [metal::Device] Unable to allocate"
MLX_NO_EMBEDDINGS = "not supported"
