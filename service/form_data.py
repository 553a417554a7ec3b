"""Bodies of the type multipart/form-data (RFC 7578), which go to a backend byte for byte and are kept as text.

Two readings of one body would be a way past every rule. A form is therefore taken only where Go's mime/multipart, by
which Ollama reads it, and everybody else must find the same in it: each boundary on a line of its own, no text around
the parts, plain headers, and each name once. As in Go, names count with their case, and a part is a file that has a
file's name.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from service.errors import InvalidRequestError

_MOST_PARTS = 100
_MOST_HEAD_BYTES = 4 * 1024
"""Of one part's headers."""
_MOST_FIELD_BYTES = 256 * 1024
"""Of all fields together that are no files."""
_MOST_SHOWN = 255
"""Characters of a file's name and of its type."""
_AT_ONCE = 3 * 256 * 1024
"""Bytes that are written in base64 before others have their turn: whole groups of three."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})=(?:"((?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*)"|({_TOKEN}))')
_HEADER = re.compile(rf"({_TOKEN}):[ \t]*([^\r\n\0]*)")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_ESCAPED = re.compile(r"\\(.)")
_EXTENDED = re.compile(r"(?i:utf-8|us-ascii)'[^']*'((?:[^%]|%[0-9A-Fa-f]{2})+)")
"""A file's name as RFC 5987 writes it, as far as Go reads it."""
_PLAIN_ENCODINGS = ("7bit", "8bit", "binary")
_OF_THE_TYPE = {"boundary", "charset"}
"""Another parameter may be another boundary: Go reads ``boundary*`` and ``boundary*0`` (RFC 2231), and prefers them."""


class Part(NamedTuple):
    """A field of a form; ``file_name`` is None where it is no file."""

    name: str
    file_name: str | None
    content_type: str
    content: memoryview


