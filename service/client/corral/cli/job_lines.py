"""Jobs in words, for people."""

from __future__ import annotations

from typing import Any


def place_words(job: Any) -> str:
    """Where a job waits, or what it does."""
    if job["status"] == "processing":
        attempt = job.get("attempt", 0)
        return f"processing, attempt {attempt}" if attempt > 1 else "processing"
    if job["status"] != "queued":
        return str(job["status"])
    words = "queued"
    if (position := job.get("position")) is not None:
        about = "" if job.get("position_is_exact", True) else "about "
        words += f", position {about}{position}"
    if (seconds := job.get("estimated_start_seconds")) is not None:
        words += f", starts in about {duration(seconds)}"
    return words


def detail(job: Any) -> str:
    """What is to be known beside the status: its place, or why it ended so."""
    error = job.get("error") or (job.get("last_error") if job["status"] == "queued" else None)
    words = place_words(job).removeprefix(job["status"]).removeprefix(", ")
    if error:
        told = error.get("message") or error["code"]
        words = f"{words}; last failure: {told}" if words else str(told)
    return words


def duration(seconds: float) -> str:
    """``4 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    count = max(0, round(seconds))
    if count < 90:
        return f"{count} s"
    minutes = round(count / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def job_line(job: Any) -> str:
    """One job on one line."""
    return f"{job['id']}  {job['status']:<10}  {job['model']}  {detail(job)}".rstrip()
