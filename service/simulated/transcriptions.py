"""`/v1/audio/transcriptions`: from OpenAI's form to the native chat (wire contract 1.7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from email import message_from_bytes
from email.message import Message

from service.simulated import go_json
from service.simulated.answers import Answer
from service.simulated.errors import ReplyError
from service.simulated.generation import Call
from service.simulated.wire import NDJSON, Timing

_ASKED = "Transcribe the audio exactly as spoken."


class TranscriptionFormat:
    """Words in one piece behind the last token. The head goes out with the first token, before its type is known; an
    error that comes after that is swallowed.
    """

    stream_type = NDJSON
    stream_headers: Mapping[str, str] = {}
    whole_type = NDJSON

    def __init__(self, *, is_text: bool) -> None:
        self._is_text = is_text

    def frames(self, answer: Answer) -> Iterator[bytes]:
        return (b"" for _ in range(answer.token_count))

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        return self.whole(answer, timing)

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        text = "".join(answer.tokens).strip()
        return text.encode() if self._is_text else go_json.encode({"text": text}) + b"\n"

    def broken(self, message: str) -> bytes:
        return b""

    def nothing(self) -> bytes:
        return b""


def read_transcription(content_type: str, body: bytes) -> Call:
    """Raises ReplyError for what Ollama refuses; of a field that occurs twice the first counts."""
    form = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    if form.get_content_type() != "multipart/form-data" or not form.is_multipart():
        raise ReplyError(400, "failed to parse multipart form: request Content-Type isn't multipart/form-data")
    fields: dict[str, bytes] = {}
    files: dict[str, bytes] = {}
    for part in form.walk():
        name = part.get_param("name", header="Content-Disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            (files if _is_file(part) else fields).setdefault(name, content)
    model = fields.get("model", b"").decode(errors="replace")
    if not model:
        raise ReplyError(400, "model is required")
    if "file" not in files:
        raise ReplyError(400, "file is required: http: no such file")
    if not files["file"]:
        raise ReplyError(400, "audio file is empty")
    prompt = fields.get("prompt", b"").decode(errors="replace")
    return Call(
        route="chat",
        wire=TranscriptionFormat(is_text=fields.get("response_format") == b"text"),
        model=model,
        prompt=prompt,
        history_length=len(_ASKED) + len(files["file"]),
        is_stream=True,
        options={"temperature": 0},
    )


def _is_file(part: Message) -> bool:
    return bool(part.get_filename())
