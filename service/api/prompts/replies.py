"""What the prompts API answers, beside what every job looks like."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from service.api.job_replies import JobReply


class PromptPage(TypedDict):
    """A page of jobs, newest first."""

    prompts: list[JobReply]
    page: int
    page_size: int
    total: int
    total_pages: int
    total_is_capped: NotRequired[bool]
    """There are more than were counted."""
