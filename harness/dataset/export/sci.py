"""The SCI score, Software Carbon Intensity, of each run: ISO/IEC 21031:2024.

    SCI = (E × I + M) per R

E is the energy (kWh) of one run times the PUE, I the carbon intensity of the grid (gCO2e/kWh, location-based), M the
embodied carbon of the hardware for the time it was held (gCO2e), R the number of functional units in the run, which the
score declares. Nothing is guessed: a run whose M is not known gets no score, and the file says how many and why.
Specification: https://github.com/Green-Software-Foundation/sci. Intervals add in quadrature, see ``harness.carbon``.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.carbon import (
    CarbonFactors,
    Embodied,
    Grams,
    Stated,
    embodied_carbon,
    embodied_of,
    operational_carbon,
)
from harness.dataset.export.leaving import Leaving, LeavingRun
from harness.dataset.export.writing import write_text
from harness.errors import DatasetError
from harness.records import Workload
from harness.units import J_PER_KWH

SPECIFICATION = "ISO/IEC 21031:2024"
FILE = "sci.json"


class Unit(StrEnum):
    """What R counts: the functional unit."""

    OUTPUT_TOKEN = "output-token"  # noqa: S105  no password
    THOUSAND_OUTPUT_TOKENS = "1000-output-tokens"
    REQUEST = "request"  # one sequence: a prompt and its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The SCI of one run; masses are grams of CO2 equivalent."""

    run: LeavingRun
    energy_kwh: float  # PUE included
    operational: Grams
    embodied: Grams
    hardware: Embodied  # what the embodied carbon was computed from
    units: float

    @property
    def sci_g(self) -> float:
        """Grams per functional unit."""
        return (self.operational.value_g + self.embodied.value_g) / self.units

    @property
    def ci95_g(self) -> float | None:
        """Half width of its 95 % interval; None where one of its terms has none."""
        if self.operational.ci95_g is None or self.embodied.ci95_g is None:
            return None
        return math.hypot(self.operational.ci95_g, self.embodied.ci95_g) / self.units


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What the scores are made with."""

    factors: CarbonFactors
    unit: Unit
    embodied: Embodied | None = None  # of every device; None: what is published of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """All scores, and how many runs have none for which reason."""

    scores: tuple[Score, ...]
    without: Mapping[str, int]


def export_sci(leaving: Leaving, scoring: Scoring, out: Path) -> Scored:
    """Write ``out/sci.json``; raises ``CannotWrite``, and ``DatasetError`` where no run has a score."""
    scored = score_runs(leaving, scoring)
    write_text(out / FILE, json.dumps(_document(scored, scoring), indent=1, ensure_ascii=False) + "\n")
    return scored


def score_runs(leaving: Leaving, scoring: Scoring) -> Scored:
    """Score every run that can be scored; raises ``DatasetError`` where none can."""
    scores: list[Score] = []
    without = Counter(leaving.stayed)
    for run in leaving.runs:
        score = _score(run, scoring)
        if isinstance(score, Score):
            scores.append(score)
        else:
            without[score] += 1
    if not scores:
        listed = "\n".join(f"  {runs} runs: {reason}" for reason, runs in without.items())
        raise DatasetError(f"No run has an SCI score.\n{listed}")
    return Scored(scores=tuple(scores), without=dict(without))


def _score(run: LeavingRun, scoring: Scoring) -> Score | str:
    """The score of a run, or why it has none."""
    embodied = scoring.embodied or embodied_of(run.row.gpu)
    held_s, units = _held_s(run), _units(run, scoring.unit)
    if embodied is None:
        return f"the embodied carbon of {run.row.gpu} is not known: state it with --embodied-kg"
    if held_s is None:
        return "the time its devices were held is not known"
    if not units:
        return f"the number of functional units ({scoring.unit}) is not known, or 0"
    row, factors = run.row, scoring.factors
    operational = operational_carbon(
        energy_j=run.energy_j, ci95_j=row.energy_ci95_j, systematic95_j=row.energy_systematic95_j, factors=factors
    )
    held = embodied_carbon(duration_s=held_s, ci95_s=row.duration_ci95_s, n_gpus=max(1, row.n_gpus), embodied=embodied)
    energy_kwh = run.energy_j / J_PER_KWH * factors.pue.ratio.value
    return Score(run=run, energy_kwh=energy_kwh, operational=operational, embodied=held, hardware=embodied, units=units)


def _held_s(run: LeavingRun) -> float | None:
    """How long the run held its devices. A server is shared: a sequence's part of it is its tokens over the rate."""
    row = run.row
    if row.workload is not Workload.SERVER:
        return row.duration_s
    if not row.output_tokens_per_s or run.output_tokens is None:
        return None
    return run.output_tokens / row.output_tokens_per_s


def _units(run: LeavingRun, unit: Unit) -> float | None:
    if unit is Unit.REQUEST:
        return float(run.requests)
    tokens = run.output_tokens
    return tokens if tokens is None or unit is Unit.OUTPUT_TOKEN else tokens / 1000


def _document(scored: Scored, scoring: Scoring) -> dict[str, Any]:
    grid, pue = scoring.factors.grid, scoring.factors.pue
    return {
        "specification": SPECIFICATION,
        "formula": "SCI = (E * I + M) per R",
        "functional_unit": scoring.unit,
        "software_boundary": "the GPUs in use (or the processor, on a CPU), idle power included, for one run; the rest "
        "of the machine, the network and other software are outside",
        "carbon_intensity": {**_stated(grid.g_per_kwh), "unit": "gCO2e/kWh", "source": grid.source, "date": grid.date},
        "pue": {**_stated(pue.ratio), "source": pue.source},
        "embodied": list(_embodied(scored)),
        "scores": list(_entries(scored)),
        "runs_without_a_score": [{"reason": reason, "runs": runs} for reason, runs in sorted(scored.without.items())],
    }


def _entries(scored: Scored) -> Iterator[dict[str, Any]]:
    for score in scored.scores:
        row = score.run.row
        yield {
            "run_id": row.run_id,
            "provenance": row.provenance,
            "how": score.run.how,
            "source": row.source,
            "licence": score.run.licence,
            "model": row.model,
            "gpu": row.gpu,
            "n_gpus": row.n_gpus,
            "workload": row.workload,
            "batch_size": row.batch_size,
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_tokens,
            "e_kwh": score.energy_kwh,
            "m_gco2e": score.embodied.value_g,
            "r": score.units,
            "sci_gco2e_per_unit": score.sci_g,
            "sci_ci95_gco2e_per_unit": score.ci95_g,
        }


def _embodied(scored: Scored) -> Iterator[dict[str, Any]]:
    """What M was computed from, once for each set of figures."""
    for embodied in dict.fromkeys(score.hardware for score in scored.scores):
        yield {
            "device": embodied.gpu,
            "device_kgco2e": embodied.gpu_kg,
            "server_share_kgco2e": embodied.server_share_kg,
            "lifetime_years": embodied.lifetime_years,
            "utilisation": embodied.utilisation,
            "source": embodied.source,
        }


def _stated(stated: Stated) -> dict[str, float | None]:
    return {"value": stated.value, "half_width": stated.half_width}
