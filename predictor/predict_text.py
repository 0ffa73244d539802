"""One answer, for people and for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence

from harness.units import duration, si
from predictor.answers import GRAMS, PREDICTED, Answer, Scalar, request_values, values
from predictor.checks import one_line
from predictor.requests import PhasePrediction, Prediction, PredictionRequest


def answer_text(answer: Answer, *, predictor: str) -> str:
    """A table of the phases, the grams, and how far to trust them. The answer has a prediction."""
    request, prediction = answer.request, answer.prediction
    assert request is not None and prediction is not None  # noqa: S101, PT018  an error is raised, not printed
    lines = [*_heading(request), "", *aligned(_phases(request, prediction)), ""]
    lines += _per_token(answer, request)
    lines += _carbon(answer)
    lines += [*_trust(prediction, predictor), *(f"warning: {one_line(warning)}" for warning in answer.warnings)]
    return "".join(f"{line}\n" for line in lines)


def answer_json(answer: Answer, *, predictor: str) -> str:
    """One object: the request with its defaults, the columns of a table, and what no table has."""
    request, prediction = answer.request, answer.prediction
    assert request is not None and prediction is not None  # noqa: S101, PT018
    content = {
        **request_values(request),
        **values(answer, PREDICTED),
        **_intervals(prediction),
        "mean_power_w": prediction.mean_power_w,
        "energy_per_output_token_j": answer.energy_per_output_token_j,
        **(carbon_values(answer)),
        "predictor": predictor,
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def carbon_values(answer: Answer) -> Mapping[str, Scalar]:
    """Grams and every factor behind them; nothing where none were asked for."""
    factors = answer.factors
    if factors is None:
        return {}
    return {
        **values(answer, GRAMS),
        "intensity_g_per_kwh": factors.intensity_g_per_kwh,
        "intensity_source": factors.intensity_source,
        "intensity_date": factors.intensity_date,
        "pue": factors.pue,
        "lifetime_years": factors.lifetime_years,
        "utilisation": factors.utilisation,
        "embodied_kg_per_gpu": factors.embodied_kg_per_gpu,
    }


def _intervals(prediction: Prediction) -> Mapping[str, float]:
    return {
        f"{name}_{what}_{end}_{unit}": getattr(getattr(phase, field), end)
        for name, phase in (("prefill", prediction.prefill), ("decode", prediction.decode))
        for what, field, unit in (("energy", "energy_interval_j", "j"), ("time", "duration_interval_s", "s"))
        for end in ("low", "high")
    }


def _heading(request: PredictionRequest) -> Iterator[str]:
    device = request.hardware.name if request.n_gpus == 1 else f"{request.n_gpus} × {request.hardware.name}"
    spread = f", {request.parallelism} parallel" if request.n_gpus > 1 and request.parallelism == "tensor" else ""
    spread = ", layers shared out" if request.n_gpus > 1 and request.parallelism == "layers" else spread
    yield printable(f"{request.model} in {request.dtype} on {device}, {request.runtime}{spread}")
    yield f"{request.batch_size} × {request.prompt_tokens:,} prompt and {request.output_tokens:,} output tokens"


def _phases(request: PredictionRequest, prediction: Prediction) -> list[list[str]]:
    parts = {"prefill": prediction.prefill, "decode": prediction.decode, "whole": prediction.whole}
    if request.output_tokens <= 1:  # the first token is the prefill's
        del parts["decode"]
    rows = [["", "energy", "90 % interval", "time", "90 % interval", "power"]]
    return rows + [[name, *_phase(phase)] for name, phase in parts.items()]


def _phase(phase: PhasePrediction) -> list[str]:
    energy, time = phase.energy_interval_j, phase.duration_interval_s
    power_w = phase.energy_j / phase.duration_s if phase.duration_s else 0.0
    return [
        si(phase.energy_j, "J"),
        f"{si(energy.low, 'J')} – {si(energy.high, 'J')}",
        duration(phase.duration_s),
        f"{duration(time.low)} – {duration(time.high)}",
        si(power_w, "W"),
    ]


def _per_token(answer: Answer, request: PredictionRequest) -> Iterator[str]:
    per_token_j = answer.energy_per_output_token_j
    if per_token_j is not None:
        yield f"{si(per_token_j, 'J')} per output token ({request.batch_size * request.output_tokens:,} of them)"


def _carbon(answer: Answer) -> Iterator[str]:
    factors, operational, embodied = answer.factors, answer.operational_gco2e, answer.embodied_gco2e
    if factors is None or operational is None:
        return
    source = (factors.intensity_source, *([] if factors.intensity_date == "not stated" else [factors.intensity_date]))
    unknown = "not known for this GPU, and no other stands in for it"
    yield f"operational {si(operational, 'gCO2e')}, embodied {unknown if embodied is None else si(embodied, 'gCO2e')}"
    yield (
        f"  {factors.intensity_g_per_kwh:g} gCO2e/kWh ({printable(', '.join(source))}), "
        f"PUE {factors.pue:g}; energy of the GPUs alone"
    )
    if embodied is not None:
        yield f"  hardware in service for {factors.lifetime_years:g} years at a utilisation of {factors.utilisation:g}"


def _trust(prediction: Prediction, predictor: str) -> Iterator[str]:
    """How far the answer can be trusted, in words."""
    if prediction.in_distribution:
        yield "in distribution: yes, measurements like it were learned from"
    else:
        yield "in distribution: no, nothing like it was learned from: energy, time and intervals are a guess"
    yield f"predictor: {printable(predictor)}"


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> Iterator[str]:
    """Rows of text with columns under one another: the first ``left`` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def printable(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
