"""The core: the only place where a job's status changes."""

from service.jobs.core import Jobs
from service.jobs.records import Limits, Page, Pick, Retry, Running, View

__all__ = ["Jobs", "Limits", "Page", "Pick", "Retry", "Running", "View"]
