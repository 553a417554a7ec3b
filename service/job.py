"""A job and the words for it.

queued ──claim──▶ processing ──▶ completed
  ▲                  ├─────────▶ failed
  ├── retry, lost ───┤
  └── queued / processing ─────▶ cancelled

A queued job whose deadline passes becomes failed, with the code ``expired``.

A time that is an ``int`` is in milliseconds since the epoch, here and everywhere, unless its name says otherwise.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum, StrEnum
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Priority(IntEnum):
    """Orders the jobs of one owner, and gives a bounded lead over those of other owners."""

    HIGH = 1
    NORMAL = 0
    LOW = -1

    @property
    def word(self) -> str:
        return self.name.lower()


class Line(NamedTuple):
    """Jobs among which only the order of arrival counts."""

    runner: str
    """See :func:`runner_key`."""
    owner: str
    priority: int

    @property
    def model(self) -> str:
        """The model of its runner: by model it is counted who was served what."""
        return model_of_runner(self.runner)


@lru_cache(maxsize=4096)
def line_of(runner: str, owner: str, priority: int) -> Line:
    """The line; mostly the same object each time, since it is looked up for every job and that is quicker so."""
    return Line(runner, owner, priority)


TEXT = "text"
THINKING = "thinking"
TOOL_CALLS = "tool_calls"


class Segment(NamedTuple):
    """A run of output of one kind: ``text``, ``thinking`` or ``tool_calls`` (a JSON array)."""

    kind: str
    data: str


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same output with neighbours of one kind as one. Tool calls are arrays and stay as they are."""
    result: list[Segment] = []
    parts: list[str] = []
    run = ""
    for kind, data in segments:
        if kind != run or kind == TOOL_CALLS:
            if parts:
                result.append(Segment(run, "".join(parts)))
            run, parts = kind, []
        parts.append(data)
    if parts:
        result.append(Segment(run, "".join(parts)))
    return result


class Counts(NamedTuple):
    """What Ollama reports at the end of a reply; None where it said nothing. ``…_ms`` are durations."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    load_ms: int | None = None
    prompt_ms: int | None = None
    generation_ms: int | None = None
    done_reason: str | None = None


class NewJob(NamedTuple):
    """What a door hands to the core."""

    door: str
    """The dialect it came through: prompts, requests, ollama, openai, anthropic."""
    endpoint: str
    """The path at the backend, for example ``/api/generate``."""
    model: str
    """As the caller wrote it."""
    request: str
    """The body for the backend: JSON, or a form as :mod:`service.form_data` keeps it."""
    prompt: str
    """The words to show in a list and to search for."""
    priority: int = Priority.NORMAL
    owner: str = ""
    key_id: str | None = None
    not_before: int | None = None
    deadline: int | None = None
    runner: str = ""
    """See :func:`runner_key`; "" for the model with no options of its own."""
    is_streamed: bool = True
    """Whether the request asks the backend for a stream."""
    on_disconnect: str | None = None
    """None: nobody waits. ``cancel`` or ``finish``: what becomes of the job when its waiting caller is gone."""
    request_id: str | None = None
    """What the caller calls its request; it names no job, and several jobs may have it."""
    retention_ms: int | None = None
    """How long after its end its contents are kept; None for as long as its row."""
    is_admins: bool = False
    """Its owner is an admin, for whom there is room as long as there is any."""


class Job(NamedTuple):
    """A row of the table ``jobs``.

    What has a default is not known yet of a new job and is not inserted, so a column that a submission fills has none.
    """

    seq: int
    id: str
    door: str
    endpoint: str
    model: str
    model_key: str
    """The model as Ollama matches it, see :func:`model_key`."""
    runner: str
    """What one loaded runner of Ollama's can serve, see :func:`runner_key`."""
    owner: str
    key_id: str | None
    priority: int
    is_streamed: int
    """1 or 0: whether the backend was asked for a stream."""
    status: str
    attempt: int
    """Rises at every claim and never repeats: a write names the attempt that it expects, and an output its own."""
    failures: int
    """How many attempts failed by a transient fault or a crash; bounds the retries."""
    crashes: int
    """How often the model's runner died under this job, or the model wrote what Ollama could not make a reply of: a job
    that kills the runner again and again is poison.
    """
    not_before: int | None
    deadline: int | None
    on_disconnect: str | None
    worker: str | None
    caller_at: str | None
    """The process at which a caller waits for the reply: only that process may claim the job."""
    preview: str
    size: int
    """Bytes of the request's body."""
    created_at: int
    updated_at: int
    started_at: int | None
    request_id: str | None
    """What the caller called the request that made the job."""
    retention_ms: int | None
    """How long after its end its contents are kept; None for as long as its row."""
    error_code: str | None = None
    error_message: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    load_ms: int | None = None
    prompt_ms: int | None = None
    generation_ms: int | None = None
    done_reason: str | None = None
    """Why the model stopped, in Ollama's words: ``stop``, ``length`` and others."""
    first_token_at: int | None = None
    finished_at: int | None = None
    contents_deleted_at: int | None = None
    """Since when only the row is left: what was asked and answered, and the words of its error, are deleted."""

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def stage(self) -> tuple[bool, int, bool, bool]:
        """How far the job has come: whatever the clocks say, the later of two rows of one job has no smaller stage."""
        return (self.is_final, self.attempt, self.status != Status.PROCESSING, self.not_before is None)

    @property
    def line(self) -> Line:
        return line_of(self.runner, self.owner, self.priority)


