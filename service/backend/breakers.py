"""Whose fault a failure is, and whom it keeps back: a backend has a breaker for the server, and one for each model that
fails there.

A model that cannot be loaded, or whose runner dies, says nothing about the others: only its own jobs rest. When a
second model fails without a success in between, the server is taken to be at fault.

What counts is evidence from different jobs with different bodies, with no success and no token in between: one request
that fails again and again may be at fault itself. For the same reason a breaker that is open keeps back only the owners
of that evidence. A job of anybody else may show at once that the trouble is the others' own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from corral.breaker import Breaker
from service.errors import HUNG, BackendError, Fault

_MOST_MODELS = 256
_MOST_EVIDENCE = 32
"""The jobs that are remembered of one breaker. Of more owners, those whose jobs failed longest ago may try again."""


class Evidence(NamedTuple):
    """A job that has failed."""

    job_id: str
    owner: str
    body: int
    """Equal for equal bodies: a hash."""


class Trial(NamedTuple):
    """Of which breakers a call is the trial."""

    server: bool = False
    model: bool = False


NO_TRIAL = Trial()


class Suspect:
    """A breaker, and the jobs whose failures it counts."""

    __slots__ = ("_evidence", "_owners", "breaker")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self._evidence: dict[str, Evidence] = {}
        """By job, the latest last."""
        self._owners: frozenset[str] = frozenset()
        """Those whose jobs are evidence."""

    @property
    def jobs(self) -> Collection[str]:
        """The jobs that are evidence."""
        return self._evidence.keys()

    def may_begin(self, owner: str) -> bool:
        """Whether a job of this owner may be sent now."""
        breaker = self.breaker
        return breaker.is_closed or (breaker.lets_through if self.keeps_back(owner) else breaker.may_be_tried)

    def keeps_back(self, owner: str) -> bool:
        """Whether a job of this owner is evidence."""
        return owner in self._owners

    def begin(self, owner: str) -> bool:
        """A job of this owner is sent. Returns whether it is the breaker's trial."""
        breaker = self.breaker
        return not breaker.is_closed and breaker.begin(at_once=not self.keeps_back(owner))

    def failed(self, evidence: Evidence, *, is_trial: bool, is_certain: bool = False) -> bool:
        """A job has failed, ``is_certain`` not by its own fault. Returns whether the breaker has opened now."""
        known = self._evidence.pop(evidence.job_id, None)
        is_new = known is None and all(one.body != evidence.body for one in self._evidence.values())
        self._evidence[evidence.job_id] = evidence
        if len(self._evidence) > _MOST_EVIDENCE:
            del self._evidence[next(iter(self._evidence))]
        self._owners = frozenset(one.owner for one in self._evidence.values())
        return (is_new or is_trial or is_certain) and self.breaker.failed(is_trial=is_trial)

    def succeeded(self) -> None:
        self._evidence.clear()
        self._owners = frozenset()
        self.breaker.succeeded()

    def spoke(self, *, is_trial: bool) -> None:
        """A token has come: what has failed before was the jobs' own fault.

        A breaker that is open waits for a success; but the trial has shown enough for the next one to begin.
        """
        if self.breaker.is_closed:
            self.succeeded()
        elif is_trial:
            self.breaker.abandoned()


