"""What ends a request of the simulated Ollama with an error: each family of routes puts it into its own shape."""

from __future__ import annotations


class ReplyError(Exception):
    """A reply other than 200, in the words of the wire contract, 3.2.

    `is_late` marks what a real Ollama finds out only inside the stream that it has begun to prepare: such an error
    travels chunked, and its content type has no charset.
    """

    def __init__(self, status: int, message: str, *, is_late: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.is_late = is_late


class EmptyBodyError(ReplyError):
    """There was nothing to read: native routes have words of their own for that."""

    def __init__(self) -> None:
        super().__init__(400, "EOF")
