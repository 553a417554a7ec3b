"""One Ollama server as this process knows it."""

from __future__ import annotations

import asyncio
from functools import partial

from corral.breaker import Breaker
from service.backend.breakers import Breakers
from service.backend.client import BackendClient
from service.backend.fits_by_digest import FitsByDigest, restore
from service.backend.http.connections import Connections
from service.backend.installed_list import InstalledList
from service.backend.loaded_list import LoadedList
from service.backend.models import InstalledModel, LoadedModel
from service.backend.placement import Placement
from service.backend.prompt_rates import PromptRates
from service.backend.runner_options import ModelTraits
from service.backend.seating import Seating
from service.backend.sharing import Sharing, runs_here
from service.backend.silence import Silence
from service.clock import Clock
from service.config import BackendConfig, Config
from service.job import model_key
from service.metrics.rates import RateMeter


class Backend:
    """A server, its seats, and what was last heard of it."""

    def __init__(
        self, config: BackendConfig, client: BackendClient, breakers: Breakers, max_swap_wait_ms: float
    ) -> None:
        self.config = config
        self.client = client
        self.breakers = breakers
        self.placement = Placement(max_swap_wait_ms)
        self.is_answering = False
        self.is_drained = False
        """The operator wants no more jobs there."""
        self.is_leaving = False
        """It is no longer in the configuration, and finishes the jobs that it has."""
        self.trouble: str | None = None
        self.version: str | None = None
        self.installed_list = InstalledList()
        self.loaded_list = LoadedList()
        self.idle_since = 0
        self.silence = Silence()
        """Which of its models give no sign of life."""
        self.wants_probe = asyncio.Event()
        self.sharing = Sharing()
        """Which of its models share their weights."""
        self.seating = Seating()
        """Which of its models are served one request at a time."""
        self.work = Work()
        self._kept_fits: FitsByDigest | None = None
        # Until the backend has been asked, only the configuration says which models it has.
        self._keys = frozenset(model_key(name) for name in config.models)
        self._by_key: dict[str, InstalledModel] = {}

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def installed(self) -> tuple[InstalledModel, ...] | None:
        """The models that it has, as it last told this process; None until it has."""
        return self.installed_list.models

    @property
    def usable(self) -> tuple[InstalledModel, ...]:
        """The models that the configuration lets us use, as it last told, if need be before this process began."""
        last = self.installed_list.last_told
        if last is None:
            return ()
        allowed = {model_key(name) for name in self.config.models}
        return tuple(one for one in last.models if not allowed or model_key(one.name) in allowed)

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The models that are loaded there, as it last told."""
        return self.loaded_list.models

    @property
    def in_flight(self) -> int:
        return sum(self.placement.in_flight.values())

    @property
    def free_seats(self) -> int:
        """Below 0 after a reload that has taken seats away from running jobs."""
        return self.config.concurrency - self.in_flight

    @property
    def is_available(self) -> bool:
        """Whether jobs may be sent there now, seats and faults aside."""
        return self.is_answering and not self.is_drained and not self.is_leaving

    @property
    def is_unknown(self) -> bool:
        """Whether it has neither answered nor failed to answer yet, as right after the start."""
        return not self.is_answering and self.trouble is None

    def has_model(self, model: str) -> bool:
        """Whether the model was installed when it was last asked, and the configuration lets us use it."""
        return model in self._keys

    def hides(self, model: str) -> bool:
        """Whether the model was installed when it was last asked, but the configuration does not let us use it."""
        return bool(self.config.models) and model not in self._keys and model in self._by_key

    def traits(self, model: str) -> ModelTraits | None:
        """What decides which options make another runner of the model there; None when it is not there."""
        installed = self._by_key.get(model) if self.has_model(model) else None
        return None if installed is None else self.sharing.traits(installed)

    def has_loaded(self, model: str) -> bool:
        """Whether ``/api/ps`` last listed the runner that has this model's name here."""
        own = self.placement.own
        return any(own(model_key(one.name)) == model for one in self.loaded)

    def note_version(self, version: str) -> None:
        """Remember what ``/api/version`` says."""
        if self.version not in (None, version):
            self.placement.fitting.forget_unfit()
        self.version = version

    def note_installed(self, installed: tuple[InstalledModel, ...]) -> None:
        """Remember what ``/api/tags`` says."""
        allowed = {model_key(name) for name in self.config.models}
        self._by_key = {model_key(model.name): model for model in installed}
        keys = self._by_key.keys()
        self._forget_fits_of_others(installed)
        self.installed_list.models = installed
        self.placement.installed = frozenset(keys)
        self._keys = frozenset(keys & allowed if allowed else keys)
        self.placement.remote = frozenset(key for key, model in self._by_key.items() if not runs_here(model))
        self.placement.know_names(self.sharing.names(installed))
        self.seating.note_installed(installed)
        self._restore_fits()

    def note_weights(self, model: InstalledModel, weights: str | None) -> None:
        """Remember what the model's runner is made of."""
        self.sharing.learn(model, weights)
        if self.installed is not None:
            self.placement.know_names(self.sharing.names(self.installed))

    def note_missing(self, model: str) -> None:
        """The backend has refused a job because this model is not there: ask again which models are."""
        self.placement.fitting.forget({model})
        self._keys -= {model}
        self._by_key.pop(model, None)
        self.placement.installed = frozenset(self._by_key)
        if self.installed is not None:
            # Other models of the same weights may have had their runner under its name.
            self.installed_list.models = tuple(one for one in self.installed if model_key(one.name) != model)
            self.placement.know_names(self.sharing.names(self.installed))
        self.wants_probe.set()

    def note_absence(self) -> None:
        """It was away, and what answers now may be another server, or have less memory."""
        self.placement.fitting.grow_old()
        self.placement.holds.server_changed()

    def recall_fits(self, kept: FitsByDigest) -> None:
        """What was kept of the models that fit together there: it holds once the server has told what it is."""
        self._kept_fits = kept
        self._restore_fits()

    def _restore_fits(self) -> None:
        if self._kept_fits is None or self.installed is None or self.version is None:
            return
        own = self.placement.own
        names = {model.digest: own(model_key(model.name)) for model in self.installed if model.digest}
        restore(self._kept_fits, self.placement.fitting, self.version, names)
        self._kept_fits = None

    def _forget_fits_of_others(self, installed: tuple[InstalledModel, ...]) -> None:
        """A model that was pulled anew has its name, but is another."""
        present = {(model_key(model.name), model.digest) for model in installed}
        before = {(model_key(model.name), model.digest) for model in self.installed or ()}
        if before - present:
            self.placement.fitting.forget({name for name, _ in before - present})

    def reconfigure(self, config: BackendConfig, max_swap_wait_ms: float) -> None:
        """The same server with other seats or models. Running jobs go on, also those beyond the seats."""
        self.config = config
        self.is_leaving = False
        self.placement.max_swap_wait_ms = max_swap_wait_ms
        if self.installed is not None:
            self.note_installed(self.installed)

    def is_at(self, config: BackendConfig) -> bool:
        """Whether this is the server that ``config`` means, asked in the same way."""
        return (self.config.url, self.config.headers) == (config.url, config.headers)


