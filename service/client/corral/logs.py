"""What the library tells its logger, ``corral``: each line names its call, and none has a key in it."""

from __future__ import annotations

import logging
import os
from functools import cache

log = logging.getLogger("corral")

_NOT_ASKED = ("", "0", "false", "no", "off")


def show_if_asked() -> None:
    """Write all lines to stderr when ``CORRAL_DEBUG`` is set, as to 1."""
    if os.environ.get("CORRAL_DEBUG", "").strip().lower() not in _NOT_ASKED:
        log.setLevel(logging.DEBUG)
        # Adding it again changes nothing.
        log.addHandler(_to_stderr())


@cache
def _to_stderr() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


class _OneLine(logging.Formatter):
    """Errors have text of others in them: what a terminal would obey in it is shown as an escape."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = super().formatMessage(record)
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