class Breakers:
    """The breakers of one backend; ``build`` makes one."""

    def __init__(self, build: Callable[[], Breaker]) -> None:
        self._build = build
        self._server = Suspect(build())
        self._models: dict[str, Suspect] = {}
        self._failed_weights: set[str] = set()
        """The weights that have failed since the last success of any model."""

    @property
    def server(self) -> Breaker:
        return self._server.breaker

    @property
    def failing(self) -> Mapping[str, Breaker]:
        """The breakers of the models that have failed since their last success."""
        return {model: one.breaker for model, one in self._models.items()}

    # Who may begin

    def let_through(self, model: str) -> bool:
        """Whether a job of this model may be sent, whosever it is."""
        return all(one.breaker.lets_through for one in self._suspects(model))

    def may_begin(self, model: str, owner: str) -> bool:
        """Whether a job of this model and owner may be sent."""
        return all(one.may_begin(owner) for one in self._suspects(model))

    def are_closed_for(self, model: str) -> bool:
        """Whether no breaker has opened that could keep jobs of this model back."""
        return all(one.breaker.is_closed for one in self._suspects(model))

    def begin(self, model: str, owner: str) -> Trial:
        """A job is sent that may begin; its end is to be reported with the trial that this returns."""
        known = self._models.get(model)
        return Trial(self._server.begin(owner), known is not None and known.begin(owner))

    def failed_before(self, model: str, owner: str) -> set[str]:
        """The jobs that are no good trial for an owner who is kept back: their failures are why."""
        suspects = [one for one in self._suspects(model) if not one.breaker.is_closed and one.keeps_back(owner)]
        return {job for one in suspects for job in one.jobs}

    # How calls end

    def spoke(self, model: str, trial: Trial = NO_TRIAL) -> None:
        """A token of an answer has come."""
        self._failed_weights.clear()
        self._server.spoke(is_trial=trial.server)
        known = self._models.get(model)
        if known is not None:
            known.spoke(is_trial=trial.model)
            if known.breaker.is_closed:
                del self._models[model]

    def succeeded(self, model: str) -> None:
        """The backend has given an answer."""
        self._server.succeeded()
        self._models.pop(model, None)
        self._failed_weights.clear()

    def refused(self, model: str, trial: Trial = NO_TRIAL) -> None:
        """The server refused a request, which shows that it is there, and nothing more."""
        if not self._failed_weights:
            self._server.succeeded()
        self.abandoned(model, trial)

    def abandoned(self, model: str, trial: Trial = NO_TRIAL) -> None:
        """A job ended without a word about the backend."""
        if trial.server:
            self._server.breaker.abandoned()
        if trial.model and model in self._models:
            self._models[model].breaker.abandoned()

    def failed(
        self,
        model: str,
        weights: str | None,
        error: BackendError,
        evidence: Evidence,
        trial: Trial = NO_TRIAL,
        *,
        has_spoken: bool = False,
    ) -> Breaker | None:
        """A call has failed: whose fault was that? Returns the breaker that has opened now.

        ``has_spoken``: a token of its answer had come. For ``weights`` see :meth:`model_failed`.
        """
        is_answer = error.status is not None
        if error.fault in (Fault.PERMANENT, Fault.BUSY) and is_answer:
            self.refused(model, trial)
        elif (
            error.fault in (Fault.PERMANENT, Fault.BUSY, Fault.OUTPUT, Fault.ENDED)
            or error.code == HUNG
            # What nobody knows, in the middle of an answer, is as likely about what the model wrote.
            or (is_answer and has_spoken and not error.is_known)
        ):
            self.abandoned(model, trial)
        elif is_answer and error.fault is not Fault.ABSENT:
            # An error in a reply of Ollama's own is about this model: the server is well enough to send it.
            return self.model_failed(model, weights, evidence, trial)
        else:
            return self.server_failed(model, evidence, trial, is_certain=error.fault is Fault.ABSENT)
        return None

    def server_failed(
        self, model: str, evidence: Evidence, trial: Trial = NO_TRIAL, *, is_certain: bool = False
    ) -> Breaker | None:
        """The server was at fault, with a job of this model. Returns its breaker if that has opened now.

        ``is_certain``: no server was there to find fault with the job, so that it counts each time.
        """
        known = self._models.get(model)
        if known is not None and trial.model:
            # The one call that may try this model has ended, and not well.
            known.failed(evidence, is_trial=True)
        has_opened = self._server.failed(evidence, is_trial=trial.server, is_certain=is_certain)
        return self.server if has_opened else None

    def model_failed(
        self, model: str, weights: str | None, evidence: Evidence, trial: Trial = NO_TRIAL
    ) -> Breaker | None:
        """The server answered with a failure of this model. Returns the breaker that has opened now.

        ``weights`` tell a second model from one more name of the first; None for a model that runs elsewhere.
        """
        if model not in self._models and len(self._models) >= _MOST_MODELS:
            return self.server_failed(model, evidence, trial)
        known = self._models.get(model) or self._models.setdefault(model, Suspect(self._build()))
        has_opened = known.failed(evidence, is_trial=trial.model)
        if weights is not None:
            self._failed_weights.add(weights)
        if weights is None or len(self._failed_weights) == 1:
            self.abandoned(model, Trial(server=trial.server))
        elif self._server.failed(evidence, is_trial=trial.server):
            return self.server
        return known.breaker if has_opened else None

    def came_back(self) -> None:
        """The backend was away and answers again: see :meth:`corral.breaker.Breaker.came_back`."""
        for one in (self._server, *self._models.values()):
            one.breaker.came_back()

    def _suspects(self, model: str) -> Iterator[Suspect]:
        yield self._server
        if model in self._models:
            yield self._models[model]
