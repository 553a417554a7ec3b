"""Faults on command: what a test, or `POST /simulated/faults`, can make the simulated Ollama do wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from service.simulated import texts
from service.simulated.models import matched_name

RUNNER_DIED = "an error was encountered while running the model: unexpected EOF"
SERVER_BUSY = "server busy, please try again.  maximum pending requests exceeded"
SEARCH_FAILED = "ollama cloud is disabled: web search is unavailable"
LOAD_FAILED = "llama-server process has terminated: exit status 1: simulated load failure"


class FaultKind(StrEnum):
    """`after_tokens` 0 always means before the first byte of the reply."""

    DELAY_HEADERS = "delay_headers"  # nothing is sent for `seconds`, in the seat
    PACE = "pace"  # `seconds` before each token
    STALL = "stall"  # after `after_tokens`, until released or closed
    ERROR = "error"  # `status` and `message` (or `body` as it is) before the first byte
    ERROR_LINE = "error_line"  # the stream breaks after `after_tokens` with `message`; /v1 swallows it (contract 9.1)
    RUNNER_KILLED = "runner_killed"  # the same, and the model must be loaded again
    NO_DONE = "no_done"  # ends properly after `after_tokens`, without the final marker
    SILENT_END = "silent_end"  # ends properly without any line; a whole reply is an object of zeros
    TOKEN_REPEATS = "token_repeats"  # after `after_tokens` always `body` (" the"), until Ollama ends it (2.1, row 39b)
    SEAT_LOST = "seat_lost"  # as ERROR_LINE, and the seat is never given back (0.30 to 0.32.14; contract 6)
    RUNNER_HANGS = "runner_hangs"  # no byte to any request of the model until it is unloaded, or this is released
    RESET = "reset"  # TCP reset after `after_tokens` and half a line
    HANG_UP = "hang_up"  # closed after `after_tokens`, as by a server that dies: no terminating chunk
    SPLIT = "split"  # every write in pieces of `size` bytes, `seconds` apart
    MERGE = "merge"  # `size` objects a write
    LONG_LINE = "long_line"  # the token after `after_tokens` is `size` bytes long
    FLOOD = "flood"  # a huge reply of three parts, `body` split at each "…"; the second is sent `size` times
    NOT_OLLAMA = "not_ollama"  # an HTML page under `status`, as of some other server
    LOAD_STALL = "load_stall"  # a load does not end until released or aborted
    LOAD_ERROR = "load_error"  # a load takes its time and fails with `message`
    UNLOAD_AT_ONCE = "unload_at_once"  # an unload waits for nobody; the requests that hold the runner stay as they are
    SEARCH_STALL = "search_stall"  # a web search of the server's does not end until released
    SEARCH_ERROR = "search_error"  # it fails with `status` and `message`; for `/v1/responses` alone


_LOAD_KINDS = frozenset((FaultKind.LOAD_STALL, FaultKind.LOAD_ERROR))
_UNLOAD_KINDS = frozenset((FaultKind.UNLOAD_AT_ONCE,))
_REQUEST_KINDS = frozenset(FaultKind) - _LOAD_KINDS - _UNLOAD_KINDS
_DEFAULT_SIZES = {FaultKind.SPLIT: 1, FaultKind.MERGE: 3, FaultKind.LONG_LINE: 2_000_000, FaultKind.FLOOD: 10_000_000}
_DEFAULT_MESSAGES = {
    FaultKind.LOAD_ERROR: LOAD_FAILED,
    FaultKind.TOKEN_REPEATS: texts.TOKEN_REPEATS,
    FaultKind.SEAT_LOST: texts.UNPARSED_TOOL_CALL,
    FaultKind.SEARCH_ERROR: SEARCH_FAILED,
}
_DEFAULT_STATUSES = {FaultKind.NOT_OLLAMA: 200, FaultKind.FLOOD: 200, FaultKind.SEARCH_ERROR: 403}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, for which requests, and how often.

    `model`, `endpoint` and a part of the `prompt` choose the requests, each where it is given. `times` None: until the
    fault is removed. `skip`: so many matching requests pass before it.
    """

    kind: FaultKind
    model: str | None = None
    prompt: str | None = None
    endpoint: str | None = None
    times: int | None = None
    skip: int = 0
    after_tokens: int = 0
    seconds: float = 0.0
    status: int | None = None
    message: str | None = None
    body: str | None = None
    size: int | None = None

    @property
    def reply_status(self) -> int:
        return self.status if self.status is not None else _DEFAULT_STATUSES.get(self.kind, 500)

    @property
    def reply_message(self) -> str:
        return self.message if self.message is not None else _DEFAULT_MESSAGES.get(self.kind, RUNNER_DIED)

    @property
    def amount(self) -> int:
        return self.size if self.size is not None else _DEFAULT_SIZES.get(self.kind, 0)

    def matches(self, endpoint: str, model: str | None, prompt: str | None) -> bool:
        return (
            (self.endpoint is None or self.endpoint == endpoint)
            and (self.model is None or (model is not None and matched_name(self.model) == matched_name(model)))
            and (self.prompt is None or (prompt is not None and self.prompt in prompt))
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """A fault as the control route takes it; raises ValueError naming what it does not know."""
        unknown = set(value) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        if "kind" not in value:
            raise ValueError("a fault needs a kind")
        return cls(**{**value, "kind": FaultKind(value["kind"])})


def busy(**matching: Any) -> Fault:
    """The 503 of a full queue."""
    return Fault(kind=FaultKind.ERROR, status=503, message=SERVER_BUSY, **matching)


class ArmedFault:
    """A fault that waits for its requests. `release` lets those go on that it has stalled."""

    def __init__(self, number: int, fault: Fault, owner: Faults) -> None:
        self.number = number
        self.fault = fault
        self.applied = 0
        self._passed = 0
        self._owner = owner
        self._released = asyncio.Event()

    def applies_to(self, endpoint: str, model: str | None, prompt: str | None) -> bool:
        """Whether the fault applies to this request; counts the request."""
        fault = self.fault
        if not fault.matches(endpoint, model, prompt) or (fault.times is not None and self.applied >= fault.times):
            return False
        if self._passed < fault.skip:
            self._passed += 1
            return False
        self.applied += 1
        return True

    def release(self) -> None:
        """Let whatever is stalled here go on, and nothing stall here any more."""
        self._released.set()
        self.remove()

    def remove(self) -> None:
        self._owner.forget(self)

    async def released(self) -> None:
        await self._released.wait()

    def to_json(self) -> dict[str, Any]:
        set_fields = {name: value for name, value in asdict(self.fault).items() if value is not None}
        return {"id": self.number, "applied": self.applied, **set_fields}


class Disruption:
    """The faults that apply to one request, at most one of a kind (the first that was armed)."""

    def __init__(self, armed: Iterable[ArmedFault] = ()) -> None:
        self._by_kind: dict[FaultKind, ArmedFault] = {}
        for each in armed:
            self._by_kind.setdefault(each.fault.kind, each)

    def armed(self, kind: FaultKind) -> ArmedFault | None:
        return self._by_kind.get(kind)

    def fault(self, *kinds: FaultKind) -> Fault | None:
        """The first of these kinds that applies."""
        for kind in kinds:
            if (found := self._by_kind.get(kind)) is not None:
                return found.fault
        return None

    def __bool__(self) -> bool:
        return bool(self._by_kind)


UNDISTURBED = Disruption()


class Faults:
    """All armed faults, in the order in which they were armed."""

    def __init__(self) -> None:
        self._armed: list[ArmedFault] = []
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[ArmedFault]:
        return iter(self._armed)

    def arm(self, fault: Fault) -> ArmedFault:
        armed = ArmedFault(next(self._numbers), fault, self)
        self._armed.append(armed)
        return armed

    def forget(self, armed: ArmedFault) -> None:
        if armed in self._armed:
            self._armed.remove(armed)

    def clear(self) -> None:
        """Remove all faults; what they have stalled goes on."""
        for armed in list(self._armed):
            armed.release()

    def take(self, endpoint: str, model: str | None = None, prompt: str | None = None) -> Disruption:
        """The faults for one request, each counted as applied."""
        return self._taken(_REQUEST_KINDS, endpoint, model, prompt)

    def take_load(self, model: str) -> Disruption:
        """The faults for one load of a model."""
        return self._taken(_LOAD_KINDS, "", model, None)

    def take_unload(self, model: str) -> Disruption:
        """The faults for one request to unload a model."""
        return self._taken(_UNLOAD_KINDS, "", model, None)

    def _taken(self, kinds: frozenset[FaultKind], endpoint: str, model: str | None, prompt: str | None) -> Disruption:
        if not self._armed:
            return UNDISTURBED
        return Disruption(
            [
                armed
                for armed in list(self._armed)
                if armed.fault.kind in kinds and armed.applies_to(endpoint, model, prompt)
            ]
        )
