"""Requests answered: predictions with their warnings and grams, as the columns that all outputs share."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import HarnessError, UsageError
from predictor.carbon import EMBODIED_GPU_KG, CarbonFactors, carbon_factors, embodied_gco2e, operational_gco2e
from predictor.checks import one_line
from predictor.requests import Prediction, PredictionRequest, Predictor, Refusal
from predictor.table_rows import Asked

Scalar = float | bool | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonChoice:
    """What was said of the grid and of the machines; exactly one of region and intensity. None: the default."""

    region: str | None = None  # ISO 3166
    intensity_g_per_kwh: float | None = None
    pue: float | None = None
    lifetime_years: float | None = None
    utilisation: float | None = None


@dataclass(slots=True, kw_only=True)
class Carbon:
    """Factors for every GPU, each looked up once."""

    choice: CarbonChoice
    _factors: dict[str, CarbonFactors] = field(default_factory=dict)

    def factors(self, gpu: str) -> CarbonFactors:
        """Of a GPU of the hardware table. Raises ``UsageError`` for an unknown region or an impossible number."""
        if gpu not in self._factors:
            self._factors[gpu] = _factors(self.choice, gpu)
        return self._factors[gpu]


def _factors(choice: CarbonChoice, gpu: str) -> CarbonFactors:
    if choice.region is not None:
        factors = carbon_factors(choice.region, gpu)
    else:
        assert choice.intensity_g_per_kwh is not None  # noqa: S101  one of the two is there
        factors = CarbonFactors(
            intensity_g_per_kwh=choice.intensity_g_per_kwh,
            intensity_source="given with the request",
            intensity_date="not stated",
            embodied_gpu_kg=EMBODIED_GPU_KG.get(gpu),
        )
    return replace(
        factors,
        pue=factors.pue if choice.pue is None else choice.pue,
        lifetime_years=factors.lifetime_years if choice.lifetime_years is None else choice.lifetime_years,
        utilisation=factors.utilisation if choice.utilisation is None else choice.utilisation,
    )


def carbon_of(
    *,
    region: str | None,
    intensity_g_per_kwh: float | None,
    pue: float | None,
    lifetime_years: float | None,
    utilisation: float | None,
) -> Carbon | None:
    """The grams asked for, None where none are. Raises ``UsageError`` for what cannot be, before anything runs."""
    if region is not None and intensity_g_per_kwh is not None:
        raise UsageError("--region and --intensity both give the intensity of the grid.\nLeave out one of them.")
    if region is None and intensity_g_per_kwh is None:
        alone = {"--pue": pue, "--lifetime-years": lifetime_years, "--utilisation": utilisation}
        for flag, value in alone.items():
            if value is not None:
                raise UsageError(
                    f"{flag} means nothing without the intensity of the grid.\n"
                    "Add --region FR (a country by its ISO 3166 code) or --intensity 56 (gCO2e per kWh)."
                )
        return None
    choice = CarbonChoice(
        region=region,
        intensity_g_per_kwh=intensity_g_per_kwh,
        pue=pue,
        lifetime_years=lifetime_years,
        utilisation=utilisation,
    )
    carbon = Carbon(choice=choice)
    carbon.factors("")  # what cannot be is said now, not at the first row
    return carbon


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one row: a prediction, or an error."""

    request: PredictionRequest | None  # None: the row is no request
    prediction: Prediction | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    factors: CarbonFactors | None = None  # None: no grams were asked for

    @property
    def operational_gco2e(self) -> float | None:
        """Of the energy of the GPUs."""
        if self.prediction is None or self.factors is None:
            return None
        return operational_gco2e(energy_j=self.prediction.whole.energy_j, factors=self.factors)

    @property
    def embodied_gco2e(self) -> float | None:
        """Of GPUs and server, for as long as they are held; None where it is not known."""
        if self.prediction is None or self.factors is None or self.request is None:
            return None
        return embodied_gco2e(
            duration_s=self.prediction.whole.duration_s, n_gpus=self.request.n_gpus, factors=self.factors
        )

    @property
    def energy_per_output_token_j(self) -> float | None:
        """None without output."""
        if self.prediction is None or self.request is None or not self.request.output_tokens:
            return None
        return self.prediction.whole.energy_j / (self.request.batch_size * self.request.output_tokens)


