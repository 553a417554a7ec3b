"""The core: the only place where a job's status changes. Stored first, then announced."""

from service.jobs.attempts import Attempts
from service.jobs.elsewhere import Elsewhere
from service.jobs.records import Entered, Limits, Page, Pick, Refusal, Retry, Running, View
from service.jobs.repeats import Repeats
from service.jobs.views import no_prompt, no_request

__all__ = [
    "Entered", "Jobs", "Limits", "Page", "Pick", "Refusal", "Retry", "Running", "View", "no_prompt", "no_request",
]  # fmt: skip


class Jobs(Repeats, Attempts, Elsewhere):
    """Submit, look at, follow, cancel, begin, finish and retry jobs."""
