"""A job's news as a person sees them: its place until the first word, then the answer."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from corral.cli.console import Console
from corral.cli.exits import EndedError, Exit
from corral.cli.job_lines import place_words

_CLEAR = "\r\x1b[K"
_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


class Follower:
    """Writes the answer to stdout, and what is to be known meanwhile to stderr."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._has_place_shown = False
        self._is_thinking = False
        self._written = ""
        """What stdout has of the answer. Into a pipe nothing can be taken back."""
        self._repeated = 0
        """How much of it the answer that was begun anew has repeated so far."""
        self._is_repeating = False

    async def follow(self, job_id: str, events: AsyncIterable[Any]) -> str:
        """Show all of it; the status with which the job has ended."""
        status = ""
        try:
            async for event in events:
                if self._console.is_json:
                    self._console.say_json(event)
                else:
                    self._show(job_id, event)
                if event["type"] == "done":
                    status = event["status"]
        finally:
            self.end()
        return status

    def end(self) -> None:
        """Leave the terminal as it should be."""
        self._leave_place()
        self._leave_thinking()
        if self._written and not self._written.endswith("\n"):
            self.text("\n")

    def place(self, job: Any) -> None:
        """Where the job stands, written over what stood there."""
        if self._console.has_moving_notes and not self._written and not self._is_thinking:
            self._has_place_shown = True
            self._console.note_piece(f"{_CLEAR}{place_words(job)} …")

    def thinking(self, text: str) -> None:
        """Thoughts are for whoever looks on: the answer alone goes to stdout."""
        if not self._console.has_moving_notes:
            return
        self._leave_place()
        if not self._is_thinking:
            self._is_thinking = True
            self._console.note_piece(_DIM if self._console.has_color_of_notes else "")
        self._console.note_text(text)

    def text(self, text: str) -> None:
        """A piece of the answer."""
        self._leave_place()
        self._leave_thinking()
        self._console.write(text)
        self._written = (self._written + text) if not self._console.is_terminal else text or self._written

    def _show(self, job_id: str, event: Any) -> None:
        match event["type"]:
            case "status":
                self.place(event["job"])
            case "text":
                self._again(job_id, event["text"])
            case "thinking":
                self.thinking(event["text"])
            case "tool_calls":
                for call in event["tool_calls"]:
                    self._leave_place()
                    self._console.say_json(call)
            case "restart":
                self._restart()

    def _restart(self) -> None:
        self._leave_place()
        self._leave_thinking()
        if not self._written:
            self._console.note("The job is tried again.")
            return
        if self._console.is_terminal:
            self.text("\n")
            self._written = ""
        self._console.note("The service came back; the answer starts anew.")
        self._repeated = 0
        self._is_repeating = True

    def _again(self, job_id: str, text: str) -> None:
        """A piece of an answer that may repeat what a pipe has already. Raises EndedError where it is another."""
        if not self._is_repeating or self._console.is_terminal:
            self.text(text)
            return
        known = self._written[self._repeated : self._repeated + len(text)]
        if not text.startswith(known):
            raise EndedError(
                Exit.FAILED,
                "the answer was begun anew, and differs from what was written already; this prints it whole: "
                f"corral result {job_id} --wait",
                "stream_broken",
            )
        self._repeated += len(known)
        if rest := text[len(known) :]:
            self._is_repeating = False
            self.text(rest)

    def _leave_place(self) -> None:
        if self._has_place_shown:
            self._has_place_shown = False
            self._console.note_piece(_CLEAR)

    def _leave_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            self._console.note_piece((_NORMAL if self._console.has_color_of_notes else "") + "\n")
