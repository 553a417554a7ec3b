"""What the scripts expect of their libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

QUESTION = "Why is the sky blue?"
BREAK_OFF = "Please break off."
MODEL = "llama3.2"
SPELLING = "LLAMA3.2:latest"
THINKER = "qwen3:4b"
EMBEDDER = "nomic-embed-text"


def expect(is_true: object, what: str) -> None:
    """Fail unless it is so."""
    if not is_true:
        raise AssertionError(what)


def expect_error(call: Callable[[], Any], what: str, said: str = "") -> None:
    """The call must raise, with these words in the error."""
    try:
        result = call()
        if isinstance(result, Iterable) and not isinstance(result, str):
            result = list(result)
    except AssertionError:
        raise
    except Exception as error:
        expect(said in str(error), f"{what}: raised {error!r}, without {said!r}")
        print(f"{what}: {type(error).__module__}.{type(error).__name__}")
        return
    raise AssertionError(f"{what}: nothing was raised, but returned {result!r}")
