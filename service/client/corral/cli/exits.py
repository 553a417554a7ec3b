"""Exit statuses, and how an error ends a command."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import click


class Exit(IntEnum):
    """What a shell script learns."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    SOME_FAILED = 5
    OUT_OF_TIME = 124
    INTERRUPTED = 130


EXIT_HELP = """\b
Exit statuses:
  0    done
  1    the job or the request failed
  2    wrong usage, unusable input
  3    the service cannot be reached
  4    no key, or not allowed (401 and 403)
  5    batch: done, some lines failed
  124  --wait or --max-wait ran out
  130  interrupted"""


class EndedError(click.ClickException):
    """A command ends here, with this status. An empty message: all was said."""

    def __init__(self, status: Exit, message: str = "", code: str = "") -> None:
        super().__init__(message)
        # Declared for the class there, and read from the instance.
        self.__dict__["exit_code"] = status
        self.code = code


def exit_status(error: BaseException) -> int:
    """The status with which a command ends by this error."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Exit.INTERRUPTED
    # A command of the service's fails without the client library.
    from corral import errors

    if isinstance(error, errors.ConfigurationError):
        return Exit.USAGE
    if isinstance(error, errors.AuthenticationError | errors.PermissionDeniedError):
        return Exit.NOT_ALLOWED
    if isinstance(error, errors.ConnectionFailedError | errors.CallTimeoutError | errors.CircuitOpenError):
        return Exit.UNREACHABLE
    return Exit.FAILED


def error_words(error: BaseException) -> str:
    """What is told of it on stderr, behind ``corral:``."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if is_expected(error):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error} (CORRAL_DEBUG=1 shows where)"


def is_expected(error: BaseException) -> bool:
    """Whether its words were written for people: an error of the client library's, or of the service's own."""
    if isinstance(error, click.ClickException):
        return True
    module = type(error).__module__
    return module == "service.errors" or module.startswith(("corral.", "service.cli."))


def error_json(error: BaseException) -> dict[str, Any]:
    """The same for programs."""
    from corral.codes import code_of

    code = getattr(error, "code", "") if isinstance(error, EndedError) else ""
    if not code:
        code = "usage" if isinstance(error, click.ClickException) else code_of(error)
    # A click error's words have the option's name beside its message.
    is_ours = not isinstance(error, click.ClickException)
    message = (getattr(error, "message", "") if is_ours else "") or error_words(error)
    return {"error": {"message": str(message), "code": code, "status_code": getattr(error, "status_code", None)}}
