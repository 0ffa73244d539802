"""How a campaign shows that it gets on: a live bar on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from harness.campaign.jobs import Job
from harness.campaign.planning import Planned
from harness.campaign.queue import QueuedRun, State
from harness.records import Measurement, Provenance, RunRow, Status
from harness.units import duration, gibibytes, si


def request_text(job: Job) -> str:
    """A run in one short line."""
    request = job.request
    gpus = f", {job.deployment.n_gpus} GPU(s)" if job.deployment.n_gpus else ""
    if not gpus and job.deployment.ranks > 1:
        gpus = f", {job.deployment.ranks} ranks"
    return (
        f"{request.model}: batch {request.batch_size}, prompt {request.prompt_tokens}, "
        f"output {request.output_tokens}{gpus}"
    )


def _devices_text(job: Job) -> str:
    deployment = job.deployment
    return f"{deployment.ranks} ranks" if deployment.ranks > 1 and not deployment.n_gpus else str(deployment.n_gpus)


class ConsoleObserver:
    """Tells people on a console; a context manager while a campaign runs."""

    def __init__(self, console: Console, runs: Sequence[QueuedRun]) -> None:
        self._console = console
        self._left_s = {run.job.run_id: run.job.estimate_s for run in runs if run.state is not State.DONE}
        self._statuses = Counter(run.status for run in runs if run.state is State.DONE and run.status is not None)
        self._total = len(runs)
        self._energy_j = 0.0
        self._pace = 1.0  # actual time ÷ estimate, so far
        self._spent_s = self._estimated_s = 0.0
        self._started_s = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                refresh_per_second=1,  # drawing takes from the CPU that is being measured
            )
            self._bar.start()
            self._task = self._bar.add_task(self._status_text(), total=self._total, completed=self._done)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, job: Job) -> None:
        """Show which run is being measured."""
        self._started_s = time.monotonic()
        if job.run_id not in self._left_s:  # chosen since the campaign began
            self._left_s[job.run_id] = job.estimate_s
            self._total += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, total=self._total, description=f"{self._status_text()} · {escape(request_text(job))}"
            )
        else:
            self._say(f"{self._done + 1}/{self._total} {request_text(job)} …")

    def retried(self, job: Job, reason: str) -> None:
        """Say that a worker died and the run is tried again."""
        self._say(f"{request_text(job)}: tried again. {reason}")

    def recorded(self, measurement: Measurement) -> None:
        """Count a run, and show what it gave or why it gave nothing."""
        run = measurement.run
        estimate_s = self._left_s.pop(run.run_id, None)
        if estimate_s is not None and run.status is Status.OK:
            self._spent_s += time.monotonic() - self._started_s
            self._estimated_s += estimate_s
            self._pace = self._spent_s / self._estimated_s
        self._statuses[run.status] += 1
        self._energy_j += sum(reading.energy_j or 0.0 for reading in measurement.readings)
        self._say(f"{self._done}/{self._total} {_result_text(run)}")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=self._status_text())

    @property
    def _done(self) -> int:
        return sum(self._statuses.values())

    def _status_text(self) -> str:
        bad = self._statuses[Status.FAILED] + self._statuses[Status.OOM]
        left_s = self._pace * sum(self._left_s.values())
        return f"{bad} failed · {si(self._energy_j, 'J')} in windows · {duration(left_s)} left"

    def _say(self, text: str) -> None:
        left = "" if self._bar is not None else f"  [{self._status_text()}]"
        self._console.print(f"{text}{left}", markup=False, highlight=False, soft_wrap=True)


def _result_text(run: RunRow) -> str:
    shape = f"{run.model}: batch {run.batch_size}, prompt {run.prompt_tokens}, output {run.output_tokens}"
    if run.status is not Status.OK:
        return f"{shape}: {run.status}: {_reason(run)}"
    return f"{shape}: {_energy_text(run)} in {'–' if run.duration_s is None else duration(run.duration_s)}"


def _reason(run: RunRow) -> str:
    return (run.status_detail or "no reason given").splitlines()[0]


def _energy_text(run: RunRow) -> str:
    if run.energy_j is None:
        return "–"
    spread = "" if run.energy_ci95_j is None else f" ± {si(run.energy_ci95_j, 'J')}"
    return f"{si(run.energy_j, 'J')}{spread}"


def plan_table(planned: Sequence[Planned]) -> Table:
    """Every run of a plan with what it is expected to take; the last row is the total."""
    several = len({each.job.request.model for each in planned}) > 1
    table = _table(
        "Planned runs (estimates)",
        several,
        ("GPUs", "batch", "prompt", "output", "run takes", "memory", "energy of a request", "note"),
    )
    notes: list[str] = []
    for number, each in enumerate(planned, start=1):
        job, estimate = each.job, each.run.estimate
        note = f"skipped: {job.skipped}" if job.skipped else f"shortened: {job.clipped}" if job.clipped else ""
        if note and note not in notes:
            notes.append(note)
        table.add_row(
            str(number),
            *([escape(job.request.model)] if several else []),
            _devices_text(job),
            str(job.request.batch_size),
            str(job.request.prompt_tokens),
            str(job.request.output_tokens),
            duration(job.estimate_s) if job.skipped is None else "–",
            gibibytes(estimate.memory_bytes),
            si(estimate.energy_j, "J") if job.skipped is None else "–",
            f"[{notes.index(note) + 1}]".replace("[", "\\[") if note else "",
        )
    table.add_section()
    table.add_row(*_total_cells(planned, several))
    table.caption = "\n".join(escape(f"[{number}] {note}") for number, note in enumerate(notes, start=1)) or None
    return table


def _total_cells(planned: Sequence[Planned], several: bool) -> list[str]:
    made = [each for each in planned if each.job.skipped is None]
    return [
        str(len(made)),
        *([""] if several else []),
        *("", "", "", ""),
        duration(sum(each.job.estimate_s for each in made)),
        gibibytes(max((each.run.estimate.memory_bytes for each in made), default=0)),
        si(sum(each.run.estimate.energy_j for each in made), "J"),
        "",
    ]


def result_table(rows: Sequence[RunRow]) -> Table:
    """Every run with its energy, and how the numbers came about."""
    provenances = sorted({row.provenance.value for row in rows})
    qualities = sorted({row.quality.value for row in rows if row.quality})
    several = len({row.model for row in rows}) > 1
    headings = ("batch", "prompt", "output", "status", "energy of a request", "per output token", "time")
    table = _table(f"Runs ({', '.join(provenances)} energy; quality {', '.join(qualities)})", several, headings)
    for number, row in enumerate(rows, start=1):
        tokens = (row.batch_size or 0) * (row.output_tokens or 0)
        per_token = None if row.energy_j is None or tokens == 0 else row.energy_j / tokens
        table.add_row(
            str(number),
            *([escape(row.model or "")] if several else []),
            str(row.batch_size),
            str(row.prompt_tokens),
            str(row.output_tokens),
            row.status.value + ("*" if row.status is Status.OK and row.status_detail else ""),
            _energy_text(row),
            "–" if per_token is None else si(per_token, "J"),
            "–" if row.duration_s is None else duration(row.duration_s),
        )
    reasons = [
        f"{number}{'*' if row.status is Status.OK else ''}: {_reason(row)}"
        for number, row in enumerate(rows, start=1)
        if row.status is not Status.OK or row.status_detail
    ]
    table.caption = escape("\n".join(reasons)) or None
    return table


def _table(title: str, several_models: bool, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("#", justify="right")
    if several_models:
        table.add_column("model", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def closing_text(rows: Sequence[RunRow], folder: Path, report: Path) -> str:
    """Where things are, and what the numbers are not."""
    counts = Counter(row.status.value for row in rows)
    lines = [f"{len(rows)} runs: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))]
    if any(row.provenance is Provenance.ESTIMATED for row in rows):
        lines.append("Energy here is estimated by a power model, not measured: no energy counter can be read.")
    lines += [f"dataset  {folder}", f"report   {report}"]
    return "\n".join(lines)
