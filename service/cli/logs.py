"""What the process says: the log on stderr, one line for each event, and on stdout what a person is to see."""

from __future__ import annotations

import io
import logging
import sys
import threading
from types import TracebackType

from service.shown_text import shown

_log = logging.getLogger(__name__)

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LineFormatter(logging.Formatter):
    """One line for each event. Of a traceback each further line is indented, so that none looks like another event,
    whatever text of others is in it.
    """

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return shown(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join("  " + shown(line) for line in text.split("\n"))


def begin_log() -> None:
    """Write what is logged to stderr, from INFO on, and what is printed as it comes, also where nobody looks at a
    terminal: a service manager's journal would have it at the end only. What Python itself would write to stderr, such
    as an error that nobody expects, is an event of the log, too.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal does not have ends no list.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_unexpected
    threading.excepthook = _log_of_thread
    sys.unraisablehook = _log_ignored


def _log_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("ended by an error of ours", exc_info=(kind, error, trace))


def _log_of_thread(told: threading.ExceptHookArgs) -> None:
    error = told.exc_value or told.exc_type()
    if isinstance(error, SystemExit):
        # Which ends the thread as it is meant to.
        return
    _log.critical("a thread was ended by an error of ours", exc_info=(told.exc_type, error, told.exc_traceback))


def _log_ignored(told: sys.UnraisableHookArgs) -> None:
    error, what = (
        told.exc_value or told.exc_type(),
        getattr(told.object, "__qualname__", type(told.object).__qualname__),
    )
    _log.error("an error of ours was ignored (%s)", what, exc_info=(told.exc_type, error, told.exc_traceback))


def set_level(name: str) -> None:
    """Log from this level on: ``DEBUG``, ``INFO``, … The libraries' own lines begin at INFO at the lowest: some write
    whole statements at DEBUG, with the prompts in them.
    """
    level = logging.getLevelNamesMapping()[name]
    logging.getLogger("service").setLevel(level)
    logging.getLogger().setLevel(max(level, logging.INFO))


def say(line: str) -> None:
    """Print a line of what was asked for."""
    print(shown(line))


def note(line: str) -> None:
    """Print a line of what there is to know of it, to stderr."""
    print(shown(line), file=sys.stderr)
