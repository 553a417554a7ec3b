"""``corral batch``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.asking_options import takes_wishes_beside_output, wished
from corral.cli.batch_options import takes_batch_options
from corral.cli.exits import EndedError, Exit
from corral.cli.interrupts import run
from corral.cli.optional_values import ReadingCommand

if TYPE_CHECKING:
    from corral.async_client import AsyncClient
    from corral.batch.inputs import Checked, Input
    from corral.batch.prices import Prices
    from corral.batch.running import Limits
    from corral.batch.session import Session
    from corral.batch.tally import Tally
    from corral.server import Kind


@dataclass(frozen=True)
class _Wanted:
    """The options that are neither for the input nor for the run."""

    output: Path | None
    failures: Path | None
    is_dry_run: bool
    is_restarted: bool
    is_retry: bool
    progress: str | None
    priority: str


@click.command(cls=ReadingCommand, short_help="ask every prompt of a file; what is interrupted goes on")
@takes_batch_options
@takes_wishes_beside_output
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True))
@pass_asked
def batch(asked: Asked, /, source: str, **given: Any) -> int:
    """Ask every prompt of INPUT, and write the answers to OUTPUT in the same order.

    INPUT is .jsonl (each line a text, an object with prompt or messages, or a line of OpenAI's batch format), .csv or
    .tsv (with a column prompt, or with --template), .txt (a prompt a line), or - for standard input; gzip, too.
    All of it is checked before the first prompt is asked. Interrupted at any time, the same command goes on.
    What options say here holds for all lines; a line's own word wins.
    """
    from corral.batch.inputs import opened_input
    from corral.batch.prices import Prices
    from corral.batch.prompts import Defaults, LineError, Template
    from corral.batch.running import Limits

    limits = Limits(
        given.pop("in_flight"),
        given.pop("concurrency"),
        given.pop("max_failures"),
        given.pop("max_wait"),
        given.pop("detach"),
    )
    prices = Prices(given.pop("price_in"), given.pop("price_out"))
    template, limit, form = given.pop("template"), given.pop("limit"), given.pop("input_format")
    output, failures = given.pop("output"), given.pop("failures")
    is_dry_run, is_restarted, is_retry = given.pop("dry_run"), given.pop("restart"), given.pop("retry_failed")
    progress = given.pop("progress")
    how = wished(**given)
    wanted = _Wanted(output, failures, is_dry_run, is_restarted, is_retry, progress, how.priority or "low")
    _require_sense(wanted, source)
    try:
        words = {**how.keywords(), "priority": wanted.priority}
        defaults = Defaults(**words, template=None if template is None else Template(template))
    except LineError as error:
        raise click.UsageError(str(error)) from None
    with opened_input(source, input_format=form, defaults=defaults, limit=limit) as opened:
        checked = opened.check()
        _require_right(asked, source, checked)
        if is_dry_run:
            _say_counts(asked, checked, prices)
            return Exit.DONE
        return run(_run(asked, opened, checked, wanted, limits, prices))


def _require_sense(wanted: _Wanted, source: str) -> None:
    if wanted.output is None:
        if not wanted.is_dry_run:
            raise click.UsageError("give -o OUTPUT, or --dry-run")
        return
    if str(wanted.output) == "-" or wanted.output.is_dir():
        raise click.UsageError("-o: give a file; the answers are written as they come, and can be read meanwhile")
    if wanted.output.exists() and Path(source).exists() and wanted.output.samefile(source):
        raise click.UsageError("-o: is the input itself")
    if wanted.failures is not None and wanted.failures.absolute() in (
        wanted.output.absolute(),
        Path(source).absolute(),
    ):
        raise click.UsageError("--failures: give a file of its own")
    if wanted.is_restarted and wanted.is_retry:
        raise click.UsageError("--restart begins anew, and --retry-failed keeps what is there: give one of them")
    if not wanted.output.absolute().parent.is_dir():
        raise click.UsageError(f"-o: the folder {wanted.output.absolute().parent} is not there")


def _require_right(asked: Asked, source: str, checked: Checked) -> None:
    """Raises EndedError, after each problem was told."""
    if not checked.problem_count:
        if not checked.count:
            raise EndedError(Exit.USAGE, f"{source}: has no prompts", "invalid_input")
        return
    for problem in checked.problems:
        asked.console.fail(f"line {problem.number}: {problem.words}")
    more = checked.problem_count - len(checked.problems)
    also = f" ({more} more are not shown)" if more else ""
    problems = "1 problem" if checked.problem_count == 1 else f"{checked.problem_count} problems"
    raise EndedError(Exit.USAGE, f"{source}: {problems}{also}; nothing was asked", "invalid_input")


def _say_counts(asked: Asked, checked: Checked, prices: Prices) -> None:
    from corral.batch.prices import estimated_tokens

    tokens = estimated_tokens(checked.characters)
    found: dict[str, Any] = {
        "lines": checked.count,
        "models": {model or "(default)": number for model, number in checked.models.most_common()},
        "characters": checked.characters,
        "estimated_prompt_tokens": tokens,
        "most_completion_tokens": checked.answer_tokens,
    }
    if prices.is_known:
        found["estimated_price"] = round(prices.of(tokens, checked.answer_tokens or 0), 6)
    if asked.is_json:
        asked.console.say_json(found)
        return
    asked.console.say(f"{checked.count:,} lines")
    for model, number in found["models"].items():
        asked.console.say(f"  {number:,} × {model}")
    asked.console.say(f"about {tokens:,} tokens asked ({checked.characters:,} characters, 4 a token)")
    if checked.answer_tokens is None:
        asked.console.say("how many are answered is not known: --max-tokens bounds it")
    else:
        asked.console.say(f"at most {checked.answer_tokens:,} answered")
    if prices.is_known:
        without = " without the answers" if checked.answer_tokens is None and prices.answered else ""
        asked.console.say(f"about {found['estimated_price']:g}{without}")


async def _run(asked: Asked, source: Input, checked: Checked, wanted: _Wanted, limits: Limits, prices: Prices) -> int:
    from corral.batch.session import Plan, Session

    assert wanted.output is not None
    failures = wanted.failures or wanted.output.with_name(wanted.output.name + ".failures")
    plan = Plan(source, checked, wanted.output, failures, limits, wanted.priority, wanted.is_restarted, wanted.is_retry)
    async with asked.client(is_patient=True) as client:
        server = await _first_contact(asked, client, limits.max_wait_seconds)
        if limits.is_detached and (server == "ollama" or checked.kind == "openai"):
            what = "a bare Ollama has no queue" if server == "ollama" else "lines of OpenAI's format are no jobs"
            raise EndedError(Exit.FAILED, f"--detach: {what} to leave and come back to", "not_supported")
        session = Session(plan, server)
        try:
            return await _asked_all(asked, session, client, wanted, prices)
        finally:
            session.close()


async def _first_contact(asked: Asked, client: AsyncClient, seconds: float | None) -> Kind:
    """Which server it is, as soon as it is there. Raises EndedError (124) when time runs out before."""
    import asyncio

    from corral.batch.pace import Pace, what_passes
    from corral.call import new_call
    from corral.errors import CorralError
    from corral.surface import parts_of

    client.max_retries = 0
    told = False

    async def look() -> bool:
        nonlocal told
        try:
            return await parts_of(client).server.is_corral(new_call(None), is_guarded=False)
        except CorralError as error:
            if not told and what_passes(error):
                told = True
                asked.console.note(f"waiting: {error}")
            raise

    try:
        async with asyncio.timeout(seconds) as time:
            return "corral" if await Pace().through(look) else "ollama"
    except TimeoutError:
        if not time.expired():
            raise
        raise EndedError(Exit.OUT_OF_TIME, f"--max-wait: nobody was there for {seconds:g} s", "timeout") from None


async def _asked_all(asked: Asked, session: Session, client: AsyncClient, wanted: _Wanted, prices: Prices) -> int:
    import asyncio

    from corral.batch.running import OutOfTimeError, TooManyFailedError
    from corral.cli.batch_progress import view_of, watch

    view = view_of(wanted.progress, asked.console)
    going_on = "the same command goes on"
    try:
        is_done = await session.run(client, lambda run: watch(run, view, prices))
    except asyncio.CancelledError:
        asked.console.note(f"interrupted; {going_on}")
        raise
    except TooManyFailedError as error:
        raise EndedError(Exit.SOME_FAILED, f"{error}; {going_on}", "too_many_failed") from None
    except OutOfTimeError as error:
        raise EndedError(Exit.OUT_OF_TIME, f"{error}; {going_on}", "timeout") from None
    if not is_done:
        asked.console.note(f"all lines are submitted; {going_on}, without --detach, and collects the answers")
        return Exit.DONE
    return _told(asked, session.tally, prices)


def _told(asked: Asked, tally: Tally, prices: Prices) -> int:
    from corral.cli.batch_progress import summary, summary_words

    found = summary(tally, prices)
    if asked.is_json:
        asked.console.say_json(found)
    else:
        for line in summary_words(found):
            asked.console.note(line)
    if not tally.failed:
        return Exit.DONE
    is_nobody_allowed = tally.failed == tally.total and set(tally.causes) <= {"permission_denied", "forbidden"}
    return Exit.NOT_ALLOWED if is_nobody_allowed else Exit.SOME_FAILED