class Form:
    """A form that has been read; it holds the body."""

    def __init__(self, content_type: str, body: bytes) -> None:
        """``content_type`` is that of the request. Raises InvalidRequestError for what is no form, or one that could be
        read in another way.
        """
        self.content_type = content_type
        self._body = body
        self._parts = list(_parts(body, _boundary_in(content_type)))
        _check(self._parts)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that are no files, by their names; of a name that ends with ``[]``, a list."""
        fields: dict[str, Any] = {}
        for part in self._parts:
            if part.file_name is None:
                _add(fields, part.name, _text(part.content))
        return fields

    @property
    def shown(self) -> dict[str, Any]:
        """The fields, and in place of each file what is known of it."""
        shown: dict[str, Any] = {}
        for part in self._parts:
            told: Any = _text(part.content)
            if part.file_name is not None:
                told = {"filename": part.file_name, "content_type": part.content_type, "size": len(part.content)}
            _add(shown, part.name, told)
        return shown

    async def fingerprint(self) -> bytes:
        """The same for all forms with these fields and files, in whichever order and between whichever boundaries:
        clients make a new boundary when they send a form again.
        """
        whole = sha256()
        for part in sorted(self._parts, key=lambda part: part.name):
            told = json.dumps([part.name, part.file_name, len(part.content)]).encode()
            whole.update(b"%d:%b" % (len(told), told))
            for start in range(0, len(part.content), _AT_ONCE):
                whole.update(part.content[start : start + _AT_ONCE])
                await asyncio.sleep(0)
        return whole.digest()

    async def stored(self) -> bytes:
        """The form as it is kept: a line of JSON that tells of it, and the body in base64."""
        told = {"content_type": self.content_type, "form": self.shown}
        pieces = [json.dumps(told, separators=(",", ":")).encode() + b"\n"]
        view = memoryview(self._body)
        for start in range(0, len(view), _AT_ONCE):
            pieces.append(b64encode(view[start : start + _AT_ONCE]))
            await asyncio.sleep(0)
        return b"".join(pieces)


class SentForm(NamedTuple):
    """A form as its caller sent it."""

    content_type: str
    body: bytes


async def sent_form(stored: str) -> SentForm:
    """The form that was kept so."""
    start = stored.index("\n") + 1
    size = _AT_ONCE // 3 * 4
    pieces = []
    for place in range(start, len(stored), size):
        pieces.append(b64decode(stored[place : place + size]))
        await asyncio.sleep(0)
    return SentForm(str(json.loads(stored[:start])["content_type"]), b"".join(pieces))


def shown_form(first_line: str) -> dict[str, Any]:
    """What is shown of a form that was kept so, by the first line of what is kept."""
    return dict(json.loads(first_line)["form"])


def _boundary_in(content_type: str) -> bytes:
    kind, _, _ = content_type.partition(";")
    if kind.strip(" \t").lower() != "multipart/form-data":
        raise _refused("request Content-Type isn't multipart/form-data")
    parameters = _parameters(content_type[len(kind) :], "Content-Type")
    boundary = parameters.get("boundary")
    if boundary is None:
        raise _refused("no multipart boundary param in Content-Type")
    if parameters.keys() - _OF_THE_TYPE or not content_type.isascii():
        raise _refused("a Content-Type must have nothing but a boundary and a charset")
    if not _BOUNDARY.fullmatch(boundary):
        raise _refused("the boundary must be 1 to 70 of the characters that RFC 2046 allows")
    return boundary.encode()


def _parameters(text: str, header: str) -> dict[str, str]:
    """The parameters behind the first word of a header, as they are written between their quotes."""
    parameters: dict[str, str] = {}
    place, text = 0, text.rstrip(" \t")
    while place < len(text):
        found = _PARAMETER.match(text, place)
        if found is None:
            raise _refused(f"the parameters of a {header} cannot be read")
        name, quoted, token = found.groups()
        if name.lower() in parameters:
            raise _refused(f"a parameter of a {header} occurs twice")
        parameters[name.lower()] = token if quoted is None else quoted
        place = found.end()
    return parameters


def _parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    delimiter = b"--" + boundary
    if not body.startswith(delimiter):
        raise _refused("it does not begin with its boundary")
    view, place, number = memoryview(body), len(delimiter), 0
    while body[place : place + 2] == b"\r\n":
        begin = place + 2
        following = body.find(delimiter, begin)
        if following < 0:
            raise _refused("it is cut off")
        end = following - 2
        if end < begin or body[end:following] != b"\r\n":
            raise _refused("its boundary stands within a part")
        number += 1
        if number > _MOST_PARTS:
            raise _refused(f"it has more than {_MOST_PARTS} parts")
        yield _part(body, view, begin, end)
        place = following + len(delimiter)
    if body[place : place + 2] != b"--":
        raise _refused("its boundary stands within a part")
    if body[place + 2 : place + 5] not in (b"", b"\r\n"):
        raise _refused("something follows its end")


def _part(body: bytes, view: memoryview, begin: int, end: int) -> Part:
    """The part between these places. Raises InvalidRequestError."""
    head_end = body.find(b"\r\n\r\n", begin, min(end, begin + _MOST_HEAD_BYTES))
    if head_end < 0:
        raise _refused(f"a part has no headers, or more than {_MOST_HEAD_BYTES} bytes of them")
    headers: dict[str, str] = {}
    for line in body[begin:head_end].decode("latin-1").split("\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in headers:
            raise _refused("the headers of a part cannot be read")
        headers[found[1].lower()] = found[2].rstrip(" \t")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise _refused("a part is encoded; send it as it is")
    disposition = headers.get("content-disposition", "")
    kind, _, _ = disposition.partition(";")
    if kind.strip(" \t").lower() != "form-data":
        raise _refused("a part has no Content-Disposition: form-data")
    parameters = _parameters(disposition[len(kind) :], "Content-Disposition")
    name = parameters.get("name", "")
    if not name or "\\" in name or parameters.keys() - {"name", "filename", "filename*"}:
        raise _refused("a part must have a name, and nothing but a file's name beside it")
    content_type = headers.get("content-type", "")[:_MOST_SHOWN]
    return Part(_decoded(name), _file_name(parameters), content_type, view[head_end + 4 : end])


def _file_name(parameters: dict[str, str]) -> str | None:
    """A file's name; None where there is none, or an empty one: that is a field to Go. Raises InvalidRequestError."""
    extended = parameters.get("filename*")
    if extended is None:
        name = _decoded(_ESCAPED.sub(r"\1", parameters.get("filename", "")))
    else:
        found = _EXTENDED.fullmatch(extended)
        if found is None:
            raise _refused("the name of a file cannot be read")
        name = unquote_to_bytes(found[1]).decode(errors="replace")
    return name[:_MOST_SHOWN] or None


def _check(parts: list[Part]) -> None:
    """Refuse a form that names a field twice, or holds too much beside its files."""
    seen: set[str] = set()
    for part in parts:
        if part.name in seen and not _is_list(part.name):
            shown = part.name[:100]
            raise InvalidRequestError(f"{shown!r} occurs twice; send it once", shown)
        seen.add(part.name)
    if sum(len(part.content) for part in parts if part.file_name is None) > _MOST_FIELD_BYTES:
        raise _refused(f"its fields have more than {_MOST_FIELD_BYTES} bytes beside its files")


def _add(fields: dict[str, Any], name: str, value: Any) -> None:
    if _is_list(name):
        fields.setdefault(name, []).append(value)
    else:
        fields[name] = value


def _is_list(name: str) -> bool:
    """Whether the name is of the kind that OpenAI's API has for lists, such as ``timestamp_granularities[]``."""
    return name.endswith("[]")


def _text(content: memoryview) -> str:
    return bytes(content).decode(errors="replace")


def _decoded(header: str) -> str:
    """Headers are decoded byte by byte; names in them are UTF-8."""
    return header.encode("latin-1").decode(errors="replace")


def _refused(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"failed to parse multipart form: {why}")
