"""What a time limit means: that a prompt takes long, that its model hangs, or that the backend does.

A call that meets a limit while its model is loaded and its backend answers is slow, and would be as slow again: it
fails for good. Two in a row that wait for their first byte, while nothing is heard from the model, are taken for a
runner that hangs: it is sent nothing more and unloaded once, and what waited for it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from service.backend.backend import Backend
from service.backend.http.deadlines import FIRST_BYTE_TIMEOUT
from service.backend.placement import is_remote
from service.backend.pool import Pool
from service.clock import Clock
from service.errors import HUNG, BackendError, Fault
from service.workers.attempt import Attempt

_log = logging.getLogger(__name__)

_UNLOAD_MS = 60_000
"""So long nothing is sent to a model that is still listed after it was to be unloaded: a whole reply is under way, or
another client's.
"""


class HungModels:
    """Judges the limits that attempts meet. ``attempts`` are all that run, and change."""

    def __init__(self, pool: Pool, clock: Clock, attempts: Collection[Attempt]) -> None:
        self._pool = pool
        self._clock = clock
        self._attempts = attempts
        self._unloads: set[asyncio.Task[None]] = set()
        pool.load_ended.connect(self._look)

    async def judge(self, attempt: Attempt, error: BackendError) -> BackendError:
        """What it means that a limit has ended this attempt."""
        if not self._is_listed(attempt) or not await self._pool.is_there(attempt.backend):
            return error
        if error.code == FIRST_BYTE_TIMEOUT and self._met_limit(attempt):
            return _hung(attempt.backend)
        if attempt.backend.silence.is_hung(attempt.model):
            return _hung(attempt.backend)
        remedy = "the model was loaded, and would be as slow again: ask for less, or have that limit raised"
        return BackendError(f"{error}; {remedy}", code=error.code, fault=Fault.PERMANENT)

    def note_silent(self, attempt: Attempt) -> None:
        """A whole reply has not come within the limit on a first byte: that counts, and the call goes on."""
        if self._is_listed(attempt) and attempt.backend.is_answering:
            self._met_limit(attempt)

    def stop(self) -> None:
        """Nothing more is unloaded."""
        for unload in self._unloads:
            unload.cancel()

    def _is_listed(self, attempt: Attempt) -> bool:
        """Whether the model was loaded when the backend was last asked, or needs no load."""
        backend, runner = attempt.backend, attempt.running.job.runner
        if is_remote(runner, backend.placement.remote):
            return True
        return backend.has_loaded(attempt.model) and backend.placement.is_loaded(runner)

    def _met_limit(self, attempt: Attempt) -> bool:
        """Count it. Returns whether the model is taken to hang from now on."""
        backend, model = attempt.backend, attempt.model
        if is_remote(model, backend.placement.remote) or not backend.silence.met_limit(
            model, attempt.sent_at, self._clock.now_ms()
        ):
            return False
        _log.warning(
            "backend %s: %s has sent nothing to two calls in a row; it is unloaded, and they are tried again",
            backend.name,
            model,
        )
        for other in self._at(backend, model):
            if other is not attempt and other.is_silent and other.running.job.is_streamed:
                other.give_up(_hung(backend))
        unload = asyncio.get_running_loop().create_task(self._unload(backend, model))
        self._unloads.add(unload)
        unload.add_done_callback(self._unloads.discard)
        return True

    async def _unload(self, backend: Backend, model: str) -> None:
        try:
            await backend.client.unload(model)
        except BackendError as error:
            _log.warning("backend %s: %s could not be unloaded: %s", backend.name, model, error)
        backend.wants_probe.set()

    def _look(self) -> None:
        """Something has changed: is a model gone that hung, or does it speak again?"""
        for backend in self._pool:
            for model in backend.silence.hung:
                self._look_at(backend, model)

    def _look_at(self, backend: Backend, model: str) -> None:
        voice, now = backend.silence.voice(model), self._clock.now_ms()
        assert voice.hung_at is not None
        is_gone = (backend.loaded_list.told_at or 0) > voice.hung_at and not backend.has_loaded(model)
        if is_gone:
            # Whoever still waits for a whole reply of it waits for nothing.
            for attempt in self._at(backend, model):
                if attempt.is_silent and attempt.sent_at <= voice.hung_at:
                    attempt.give_up(_hung(backend))
        if is_gone or voice.heard_at > voice.hung_at:
            backend.silence.recovered(model)
        elif now - voice.hung_at >= _UNLOAD_MS:
            # With a whole reply under way it stays loaded, and that may only be slow. Nobody else waits for as long.
            voice.is_left_alone = False

    def _at(self, backend: Backend, model: str) -> list[Attempt]:
        return [one for one in self._attempts if one.backend is backend and one.model == model]


def _hung(backend: Backend) -> BackendError:
    what = f"{backend.name} sent nothing, and the model was unloaded because it seemed to hang"
    return BackendError(what, code=HUNG, fault=Fault.TRANSIENT)
