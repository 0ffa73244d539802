"""The measured requests that ``benchmarks.focused_study`` samples from, and where they come from."""

import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.campaign.campaign import Campaign, look_around
from harness.campaign.fields import RequestSpec
from harness.campaign.jobs import Job
from harness.campaign.plan import Plan
from harness.campaign.traces import Trace, load_trace
from harness.campaign.virtual_launcher import VirtualLauncher
from harness.dataset.importers.co2_meter import OTHER_POWER, Co2Meter
from harness.records import Measurement, Quality
from predictor.focus_model import Floats

VIRTUAL = (("h100-sxm", "meta-llama/Llama-3.2-1B"), ("rtx4090", "Qwen/Qwen3-0.6B"))
BATCH_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Requests with what was measured of each, once or several times."""

    requests: tuple[RequestSpec, ...]
    log_energies: tuple[Floats, ...]  # of each request its repeats; joules

    def repeats(self) -> Floats:
        """[K] how often each was measured: how often the trace asks for it."""
        return np.array([len(values) for values in self.log_energies], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model on one device in one phase."""

    source: str
    name: str
    phase: str
    trace: Population  # lengths as real requests have them
    uniform: Population  # lengths drawn evenly


def co2_meter_cells(folder: Path) -> tuple[Cell, ...]:
    """Device × model × phase; raises ``DatasetError`` where the data are not there."""
    found: dict[tuple[str, str, str], dict[str, dict[RequestSpec, list[float]]]] = defaultdict(
        lambda: {"trace": defaultdict(list), "uniform": defaultdict(list)}
    )
    for row in _co2_meter_rows(folder):
        found[row.gpu, row.model, row.phase][row.lengths][row.request].append(row.energy_j)
    return tuple(
        Cell(
            source="co2-meter",
            name=f"{gpu}, {model.rpartition('/')[2]}",
            phase=phase,
            trace=_population(lengths["trace"]),
            uniform=_population(lengths["uniform"]),
        )
        for (gpu, model, phase), lengths in sorted(found.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    gpu: str
    model: str
    phase: str
    lengths: str  # trace, uniform
    request: RequestSpec
    energy_j: float


def _co2_meter_rows(folder: Path) -> Iterator[_Row]:
    """One a repeat, without the rows that the importer's rules call implausible in power or in length."""
    for batch in Co2Meter().read(folder):
        if batch.tables is None or batch.tables.readings is None:
            continue
        runs = {run["run_id"]: run for run in batch.tables.runs.to_pylist()}
        for reading in batch.tables.readings.to_pylist():
            run = runs[reading["run_id"]]
            if run["output_tokens"] is None or OTHER_POWER in (run["status_detail"] or ""):
                continue
            yield _Row(
                gpu=run["gpu"],
                model=run["model"],
                phase=reading["part"],
                lengths="trace" if "trace" in run["prompts"] else "uniform",
                request=RequestSpec(
                    batch_size=1, prompt_tokens=run["prompt_tokens"], output_tokens=run["output_tokens"]
                ),
                energy_j=reading["energy_j"],
            )


def _population(energies_j: dict[RequestSpec, list[float]]) -> Population:
    requests = sorted(energies_j, key=str)
    return Population(
        requests=tuple(requests), log_energies=tuple(np.log(np.array(energies_j[each])) for each in requests)
    )


class _Silent:
    """Whoever watches a campaign of the study."""

    def started(self, job: Job) -> None: ...

    def retried(self, job: Job, reason: str) -> None: ...

    def recorded(self, measurement: Measurement) -> None: ...


def virtual_cell(gpu: str, model: str, *, runs: int, seed: int) -> Cell:
    """A campaign on a virtual GPU: ``runs`` requests of the trace, and a third as many of even lengths."""
    trace = load_trace("azure-2023")
    rng = random.Random(f"{seed} {gpu}")  # noqa: S311  a simulation
    asked = _of_trace(trace, runs, rng)
    even = _evenly(trace, runs // 3, rng, set(asked))
    energies_j = _measured(gpu, model, (*asked, *even), seed)
    return Cell(
        source="virtual GPU",
        name=f"virtual {gpu}, {model.rpartition('/')[2]}",
        phase="request",
        trace=_population({each: [energies_j[each]] for each in asked if each in energies_j}),
        uniform=_population({each: [energies_j[each]] for each in even if each in energies_j}),
    )


def _of_trace(trace: Trace, count: int, rng: random.Random) -> tuple[RequestSpec, ...]:
    shares = [pair.requests for pair in trace.pairs]
    found: dict[RequestSpec, None] = {}
    while len(found) < count:
        pair = rng.choices(trace.pairs, shares)[0]
        found[_spec(rng, pair.prompt_tokens, pair.output_tokens)] = None
    return tuple(found)


def _evenly(trace: Trace, count: int, rng: random.Random, others: set[RequestSpec]) -> tuple[RequestSpec, ...]:
    prompts = [pair.prompt_tokens for pair in trace.pairs]
    outputs = [pair.output_tokens for pair in trace.pairs]
    found: dict[RequestSpec, None] = {}
    while len(found) < count:
        spec = _spec(rng, rng.randint(min(prompts), max(prompts)), rng.randint(min(outputs), max(outputs)))
        if spec not in others:
            found[spec] = None
    return tuple(found)


def _spec(rng: random.Random, prompt_tokens: int, output_tokens: int) -> RequestSpec:
    return RequestSpec(batch_size=rng.choice(BATCH_SIZES), prompt_tokens=prompt_tokens, output_tokens=output_tokens)


def _measured(gpu: str, model: str, requests: Sequence[RequestSpec], seed: int) -> dict[RequestSpec, float]:
    """What the meters of the virtual GPU said, in a campaign like any other; what ran out of memory is left out."""
    plan = Plan(
        device=f"virtual:{gpu}",
        models=(model,),
        sampling="list",
        requests=tuple(requests),
        quality=Quality.QUICK,
        trace_kernels=False,
        seed=seed,
    )
    around = look_around(plan)
    energies_j = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Campaign.open(Path(folder) / "campaign", plan, lambda: around) as campaign,
        VirtualLauncher(campaign.upcoming(), processes=2) as launcher,
    ):
        for row in campaign.carry_out(launcher, _Silent()):
            spec = RequestSpec(
                batch_size=row.batch_size or 0,
                prompt_tokens=row.prompt_tokens or 0,
                output_tokens=row.output_tokens or 0,
            )
            if row.energy_j is not None:
                energies_j[spec] = row.energy_j
    return energies_j
