"""Scores are the relative widths of intervals, less what was measured since."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import run
from harness.campaign.focused import Candidate, Measured
from harness.campaign.plan import Plan
from harness.dataset.reading import read_rows
from harness.errors import UnknownHardware, UsageError
from harness.hardware import find
from harness.records import RunRow
from harness.requests import Deployment, Request
from predictor import focus
from predictor.focus import learner, load_learner, model_learner, scorer
from predictor.requests import Interval, Parallelism, PhasePrediction, Prediction, PredictionRequest, Refusal

GPU = "NVIDIA H100 80GB HBM3"


class Toy:
    """1 J per token of context; 10 % to each side, 40 % from 1000 prompt tokens on; batch 64 is refused."""

    name = "toy"

    def __init__(self) -> None:
        self.asked: list[PredictionRequest] = []

    def predict(self, requests: Sequence[PredictionRequest]) -> tuple[Prediction | Refusal, ...]:
        self.asked += requests
        return tuple(self._one(request) for request in requests)

    def _one(self, request: PredictionRequest) -> Prediction | Refusal:
        if request.batch_size >= 64:
            return Refusal(reason="batch 64 does not fit.\nTake a smaller batch.")
        energy_j = float(request.prompt_tokens + request.output_tokens)
        wide = 1.4 if request.prompt_tokens >= 1000 else 1.1
        interval = Interval(low=energy_j / wide, high=energy_j * wide)
        phase = PhasePrediction(
            energy_j=energy_j, duration_s=1.0, energy_interval_j=interval, duration_interval_s=Interval(low=1, high=1)
        )
        return Prediction(prefill=phase, decode=phase, whole=phase, in_distribution=True)


def candidate(batch: int = 1, prompt: int = 100, output: int = 50, **deployment: object) -> Candidate:
    settings = {"device": "cuda", "n_gpus": 1, **deployment}
    return Candidate(
        request=Request(model="m", batch_size=batch, prompt_tokens=prompt, output_tokens=output, dtype="bfloat16"),
        deployment=Deployment(**settings),  # type: ignore[arg-type]
        gpu=GPU,
    )


def measured(*candidates: Candidate, off: float = 1.0) -> list[Measured]:
    return [
        Measured(candidate=each, energy_j=off * (each.request.prompt_tokens + each.request.output_tokens))
        for each in candidates
    ]


def test_a_score_is_the_interval_as_a_relative_standard_deviation() -> None:
    narrow, wide = scorer(Toy())([candidate(), candidate(prompt=2000)])

    assert narrow == pytest.approx(math.log(1.1) / 1.6449, rel=1e-4)
    assert wide == pytest.approx(math.log(1.4) / 1.6449, rel=1e-4)


def test_what_the_predictor_refuses_has_no_score() -> None:
    scores = scorer(Toy())([candidate(), candidate(batch=64)])

    assert not math.isnan(scores[0])
    assert math.isnan(scores[1])


def test_a_predictor_that_refuses_everything_is_an_error_with_its_reason() -> None:
    with pytest.raises(UsageError, match=r"toy(?s:.*)batch 64 does not fit(?s:.*)--sampling trace"):
        scorer(Toy())([candidate(batch=64)])
    assert scorer(Toy())([]) == []


def test_an_interval_that_reaches_down_to_nothing_is_counted_by_its_upper_half() -> None:
    class Wide(Toy):
        def _one(self, request: PredictionRequest) -> Prediction | Refusal:
            found = super()._one(request)
            assert isinstance(found, Prediction)
            interval = Interval(low=0.0, high=2 * found.whole.energy_j)
            return replace(found, whole=replace(found.whole, energy_interval_j=interval))

    assert scorer(Wide())([candidate()])[0] == pytest.approx(2 * math.log(2) / (2 * 1.6449), rel=1e-4)


def test_requests_reach_the_predictor_as_they_are() -> None:
    toy = Toy()
    virtual = replace(candidate(4, 10, 20, n_gpus=2, ranks=2, parallelism="tensor"), gpu=f"virtual: {GPU}")
    scorer(toy)([virtual, candidate(n_gpus=2, parallelism="layers", kv_cache=False)])

    first, second = toy.asked
    assert (first.hardware, first.n_gpus, first.parallelism) == (find(GPU), 2, Parallelism.TENSOR)
    assert (first.batch_size, first.prompt_tokens, first.output_tokens, first.dtype) == (4, 10, 20, "bfloat16")
    assert (second.parallelism, second.kv_cache) == (Parallelism.LAYERS, False)


def test_a_device_that_nobody_knows_is_an_error_and_not_another_device() -> None:
    with pytest.raises(UnknownHardware):
        scorer(Toy())([replace(candidate(), gpu="cpu: Example CPU")])


def test_what_is_measured_is_less_uncertain_and_only_on_its_own_deployment() -> None:
    known = [candidate(prompt=prompt, output=output) for prompt in (50, 200, 800) for output in (10, 100)]
    others = [
        candidate(prompt=200, output=10, n_gpus=2, ranks=2, parallelism="tensor"),
        candidate(prompt=200, output=10),
    ]
    before = learner(Toy())([])(others)
    after = learner(Toy())(measured(*known, off=1.3))(others)

    assert before == pytest.approx(scorer(Toy())(others))
    assert after[0] == pytest.approx(before[0])
    assert after[1] < 0.8 * before[1]


def test_a_correction_never_makes_a_prediction_less_certain_than_its_interval() -> None:
    far = [candidate(batch=32, prompt=4000, output=900)]
    assert learner(Toy())(measured(candidate(prompt=1)))(far)[0] <= scorer(Toy())(far)[0]


def test_measured_requests_that_the_predictor_refuses_are_not_learned_from() -> None:
    asked = [candidate(prompt=200)]
    known = [candidate(prompt=100), candidate(prompt=300)]
    alone = learner(Toy())(measured(*known))(asked)

    assert learner(Toy())(measured(*known, candidate(batch=64)))(asked) == pytest.approx(alone)


def test_without_a_predictor_only_measurements_make_certain() -> None:
    known = [candidate(prompt=prompt, output=output) for prompt in (50, 200, 800) for output in (10, 100)]
    first = model_learner()([])([candidate(), candidate(prompt=3000)])
    near, far = model_learner()(measured(*known))([candidate(), candidate(prompt=30_000, output=4000)])

    assert first[0] == first[1]
    assert near < far


def test_no_predictor_to_load_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "predictor.reference", None)
    with pytest.raises(UsageError, match=r"least certain(?s:.*)--sampling trace"):
        load_learner(None)


def test_the_command_follows_the_doubts_of_the_predictor_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy, checkpoint = Toy(), tmp_path / "toy.safetensors"
    checkpoint.write_bytes(b"")
    loaded: list[Path | None] = []

    def load(path: Path | None, **options: object) -> object:
        loaded.append(path)
        return learner(toy)

    monkeypatch.setattr(focus, "load_learner", load)
    command = "--sampling focused --device virtual:h100-sxm --models meta-llama/Llama-3.2-1B --quality quick "
    command += f"--no-trace-kernels --samples 2 --held-out-samples 1 --predictor-checkpoint {checkpoint}"

    assert run.main([*command.split(), "--out", str(tmp_path / "campaign")]) == 0

    rows = sorted(read_rows(tmp_path / "campaign", RunRow), key=lambda row: row.sampling_weight is None)
    assert loaded == [checkpoint]
    assert [row.sampling_weight is None for row in rows] == [False, True, True]
    assert '"held_out":["' in (rows[0].configuration or "")
    held = {(spec.prompt_tokens, spec.output_tokens) for spec in Plan.from_table(_told(rows[0])).held_out}
    assert held == {(row.prompt_tokens, row.output_tokens) for row in rows[:1]}
    assert not held & {(asked.prompt_tokens, asked.output_tokens) for asked in toy.asked}
    assert "1 request(s) are held out (sha256 " in capsys.readouterr().out


def _told(row: RunRow) -> dict[str, object]:
    told: dict[str, object] = json.loads(row.configuration or "{}")
    return {name: value for name, value in told.items() if value not in (None, [])}
