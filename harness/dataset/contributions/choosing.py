"""Which runs of a folder are published, and why the others are not."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.dataset.contributions.pack import PackRequest, reference_pack
from harness.dataset.reading import Dataset
from harness.errors import DatasetError, UsageError
from harness.records import Provenance, Quality, RunRow, Status, Workload

SIMULATED, QUICK = "simulated", "quick"
INCLUDABLE = (SIMULATED, QUICK)
_CPU = "cpu: "


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Runs that are not published."""

    reason: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The runs of one device that are published."""

    gpu: str
    runs: tuple[RunRow, ...]
    left_out: tuple[LeftOut, ...]
    lacks: tuple[PackRequest, ...]  # requests of the reference pack that are not among them


def choose(datasets: Sequence[Dataset], *, gpu: str | None = None, include: frozenset[str] = frozenset()) -> Chosen:
    """Runs that can be published, each once; raises ``UsageError`` and ``DatasetError`` where there are none."""
    found = {run.run_id: run for dataset in reversed(datasets) for run in dataset.rows(RunRow)}
    wanted = _of_one_device(list(found.values()), gpu)
    reasons: Counter[str] = Counter()
    kept = []
    for run in sorted(wanted, key=lambda run: (run.started_at_utc or "", run.run_id)):
        reason = _reason(run, include)
        if reason is None:
            kept.append(run)
        else:
            reasons[reason] += 1
    left_out = tuple(LeftOut(reason=reason, runs=count) for reason, count in sorted(reasons.items()))
    if not kept:
        told = "; ".join(f"{each.runs} {each.reason}" for each in left_out)
        raise DatasetError(f"None of the runs can be published: {told}.\n{_remedy(reasons)}")
    qualities = frozenset({Quality.STANDARD, Quality.QUICK} if QUICK in include else {Quality.STANDARD})
    lacks = reference_pack().missing(kept, kept[0].gpu, qualities)
    return Chosen(gpu=kept[0].gpu, runs=tuple(kept), left_out=left_out, lacks=lacks)


def _of_one_device(runs: Sequence[RunRow], gpu: str | None) -> list[RunRow]:
    gpus = sorted({run.gpu for run in runs})
    if gpu is not None and gpu not in gpus:
        raise UsageError(f"There are no runs on {gpu[:80]!r}.\nThere are runs on {', '.join(gpus) or 'nothing'}.")
    if gpu is None and len(gpus) > 1:
        raise UsageError(f"There are runs on {', '.join(gpus)}; a bundle is of one device.\nName it with --gpu.")
    return [run for run in runs if gpu in (None, run.gpu)]


def _reason(run: RunRow, include: frozenset[str]) -> str | None:
    return next((reason for reason, applies in _REASONS if applies(run, include)), None)


_REASONS: tuple[tuple[str, Callable[[RunRow, frozenset[str]], bool]], ...] = (
    ("imported: they are others' to publish", lambda run, _: run.provenance is Provenance.IMPORTED),
    ("simulated", lambda run, include: run.provenance is Provenance.SIMULATED and SIMULATED not in include),
    (
        "estimated on a GPU, where energy can be measured",
        lambda run, _: run.provenance is Provenance.ESTIMATED and not run.gpu.startswith(_CPU),
    ),
    ("not of status ok", lambda run, _: run.status is not Status.OK or run.energy_j is None),
    ("of quality quick", lambda run, include: run.quality is not Quality.STANDARD and QUICK not in include),
    ("corrected by a later run", lambda run, _: run.superseded_by is not None),
    ("not runs of one batch", lambda run, _: run.workload is not Workload.BATCH),
    ("without a time at which they started", lambda run, _: run.started_at_utc is None),
)


def _remedy(reasons: Iterable[str]) -> str:
    if "simulated" in reasons:
        return "A virtual GPU measures nothing; to rehearse with it, add --include simulated."
    if "of quality quick" in reasons:
        return "Run the campaign again in standard quality (--quality standard)."
    return "Run `python -m harness.run` on the device first."
