"""One run in this process: a tiny model, a replayed counter of known power, short windows."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.campaign import execution, prepared
from harness.campaign.task import Task
from harness.errors import MeterFailed, OutOfMemory
from harness.kernels import Phase
from harness.measuring.protocol import QUICK
from harness.meters.base import Conditions, MonotonicClock
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank
from harness.records import KernelRow, Measurement, Part, Provenance, Status
from harness.requests import Request
from tests.example_tasks import quick_task

POWER_W = 50.0
SHORT = replace(QUICK, window_s=0.05, idle_s=0.05, window_steps=2)
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}


@pytest.fixture(autouse=True)
def replayed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A counter that moves every 5 ms at a constant power, whatever the model does."""

    def use(conditions: Conditions = Conditions(), fail: str | None = None) -> None:  # noqa: B008  frozen
        def bank(*_: object, **__: object) -> MeterBank:
            meter = ReplayMeter(
                Profile.constant(POWER_W), MonotonicClock(), step_s=0.005, conditions=lambda: conditions
            )
            if fail:
                meter.fail(fail)
            return MeterBank([meter], MonotonicClock(), why="a test")

        monkeypatch.setattr(execution, "meters_for", bank)

    monkeypatch.setattr(execution, "protocol_of", lambda _: SHORT)
    use()
    return use


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Task]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))

    def make(prompt: int = 8, output: int = 4, **changes: Any) -> Task:
        request = Request(model="config", batch_size=2, prompt_tokens=prompt, output_tokens=output, dtype="float32")
        return quick_task(path, request, **changes)

    return make


def carry_out(task: Task) -> Measurement:
    return execution.carry_out(task, started_at_utc="2026-01-01T00:00:00+00:00")


def test_energy_is_power_times_time_in_every_part(make_task: Callable[..., Task]) -> None:
    measurement = carry_out(make_task())
    run = measurement.run

    assert (run.status, run.provenance, run.method) == (Status.OK, Provenance.SIMULATED, "replay")
    assert run.energy_j == pytest.approx(POWER_W * (run.duration_s or 0), rel=0.1)
    for phase in measurement.phases:
        assert phase.energy_j == pytest.approx(POWER_W * (phase.duration_s or 0), rel=0.1)
    assert run.idle_power_w == pytest.approx(POWER_W, rel=0.2)
    assert run.prompts == "random", "a config without a tokenizer has no text"


def test_a_trace_that_fails_costs_the_kernels_and_not_the_energies(
    make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OutOfMemory("no room for the trace")

    monkeypatch.setattr(prepared, "trace", broken)
    measurement = carry_out(make_task())

    assert measurement.run.status is Status.OK
    assert measurement.run.energy_j is not None
    assert "kernels of prefill not traced: no room for the trace" in (measurement.run.status_detail or "")
    assert measurement.kernels == ()
    assert {phase.host_gap_energy_j for phase in measurement.phases} == {None}


def test_without_tracing_there_are_no_kernels(make_task: Callable[..., Task]) -> None:
    measurement = carry_out(make_task(trace_kernels=False))

    assert measurement.kernels == ()
    assert measurement.run.energy_j is not None


def test_a_run_of_rejected_windows_has_failed_and_has_no_energy(
    make_task: Callable[..., Task], replayed: Callable[..., None]
) -> None:
    replayed(Conditions(throttle_reasons=0x40))
    measurement = carry_out(make_task())

    assert measurement.run.status is Status.FAILED
    assert measurement.run.energy_j is None
    assert "slowed down" in (measurement.run.status_detail or "")
    assert measurement.readings, "what was read is kept"


def test_a_dead_counter_is_the_machines_fault_and_not_the_runs(
    make_task: Callable[..., Task], replayed: Callable[..., None]
) -> None:
    replayed(fail="GPU is lost")

    with pytest.raises(MeterFailed, match="GPU is lost"):
        carry_out(make_task())


def test_a_model_that_breaks_is_a_failed_run_with_its_reason(
    make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("index 7 is out of bounds")

    monkeypatch.setattr("harness.models.steps.Stepper.prefill", broken)
    measurement = carry_out(make_task())

    assert measurement.run.status is Status.FAILED
    assert measurement.run.status_detail == "IndexError: index 7 is out of bounds"
    assert measurement.run.energy_j is None


def test_a_long_decode_is_fitted_over_three_contexts_and_says_so(make_task: Callable[..., Task]) -> None:
    measurement = carry_out(make_task(prompt=8, output=400, trace_kernels=False))
    decode = next(phase for phase in measurement.phases if phase.phase is Phase.DECODE)
    contexts = json.loads(decode.measured_contexts or "[]")

    assert (decode.steps, decode.context_start_tokens, decode.context_end_tokens) == (399, 8, 407)
    assert len(contexts) == 3
    assert contexts[0] == 8
    assert decode.energy_j == pytest.approx(POWER_W * (decode.duration_s or 0), rel=0.1)
    read = {row.context_start_tokens for row in measurement.readings if row.part is Part.DECODE}
    assert read == set(contexts)


def test_kernels_of_a_decode_count_every_step(make_task: Callable[..., Task]) -> None:
    def launches(kernels: tuple[KernelRow, ...], module: str) -> int:
        return sum(row.launches for row in kernels if row.phase is Phase.DECODE and row.module == module)

    kernels = carry_out(make_task(prompt=8, output=8)).kernels

    assert launches(kernels, "model.layers.*.mlp.up_proj") == 2 * 7
    attention = [row for row in kernels if row.phase is Phase.DECODE and row.kind == "attention"]
    assert [row.launches for row in attention] == [2 * 7], "one row, at the middle context"
    assert json.loads(attention[0].shape)["context_tokens"] == 8 + 3 + 1


def test_where_it_ran_is_recorded_with_the_meter(make_task: Callable[..., Task]) -> None:
    environment = carry_out(make_task(trace_kernels=False)).environment

    assert environment is not None
    assert environment.meter.startswith("replay (simulated)")
    assert environment.cpu_cores is not None
    assert environment.cpu_cores <= (os.cpu_count() or 1)


def test_other_work_on_the_cpu_is_said(make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "cpu_busy_share", lambda _: 0.45)
    measurement = carry_out(make_task(trace_kernels=False))

    assert "others used 45% of the CPU" in (measurement.run.status_detail or "")


def test_an_even_number_of_decode_steps_is_counted_exactly(make_task: Callable[..., Task]) -> None:
    kernels = carry_out(make_task(prompt=8, output=7)).kernels
    attention = [row for row in kernels if row.phase is Phase.DECODE and row.kind == "attention"]

    assert sum(row.launches for row in attention) == 2 * 6
    pairs = sum(range(9, 15))  # contexts of the six steps
    assert sum(row.flop or 0 for row in attention) == 2 * 2 * 4 * (16 + 16) * pairs * 2
