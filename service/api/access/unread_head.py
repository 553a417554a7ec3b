"""What is still found in the head of a request that cannot be read as a whole."""

from __future__ import annotations


def header_in(head: bytes, name: str) -> str | None:
    """The first header of this name, in lower case; None where the head, or what has come of it, has none."""
    sought = name.encode()
    for line in head.lstrip(b"\r\n").partition(b"\r\n\r\n")[0].split(b"\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == sought:
            return value.decode("latin-1").strip(" \t\r")
    return None
