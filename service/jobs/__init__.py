"""The core: the only place where a job's status changes. Stored first, then announced."""

from service.jobs.attempts import Attempts
from service.jobs.other_processes import OtherProcesses
from service.jobs.records import Entered, Page, Retry, View
from service.jobs.repeats import Repeats
from service.jobs.views import no_prompt, no_request

__all__ = ["Entered", "Jobs", "Page", "Retry", "View", "no_prompt", "no_request"]


class Jobs(Repeats, Attempts, OtherProcesses):
    """Submit, look at, follow, cancel, begin, finish and retry jobs."""
