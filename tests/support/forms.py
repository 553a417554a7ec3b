"""Forms as clients send them, and as none should."""

from __future__ import annotations

BOUNDARY = "----formdata-of-the-tests"
SOUND = b"RIFF\x00\xff\r\n--\r\nsound\n\r" + bytes(range(256))
PATH = "/v1/audio/transcriptions"


def form_type(boundary: str = BOUNDARY) -> str:
    return f"multipart/form-data; boundary={boundary}"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    """One part, between its boundaries."""
    lines = [f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def field(name: str, value: str | bytes) -> bytes:
    return part(f'form-data; name="{name}"', value.encode() if isinstance(value, str) else value)


def file(content: bytes = SOUND, name: str = "file", file_name: str = "speech.wav") -> bytes:
    return part(f'form-data; name="{name}"; filename="{file_name}"', content, "Content-Type: audio/wav")


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """The body of these parts."""
    delimiter = b"--" + boundary.encode()
    return b"".join(delimiter + b"\r\n" + one + b"\r\n" for one in parts) + delimiter + b"--\r\n"


def speech(boundary: str = BOUNDARY, sound: bytes = SOUND, **fields: str) -> bytes:
    """A form that asks what is said in a sound."""
    return form(*(field(name, value) for name, value in fields.items()), file(sound), boundary=boundary)
