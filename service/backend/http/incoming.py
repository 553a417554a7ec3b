"""A reply as it comes in: what is hard about HTTP, reading it, is llhttp's, through httptools.

Only what httptools documents is used, but for one habit: its parser looks up ``on_body`` when it is made and calls that
with ``bytes`` of their own, so that a list's ``append`` can stand there. :func:`check_parser` asserts it at the start.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy


class NotHttpError(Exception):
    """What came is no reply of HTTP/1."""


class IncomingReply:
    """The replies of one connection, one after the other. Its ``on_`` methods are for the parser alone."""

    __slots__ = (
        "_headers",
        "_parser",
        "_whole_pieces",
        "has_head",
        "headers",
        "is_head_only",
        "is_whole",
        "keeps_alive",
        "on_body",
        "pieces",
        "status",
    )

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        """What has come of the body and nobody has read yet."""
        # A stream has a piece for every token: no method of ours is called for it.
        self.on_body = self.pieces.append
        self._parser: HttpResponseParser | None = None
        self.is_head_only = False
        """The request was HEAD: its reply has no body, whatever length it speaks of."""
        self.begin()

    def begin(self) -> None:
        """The next reply is to come."""
        self._headers: list[tuple[str, str]] = []
        self.pieces.clear()
        self._whole_pieces: int | None = None
        """How many of the pieces are the reply's, once it is whole."""
        self.status = 0
        self.headers: CIMultiDictProxy[str] | None = None
        self.has_head = False
        self.is_whole = False
        """All of the reply has come, if not yet been read."""
        self.keeps_alive = False
        """The reply has come to its end, and another may follow it on this connection."""

    def open(self) -> None:
        """The connection is made."""
        self._parser = parser = HttpResponseParser(self)
        # What servers on the way get wrong without doubt about what they mean.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes) -> None:
        """These bytes have come. Raises NotHttpError for what is no reply; what follows a whole reply is left out."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as problem:
            if not self.is_whole:
                raise NotHttpError(str(problem)) from problem
        if self._whole_pieces is not None:
            del self.pieces[self._whole_pieces :]

    def end(self) -> None:
        """The server has closed the connection as it should; that is the end of a body that has no other one."""
        if self.headers is not None and _ends_with_its_connection(self.headers):
            self.is_whole = True

    def close(self) -> None:
        """The connection is gone. Parser and reply hold each other, and are freed at once when they no longer do."""
        self._parser = None

    # What the parser says

    def on_message_begin(self) -> None:
        if self.is_whole:
            # Nobody has asked for another reply, and whoever asks next would get the rest of this one.
            self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            if b"\0" in value:
                # The parser lets it pass, but it could be sent on to nobody.
                raise NotHttpError("a header with a null byte")
            self._headers.append((_text(name), _text(value.rstrip(b" \t"))))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self.has_head:
            return
        status = parser.get_status_code()
        if status < 200:
            # An interim reply: the one that counts follows (RFC 9110, 15.2).
            self._headers = []
            return
        self.status = status
        self.headers = CIMultiDictProxy(CIMultiDict(self._headers))
        self.has_head = True
        if self.is_head_only:
            # The parser would wait for the body that the length speaks of, so the connection serves no other request.
            self.is_whole = True
            self._whole_pieces = 0

    def on_message_complete(self) -> None:
        if self.has_head and not self.is_whole:
            assert self._parser is not None
            self.is_whole = True
            self._whole_pieces = len(self.pieces)
            self.keeps_alive = self._parser.should_keep_alive()


def check_parser() -> None:
    """Assert what is relied on beyond what httptools documents."""
    reply = IncomingReply()
    reply.open()
    for data in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1", b"2"):
        reply.feed(data)
    assert reply.pieces == [b"1", b"2"], "httptools no longer calls on_body as this client needs it"
    reply.close()


def _ends_with_its_connection(headers: CIMultiDictProxy[str]) -> bool:
    """Whether the reply's head gives its body no other end (RFC 9112, 6.3)."""
    return "Content-Length" not in headers and "chunked" not in headers.get("Transfer-Encoding", "").lower()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