class Claimed(NamedTuple):
    """A job that this process has claimed, with the body to send."""

    job: Job
    request: str


class Outcome(NamedTuple):
    """How an attempt ended."""

    status: Status
    segments: tuple[Segment, ...] = ()
    counts: Counts = Counts()
    error_code: str | None = None
    error_message: str | None = None
    first_token_at: int | None = None


class Result(NamedTuple):
    """What is kept of a finished job beside its row: the output of its last attempt."""

    attempt: int
    segments: tuple[Segment, ...]

    def joined(self, kind: str) -> str:
        return "".join(segment.data for segment in self.segments if segment.kind == kind)


PREVIEW_CHARACTERS = 200

_LATEST = ":latest"


@lru_cache(maxsize=1024)
def model_key(name: str) -> str:
    """The name by which Ollama would find the model: without regard to case, ``:latest`` implied (wire contract 0). It
    drops ``:local`` (its internal/modelref) and what stands before ``://`` of a host (its types/model, ParseNameBare).
    """
    key = name.strip().lower()
    base, _, source = key.rpartition(":")
    if source.strip() == "local":
        key = base.rstrip()
    _, _, place = key.partition("://")
    if place.count("/") >= 2:
        key = place
    for prefix in ("registry.ollama.ai/", "library/"):
        key = key.removeprefix(prefix)
    return key if ":" in key.rsplit("/", 1)[-1] else key + _LATEST


SHIFT = "shift"
"""The field beside ``options`` that makes another runner as well."""
RELOADING = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
"""The options for which Ollama loads a model anew when they differ from those of the loaded runner (wire contract
4.4).
"""


def runner_key(model: str, options: object = None, shift: object = None) -> str:
    """What one loaded runner can serve: the model, and those options for which Ollama would load the model anew. What
    has another type than Ollama wants makes no other runner, since Ollama refuses it.

    What else is no difference to Ollama depends on the model: see :mod:`service.backend.runner_options`.
    """
    given: Mapping[str, Any] = options if isinstance(options, Mapping) else {}
    own = {name: _cut(given[name]) for name in RELOADING if _is_option(given.get(name))} if given else {}
    if isinstance(shift, bool):
        own[SHIFT] = shift
    if own.get("num_gpu", 0) < 0:
        # Any negative number leaves it to Ollama, as saying nothing does.
        del own["num_gpu"]
    return key_of_options(model_key(model), own)


def key_of_options(model: str, options: Mapping[str, Any]) -> str:
    """The runner of a model, by its key, for which these options are given."""
    return f"{model} {json.dumps(options, separators=(',', ':'), sort_keys=True)}" if options else model


def options_of_runner(runner: str) -> dict[str, Any]:
    """The options of a runner's key."""
    options = runner.partition(" ")[2]
    return dict(json.loads(options)) if options else {}


def _cut(value: Any) -> Any:
    """An option as Ollama takes it: without its fraction."""
    return int(value) if isinstance(value, float) and isfinite(value) else value


def _is_option(value: object) -> bool:
    """Whether the value has a type of these options. Ollama refuses any other before it loads anything."""
    return isinstance(value, bool | int | float)


@lru_cache(maxsize=4096)
def model_of_runner(runner: str) -> str:
    """The model of a runner's key."""
    return runner.partition(" ")[0]


def preview_of(prompt: str) -> str:
    """The first characters of a prompt, for a list."""
    return prompt[:PREVIEW_CHARACTERS]


def _random_digits() -> Iterator[str]:
    """Twenty random hexadecimal digits each time. The system is asked for many at once, since each question gives
    Python's lock away, for which the database's thread waits.
    """
    while True:
        fresh = os.urandom(10 * 256).hex()
        yield from (fresh[at : at + 20] for at in range(0, len(fresh), 20))


_digits = _random_digits()


JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What the id of a job looks like."""


def new_job_id(now_ms: int) -> str:
    """A UUID of version 7 (RFC 9562): ordered by time, so that rows of one time lie together."""
    time, random = f"{now_ms & 0xFFFF_FFFF_FFFF:012x}", next(_digits)
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"
