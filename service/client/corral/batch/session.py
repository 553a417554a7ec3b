"""A batch from its beginning, or from where it was interrupted, to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from corral.async_client import AsyncClient
from corral.batch.inputs import Checked, Input, table_row
from corral.batch.journal import VERSION, Journal
from corral.batch.lines import Kind, Line, Outcome
from corral.batch.merging import failed_places, merge
from corral.batch.outputs import Outputs
from corral.batch.rendering import Renderer, form_of
from corral.batch.running import Limits, Run, Work
from corral.batch.senders import Calls, Jobs
from corral.batch.tally import Tally
from corral.errors import ConfigurationError
from corral.server import Kind as Server
from corral.surface import parts_of

_TOGETHER = 500
"""Lines that are written before it is noted how far the output has come."""
_MANY = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """What is to be done with an input that was found right."""

    source: Input
    checked: Checked
    output: Path
    failures: Path
    limits: Limits
    priority: str | None = None
    is_restarted: bool = False
    is_retry: bool = False

    @property
    def journal(self) -> Path:
        return self.output.with_name(self.output.name + ".journal")

    @property
    def failures_head(self) -> bytes:
        """Failed lines are an input of their own, and a table needs its head."""
        if not self.source.columns:
            return b""
        return table_row(self.source.columns, "\t" if self.source.form == "tsv" else ",") + b"\n"


class Session:
    """The files of one batch, held by this process until :meth:`close`."""

    def __init__(self, plan: Plan, server: Server) -> None:
        """Begin, or go on. Raises ConfigurationError where the files belong to something else; it blocks."""
        self._plan = plan
        self._renderer = Renderer(form_of(plan.output, plan.checked.kind or Kind.PROMPT), plan.source.columns)
        _require_free(plan)
        is_new = not plan.journal.exists()
        self._journal = Journal(plan.journal)
        try:
            self._begin(server)
        except BaseException:
            if is_new:
                self._journal.remove()
            else:
                self._journal.close()
            raise

    @property
    def tally(self) -> Tally:
        return self._tally

    async def run(self, client: AsyncClient, beside: Callable[[Run], Awaitable[None]]) -> bool:
        """Ask what is left, with ``beside`` at work meanwhile. Whether all is done; a detached run may leave jobs.

        Raises what has ended the run, which can go on later.
        """
        run = Run(
            Work(self._lines, self._settled, self._jobs),
            self._sender(client),
            self._journal,
            self._writing,
            self._tally,
            self._plan.limits,
        )
        watching = asyncio.ensure_future(beside(run))
        try:
            await run.run()
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
        if self._tally.done < self._tally.total:
            return False
        await asyncio.to_thread(self._finish)
        return True

    def close(self) -> None:
        """Leave the files to whoever goes on."""
        if isinstance(self._writing, _Growing):
            self._writing.close()
        self._journal.close()

    def _begin(self, server: Server) -> None:
        plan, facts = self._plan, self._journal.facts()
        asked = {"digest": plan.checked.digest, "server": server, "form": str(self._renderer.form)}
        if facts and (plan.is_restarted or (_is_another(facts, asked) and self._journal.is_untouched)):
            self._journal.remove()
            self._journal, facts = Journal(plan.journal), {}
        if not facts:
            self._journal.begin({**asked, "is_retry": plan.is_retry})
            facts = self._journal.facts()
        _require_same(plan, facts, asked)
        self._name: str = facts["run"]
        known = list(self._journal.known())
        self._jobs = [(one.place, one.job) for one in known if one.job is not None and not one.has_outcome]
        self._settled = {one.place for one in known}
        self._writing: _Growing | _Later
        if facts["is_retry"]:
            self._chosen: set[int] | None = failed_places(
                plan.output, self._renderer, plan.source.lines(), plan.checked.count
            )
            self._writing = _Later()
            total = len(self._chosen | self._settled)
            self._begun = 0
        else:
            self._chosen = None
            place = self._journal.place()
            outputs = Outputs(plan.output, plan.failures, place, self._renderer.head, plan.failures_head)
            self._writing = _Growing(outputs, self._renderer, plan.source, self._mark)
            total = plan.checked.count
            self._begun = place.lines
        self._tally = Tally.of(facts["tally"]) if "tally" in facts else Tally(total)

    def _lines(self) -> Iterator[Line]:
        lines = self._plan.source.lines(self._begun)
        chosen = self._chosen
        return lines if chosen is None else (line for line in lines if line.index in chosen)

    def _sender(self, client: AsyncClient) -> Jobs | Calls:
        # What passes is waited out here, for as long as it takes.
        client.max_retries, client.failure_threshold = 0, _MANY
        parts = parts_of(client)
        if client.server == "corral" and self._plan.checked.kind is not Kind.OPENAI:
            return Jobs(parts, self._name)
        client.max_concurrent_requests = self._plan.limits.concurrency
        return Calls(parts, self._name, self._plan.priority)

    def _mark(self, place: int) -> str:
        return f"{self._name[:16]}{place:08x}"

    def _finish(self) -> None:
        plan = self._plan
        if isinstance(self._writing, _Growing):
            self._writing.write(self._journal, {})
            self._writing.sync()
            self._writing.close()
        else:
            merge(
                plan.output,
                plan.failures,
                self._renderer,
                plan.source.lines(),
                self._journal.outcome,
                self._mark,
                plan.failures_head,
            )
        self._journal.remove()


class _Growing:
    """The output of a run, which grows in the order of the input."""

    def __init__(self, outputs: Outputs, renderer: Renderer, source: Input, mark: Callable[[int], str]) -> None:
        self._outputs = outputs
        self._renderer = renderer
        self._lines = source.lines(outputs.lines)
        self._mark = mark

    def write(self, journal: Journal, fresh: dict[int, Outcome]) -> None:
        """Write all that has its turn now."""
        while self._write_some(journal, fresh):
            journal.written(self._outputs.place())

    def sync(self) -> None:
        self._outputs.sync()

    def close(self) -> None:
        self._outputs.close()

    def _write_some(self, journal: Journal, fresh: dict[int, Outcome]) -> int:
        count = 0
        while count < _TOGETHER:
            place = self._outputs.lines
            outcome = fresh.get(place) or journal.outcome(place)
            if outcome is None:
                break
            line = next(self._lines, None)
            if line is None:
                raise ConfigurationError("the input has become shorter meanwhile; put it back, and run this again")
            self._outputs.add(
                self._renderer.line(line, outcome, self._mark(place)), None if outcome.is_good else line.source
            )
            count += 1
        return count


class _Later:
    """Outcomes that wait in the journal until all of them are there."""

    def write(self, journal: Journal, fresh: dict[int, Outcome]) -> None:
        """Nothing yet."""


def _require_free(plan: Plan) -> None:
    """Raises ConfigurationError where a finished output would be written over, or one is missing."""
    if plan.journal.exists():
        return
    if plan.is_retry and not plan.output.exists():
        raise ConfigurationError(f"{plan.output}: is not there; run the batch without --retry-failed first")
    if not plan.is_retry and not plan.is_restarted and plan.output.exists() and plan.output.stat().st_size:
        raise ConfigurationError(
            f"{plan.output}: is there already, and no run of it was interrupted; give --retry-failed for its failed "
            "lines, --restart to write it anew, or another -o"
        )


def _is_another(facts: Mapping[str, object], asked: Mapping[str, object]) -> bool:
    """Whether a run was begun with something else."""
    return facts.get("version") != VERSION or any(facts.get(name) != value for name, value in asked.items())


def _require_same(plan: Plan, facts: Mapping[str, object], asked: Mapping[str, object]) -> None:
    if _is_another(facts, asked):
        names = {"digest": "input, model, template or other options", "server": "kind of server", "form": "output"}
        changed = next((names[name] for name, value in asked.items() if facts.get(name) != value), "version of Corral")
        raise ConfigurationError(
            f"{plan.journal}: a run was interrupted that was begun with another {changed}; "
            "give what it was begun with, or --restart to forget it"
        )
    if plan.is_retry and not facts["is_retry"]:
        raise ConfigurationError(
            f"{plan.output}: is not finished; the same command without --retry-failed goes on with it"
        )
