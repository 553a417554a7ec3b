"""How a batch's run stands, on stderr: a bar on a terminal, lines every 30 seconds elsewhere, or JSON."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from corral.batch.prices import Prices
from corral.batch.tally import Progress, Rates, Tally
from corral.cli.console import Console
from corral.cli.control_characters import in_a_cell
from corral.cli.job_lines import duration

if TYPE_CHECKING:
    from corral.batch.running import Run

_LOOK_SECONDS = 1.0
_TELL_SECONDS = 30.0
MODES = ("bar", "lines", "json", "none")


class View(Protocol):
    """Shows how it stands."""

    def show(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


async def watch(run: Run, view: View, prices: Prices) -> None:
    """Show how the run stands, until it is cancelled."""
    rates, loop = Rates(), asyncio.get_running_loop()
    try:
        while True:
            view.show(rates.progress(run.tally, loop.time(), prices, run.waits_for))
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        view.show(rates.progress(run.tally, loop.time(), prices, run.waits_for))
        view.close()


def view_of(mode: str | None, console: Console) -> View:
    """A bar where notes may move, lines elsewhere, unless a mode was asked for."""
    if mode == "none" or (mode is None and console.is_quiet):
        return _Nothing()
    if mode == "bar" or (mode is None and console.has_moving_notes):
        return _Bar(has_color=console.has_color_of_notes)
    return _Lines(console, is_json=mode == "json" or (mode is None and console.is_json))


class _Nothing:
    def show(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    """A line at the beginning, every 30 seconds, and when what is waited for is another."""

    def __init__(self, console: Console, *, is_json: bool) -> None:
        self._console = console
        self._is_json = is_json
        self._told_at: float | None = None
        self._waited_for: str | None = None

    def show(self, progress: Progress) -> None:
        now = asyncio.get_running_loop().time()
        is_due = self._told_at is None or now - self._told_at >= _TELL_SECONDS
        if not is_due and progress.waits_for == self._waited_for:
            return
        self._told_at, self._waited_for = now, progress.waits_for
        if self._is_json:
            self._console.note_json({"progress": asdict(progress)})
        else:
            self._console.note(words(progress))

    def close(self) -> None:
        """The summary follows."""


class _Bar:
    """Written over, by rich."""

    def __init__(self, *, has_color: bool) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=RichConsole(file=sys.stderr, no_color=not has_color, highlight=False),
            auto_refresh=False,
        )
        self._task: Any = None

    def show(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._rich.add_task("", total=progress.total)
            self._rich.start()
        self._rich.update(self._task, completed=progress.done, description=in_a_cell(words(progress)))
        self._rich.refresh()

    def close(self) -> None:
        self._rich.stop()


def words(progress: Progress) -> str:
    """The same for people, on one line."""
    share = f" ({progress.done * 100 // progress.total} %)" if progress.total else ""
    parts = [f"{progress.done:,} of {progress.total:,} lines{share}"]
    if progress.lines_per_second:
        parts.append(f"{progress.lines_per_second:.1f} lines/s, {progress.tokens_per_second:.0f} tokens/s")
    if progress.remaining_seconds is not None and progress.done < progress.total:
        parts.append(f"{duration(progress.remaining_seconds)} left")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.price is not None:
        parts.append(f"price {progress.price:.4f}")
    if progress.waits_for:
        parts.append(f"waiting: {progress.waits_for}")
    return ", ".join(parts)


def summary(tally: Tally, prices: Prices) -> dict[str, Any]:
    """What the whole run has come to."""
    found: dict[str, Any] = {
        "lines": tally.total,
        "completed": tally.done - tally.failed,
        "failed": tally.failed,
        "causes": dict(tally.causes.most_common()),
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "seconds": round(tally.seconds, 3),
        "lines_per_second": round(tally.done / tally.seconds, 3) if tally.seconds else None,
    }
    if prices.is_known:
        found["price"] = round(prices.of(tally.prompt_tokens, tally.completion_tokens), 6)
    return found


def summary_words(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"{found['completed']:,} of {found['lines']:,} lines completed, {found['failed']:,} failed"]
    lines += [f"  {number:,} × {cause}" for cause, number in found["causes"].items()]
    rate = f", {found['lines_per_second']:g} lines/s" if found["lines_per_second"] else ""
    lines.append(
        f"{found['prompt_tokens']:,} tokens asked, {found['completion_tokens']:,} answered, "
        f"in {duration(found['seconds'])}{rate}" + (f", price {found['price']:g}" if "price" in found else "")
    )
    return lines