def answers(asked: Iterable[Asked], predictor: Predictor, carbon: Carbon | None = None) -> list[Answer]:
    """Answer every row, in order; the requests among them are predicted together."""
    rows = list(asked)
    requests = [row.request for row in rows if row.request is not None]
    found = predictor.predict(requests) if requests else ()
    if len(found) != len(requests):
        raise HarnessError(f"{predictor.name} gave {len(found)} answers to {len(requests)} requests: report this.")
    predicted = iter(found)
    return [_answer(row, None if row.request is None else next(predicted), carbon) for row in rows]


def _answer(row: Asked, found: Prediction | Refusal | None, carbon: Carbon | None) -> Answer:
    if row.request is None or found is None:
        return Answer(request=None, error=row.error)
    if isinstance(found, Refusal):
        return Answer(request=row.request, error=found.reason)
    if not _finite(found):
        return Answer(request=row.request, error="the predictor has no finite energy or time for this request")
    return Answer(
        request=row.request,
        prediction=found,
        warnings=tuple(dict.fromkeys((*row.warnings, *found.warnings))),
        factors=None if carbon is None else carbon.factors(row.request.hardware.name),
    )


def _finite(prediction: Prediction) -> bool:
    phases = (prediction.prefill, prediction.decode, prediction.whole)
    return all(math.isfinite(phase.energy_j) and math.isfinite(phase.duration_s) for phase in phases)


# ---- columns ----


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """One column of an answer."""

    name: str
    kind: type[float] | type[bool] | type[str]
    value: Callable[[Answer], Scalar]


def _predicted(
    name: str, value: Callable[[Prediction], Scalar], kind: type[float] | type[bool] = float
) -> OutputColumn:
    return OutputColumn(
        name=name, kind=kind, value=lambda answer: None if answer.prediction is None else value(answer.prediction)
    )


PREDICTED: Final = (
    _predicted("prefill_energy_j", lambda one: one.prefill.energy_j),
    _predicted("decode_energy_j", lambda one: one.decode.energy_j),
    _predicted("energy_j", lambda one: one.whole.energy_j),
    _predicted("energy_low_j", lambda one: one.whole.energy_interval_j.low),
    _predicted("energy_high_j", lambda one: one.whole.energy_interval_j.high),
    _predicted("prefill_time_s", lambda one: one.prefill.duration_s),
    _predicted("decode_time_s", lambda one: one.decode.duration_s),
    _predicted("time_s", lambda one: one.whole.duration_s),
    _predicted("time_low_s", lambda one: one.whole.duration_interval_s.low),
    _predicted("time_high_s", lambda one: one.whole.duration_interval_s.high),
    _predicted("in_distribution", lambda one: one.in_distribution, bool),
    OutputColumn(
        name="warning",
        kind=str,
        value=lambda answer: "; ".join(map(one_line, answer.warnings)) if answer.warnings else None,
    ),
    OutputColumn(name="error", kind=str, value=lambda answer: None if answer.error is None else one_line(answer.error)),
)
GRAMS: Final = (
    OutputColumn(name="operational_gco2e", kind=float, value=lambda answer: answer.operational_gco2e),
    OutputColumn(name="embodied_gco2e", kind=float, value=lambda answer: answer.embodied_gco2e),
)


def output_columns(carbon: Carbon | None) -> tuple[OutputColumn, ...]:
    """Columns that an answered table gains."""
    return PREDICTED if carbon is None else (*PREDICTED, *GRAMS)


def request_values(request: PredictionRequest) -> Mapping[str, Scalar]:
    """The request as the columns of a table, with every default filled in."""
    return {
        "model": request.model,
        "gpu": request.hardware.name,
        "n_gpus": request.n_gpus,
        "batch_size": request.batch_size,
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
        "dtype": request.dtype,
        "runtime": request.runtime,
        "parallelism": str(request.parallelism),
        "expert_parallel": request.expert_parallel,
        "data_parallel": request.data_parallel,
        "attention": request.attention,
        "kv_cache": request.kv_cache,
        "cuda_graphs": request.cuda_graphs,
        "sm_clock_mhz": request.sm_clock_mhz,
        "power_limit_w": request.power_limit_w,
        "host_us_per_launch": request.host_us_per_launch,
        "server": request.server,
    }


def values(answer: Answer, columns: Sequence[OutputColumn]) -> Mapping[str, Scalar]:
    """The output columns of one answer."""
    return {column.name: column.value(answer) for column in columns}