class Work:
    """What a backend has finished lately."""

    __slots__ = ("_busy_ms", "_jobs", "_tokens", "prompt_rates")

    def __init__(self) -> None:
        self.prompt_rates = PromptRates()
        self._jobs = RateMeter()
        self._tokens = RateMeter()
        self._busy_ms = RateMeter()

    def add(self, now: int, used_ms: float, tokens: int) -> None:
        """A job was completed now: it took a seat for ``used_ms`` and has so many tokens."""
        self._jobs.add(now)
        self._tokens.add(now, tokens)
        self._busy_ms.add(now, used_ms)

    def jobs_per_minute(self, now: int) -> float:
        return self._jobs.per_second(now) * 60

    def tokens_per_second(self, now: int) -> float:
        return self._tokens.per_second(now)

    def mean_seconds(self, now: int) -> float | None:
        """How long a job of the last minute took; None when there was none."""
        jobs = self._jobs.per_second(now)
        return self._busy_ms.per_second(now) / jobs / 1000 if jobs else None


def build_backend(backend: BackendConfig, connections: Connections, config: Config, clock: Clock) -> Backend:
    """A backend with the client, the breakers and the patience that the configuration asks for."""
    client = BackendClient(
        connections,
        backend.url,
        backend.headers,
        name=backend.name,
        quick_seconds=config.health.probe_timeout_seconds,
    )
    build = partial(
        Breaker,
        lambda: clock.now_ms() / 1000,
        threshold=config.breaker.failure_threshold,
        open_seconds=config.breaker.open_seconds,
    )
    return Backend(backend, client, Breakers(build), config.queue.max_swap_wait_seconds * 1000)
