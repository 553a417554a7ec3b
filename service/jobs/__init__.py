"""The core: the only place where a job's status changes. Stored first, then announced."""

from __future__ import annotations

from dataclasses import dataclass

from service.jobs.attempts import Attempts
from service.jobs.cancelling import Cancelling
from service.jobs.ledger import Ledger
from service.jobs.other_processes import OtherProcesses
from service.jobs.purging import Purging
from service.jobs.records import Entered, Page, Retry, View
from service.jobs.repeats import Repeats
from service.jobs.retention import Retention
from service.jobs.submission import Submission
from service.jobs.upkeep import Upkeep
from service.jobs.views import Views, no_prompt, no_request
from service.queue.backlog import Backlog

__all__ = ["Entered", "Jobs", "Page", "Retry", "View", "no_prompt", "no_request"]


@dataclass(frozen=True, slots=True)
class Jobs:
    """The parts of the core, as the application holds them."""

    backlog: Backlog
    """Who waits, and whose turn it is."""
    ledger: Ledger
    """Who runs here, and who is told of what."""
    views: Views
    """Look at jobs."""
    submission: Submission
    """Submit jobs and call them off."""
    cancelling: Cancelling
    """Call off many jobs at once."""
    purging: Purging
    """Remove jobs with everything that is known of them."""
    retention: Retention
    """What jobs that have ended hold of text, and how long."""
    repeats: Repeats
    """Submit a job once, however often its request comes."""
    attempts: Attempts
    """Claim, finish and put back."""
    upkeep: Upkeep
    """Due, expired, rescued, pruned, counted."""
    other_processes: OtherProcesses
    """What those did that share the database."""
