"""Carry out a plan: one worker at a time, each finished run on the disk before the next one starts.

``next → worker → append to the dataset → done`` is the order of every run, so that a campaign killed anywhere goes on
with the same command: what the dataset holds is done, what it does not hold is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol, Self

from harness.campaign.calibrated import calibration_file, virtual_calibration
from harness.campaign.folder import STATE_FOLDER, CampaignFolder
from harness.campaign.jobs import Job, run_id_of
from harness.campaign.launchers import Launcher
from harness.campaign.plan import Plan
from harness.campaign.planning import Planned, Subject, find_subjects, kernel_methods, planned_runs
from harness.campaign.queue import QUEUE_FILE, QueuedRun, RunQueue, State
from harness.campaign.rows import OWN_SOURCE, Outcome, run_row
from harness.campaign.site import Site, find_site
from harness.campaign.task import Task
from harness.dataset.layout import survey
from harness.dataset.reading import dataset_of
from harness.dataset.store import DatasetStore
from harness.errors import OtherCampaign, OutOfMemory, RunError, WorkerDied
from harness.records import Measurement, RunRow, Status

_PATIENCE = 20.0  # times the estimate, before a run counts as hung
_PATIENCE_MIN_S = 1800.0


class Observer(Protocol):
    """Who wants to know how a campaign gets on."""

    def started(self, job: Job) -> None:
        """A run starts."""
        ...

    def retried(self, job: Job, reason: str) -> None:
        """The worker of a run died, and the run is tried again."""
        ...

    def recorded(self, measurement: Measurement) -> None:
        """A run is in the dataset, in whatever way it ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the machine gives a campaign: found once, and only when a run needs it."""

    site: Site
    subjects: tuple[Subject, ...]
    calibration: str | None = None  # that the plan names, canonical JSON

    def planned(self, plan: Plan) -> tuple[Planned, ...]:
        """The runs of the plan here."""
        return planned_runs(plan, self.site, self.subjects)


def look_around(plan: Plan, *, to_run: bool = True) -> Surroundings:
    """Find devices, meters and models; raises ``UsageError`` and ``MeterError``. Planning alone needs no usable GPU."""
    calibration = calibration_file(plan)  # before anything is downloaded
    site = find_site(plan, to_run=to_run)
    return Surroundings(site=site, subjects=find_subjects(plan, site, download=to_run), calibration=calibration)


class Campaign:
    """A plan being carried out in a folder; a context manager that holds the folder's lock."""

    def __init__(
        self,
        plan: Plan,
        folder: CampaignFolder,
        look: Callable[[], Surroundings],
        planned: Callable[[], tuple[Planned, ...]],
    ) -> None:
        self.plan = plan
        self.folder = folder
        self._look = look
        with ExitStack() as on_error:
            if not (folder.state / QUEUE_FILE).exists():
                DatasetStore.open(folder.path)  # a folder that holds something else is refused before anything is made
            # The queue before the store: it can say what differs from another campaign's plan.
            self.queue = on_error.enter_context(
                RunQueue.open(
                    folder.state,
                    campaign_id=plan.campaign_id,
                    configuration=plan.configuration,
                    jobs=lambda: [each.job for each in planned()],
                    finished=finished_runs(folder.path),
                )
            )
            self.store = DatasetStore.open(folder.path, campaign_id=plan.campaign_id)
            self._closing = on_error.pop_all()
        self._closing.push(folder)

    @classmethod
    def open(cls, path: Path, plan: Plan, look: Callable[[], Surroundings]) -> Self:
        """Start a campaign in a folder, or go on with it; raises ``DatasetError``s and what ``look`` raises."""
        look = cache(look)
        planned = cache(lambda: look().planned(plan))
        if not (path / STATE_FOLDER / QUEUE_FILE).exists():
            planned()  # a plan that cannot be made here leaves no folder behind
        folder = CampaignFolder.open(path)
        try:
            return cls(plan, folder, look, planned)
        except BaseException:
            folder.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def upcoming(self) -> Iterator[Task]:
        """The tasks that wait now, but for the first; for launchers that work ahead."""
        waiting = [run.job for run in self.queue.runs() if run.state is State.WAITING]
        return map(self._task, waiting[1:])

    def carry_out(
        self, launcher: Launcher, observer: Observer, more: Callable[[], Sequence[Job]] = tuple
    ) -> Iterator[RunRow]:
        """Make every waiting run; yields each run once its row is on the disk.

        ``more`` is asked for further runs whenever none waits, until it has none: each of them can be made.
        """
        for run in self.queue.unrecorded:
            yield self._record(self._without_numbers(run), observer)
        while (job := self.queue.next() or self._added(more())) is not None:
            observer.started(job)
            measurement = self._make(job, launcher, observer)
            if measurement is None:
                continue
            row = self._record(measurement, observer)
            self.queue.done(job.run_id, row.status, row.status_detail)
            yield row
            if row.status is Status.OOM:
                for skipped in self.queue.skip_larger_after_oom(job):
                    yield self._record(self._without_numbers(skipped), observer)

    def _added(self, jobs: Sequence[Job]) -> Job | None:
        """Take further runs into the queue; the first of them."""
        self.queue.add(jobs)
        return self.queue.next()

    def _make(self, job: Job, launcher: Launcher, observer: Observer) -> Measurement | None:
        """Launch a run; None if its worker died and it is to be tried again."""
        started_at_utc = _now_utc()
        try:
            return launcher.launch(self._task(job), limit_s=max(_PATIENCE_MIN_S, _PATIENCE * job.estimate_s))
        except OutOfMemory as error:
            status, reason = Status.OOM, str(error)
        except WorkerDied as error:
            if self.queue.crashed(job.run_id, str(error)):
                observer.retried(job, str(error))
                return None
            status, reason = Status.FAILED, str(error)
        except RunError as error:
            status, reason = Status.FAILED, str(error)
        return self._ended(job, status, reason, started_at_utc)

    def _without_numbers(self, run: QueuedRun) -> Measurement:
        return self._ended(run.job, run.status or Status.SKIPPED, run.reason, _now_utc())

    def _ended(self, job: Job, status: Status, reason: str | None, started_at_utc: str) -> Measurement:
        task = self._task(job)
        outcome = Outcome(
            status=status, detail=reason, started_at_utc=started_at_utc, environment_id=None, gpu=task.gpu
        )
        return Measurement(run=run_row(task, outcome), source=OWN_SOURCE)

    def _record(self, measurement: Measurement, observer: Observer) -> RunRow:
        self.store.append(measurement)
        observer.recorded(measurement)
        return measurement.run

    @cached_property
    def surroundings(self) -> Surroundings:
        """Devices and models; looked for when first needed."""
        return self._look()

    @cached_property
    def _subjects(self) -> Mapping[str, Subject]:
        return {subject.source.name: subject for subject in self.surroundings.subjects}

    @cached_property
    def _calibration(self) -> str | None:
        return self.surroundings.calibration or virtual_calibration(self.plan, self.folder.state)

    def _task(self, job: Job) -> Task:
        site, subject = self.surroundings.site, self._subjects.get(job.request.model)
        if subject is None or job.run_id != run_id_of(
            job.request, job.deployment, self.plan, site.gpu, subject.version
        ):
            raise OtherCampaign(
                f"{self.folder.path} was begun on another device than {site.gpu}, or with another revision of "
                f"{job.request.model}.\nGo on where it was begun, or choose another folder with --out."
            )
        return Task(
            job=job,
            source=subject.source,
            gpu=site.gpu,
            ceilings=site.ceilings,
            gpu_uuids=site.gpu_uuids,
            provenance=site.provenance,
            campaign_id=self.plan.campaign_id,
            configuration=self.plan.configuration,
            quality=self.plan.quality,
            limit_s=None if self.plan.time_budget_s is None else job.estimate_s,
            seed=self.plan.seed,
            cpu_threads=self.plan.cpu_threads,
            collective_timeout_s=self.plan.collective_timeout_s,
            trace_kernels=self.plan.trace_kernels,
            kernel_energy=kernel_methods(self.plan, site),
            calibration=self._calibration,
        )


def finished_runs(folder: Path) -> dict[str, Status]:
    """How each run ended that the dataset in this folder holds; empty where there is none."""
    return {row.run_id: row.status for row in dataset_of(folder, survey(folder)).rows(RunRow)}


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
