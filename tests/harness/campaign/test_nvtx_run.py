"""What an NVTX tool sees of a run: the worker measures a tiny model while a listener in its process hears every range.

The worker is the real one, from its task on standard input to its result. Only its counter is a replayed one and its
windows are short; every window is marked in a domain of its own, so that what was heard can be told apart by window
and compared with the run's readings.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.campaign.task import Task
from harness.dataset.transport import measurement_from_json
from harness.kernels import Phase
from harness.records import Measurement, Part, ReadingRow, Status
from harness.requests import Request
from harness.tracing.names import any_layer
from tests.example_tasks import quick_task
from tests.harness.tracing.nvtx_heard import Heard, Range, build, ranges_of, read_heard, run_python

LAYERS, OUTPUT_TOKENS = 2, 4
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
IN_LAYER = ["input_layernorm", "self_attn", "post_attention_layernorm", "mlp"]
IN_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
IN_MLP = ["gate_proj", "act_fn", "up_proj", "down_proj"]
WORKER = """
import sys
from dataclasses import replace
import nvtx
from harness.campaign import execution, worker
from harness.measuring.protocol import QUICK
from harness.measuring.windows import WindowTaker
from harness.meters.base import MonotonicClock
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank

def bank(*_, **__):
    meter = ReplayMeter(Profile.constant(50.0), MonotonicClock(), step_s=0.005)
    return MeterBank([meter], MonotonicClock(), why="a test")

def take(self, work, **options):
    nvtx.mark("begin", domain="window")
    window = None
    try:
        window = original(self, work, **options)
        return window
    finally:
        nvtx.mark("end" if window else "not taken", domain="window")

original, WindowTaker.take = WindowTaker.take, take
execution.meters_for = bank
execution.cpu_busy_share = lambda _: 0.0  # listens for a second
execution.protocol_of = lambda _: replace(QUICK, window_s=0.1, idle_s=0.05, window_steps=2)
sys.exit(worker.main(sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One run, as it was measured and as it was heard."""

    measurement: Measurement
    lines: Sequence[Heard]
    runs: Sequence[Range]  # before the trace and with it

    @property
    def ranges(self) -> list[Range]:
        """All of the worker's, in the order in which they began."""
        return [each for run in self.runs for each in run.walk() if not each.is_mark]

    @property
    def windows(self) -> list[list[Range]]:
        """The ranges inside each window that was taken, in order."""
        windows: list[list[Range]] = []
        inside: list[Range] | None = None
        for each in (each for run in self.runs for each in run.inner):
            if not each.is_mark:
                if inside is not None:
                    inside.append(each)
            elif each.name == "begin":
                inside = []
            elif inside is not None:
                windows += [inside] if each.name == "end" else []
                inside = None
        return windows

    @property
    def readings(self) -> list[ReadingRow]:
        """In the order in which they were taken; there is one counter."""
        return sorted(self.measurement.readings, key=lambda row: row.started_s or 0.0)

    def traced(self, phase: Phase) -> Range:
        """The range around the traced passes of a phase."""
        (found,) = [each for each in self.ranges if each.name == f"trace:{phase}"]
        return found


def task(folder: Path) -> Task:
    path = folder / "config.json"
    path.write_text(json.dumps(CONFIG))
    request = Request(model="config", batch_size=1, prompt_tokens=4, output_tokens=OUTPUT_TOKENS, dtype="float32")
    return quick_task(path, request, run_id="run-nvtx", cpu_threads=1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("nvtx-run")
    result, heard = folder / "result.json", folder / "heard.txt"
    run_python(WORKER, build(folder), heard, str(result), line=task(folder).to_json() + "\n")
    lines = read_heard(heard)
    return Recorded(
        measurement=measurement_from_json(result.read_text(encoding="utf-8")),
        lines=lines,
        runs=ranges_of([each for each in lines if each.domain in {"joulegraph", "window"}]),
    )


def test_the_run_is_measured_as_without_a_listener(recorded: Recorded) -> None:
    run = recorded.measurement.run

    assert (run.status, run.run_id) == (Status.OK, "run-nvtx")
    assert run.energy_j is not None
    assert {row.phase for row in recorded.measurement.kernels} == set(Phase)


def test_every_range_is_inside_a_range_of_the_run_and_closed_on_the_thread_that_opened_it(recorded: Recorded) -> None:
    outermost = [each for each in recorded.runs if each.domain == "joulegraph"]

    assert {each.name for each in outermost} == {f"run:{recorded.measurement.run.run_id}"}
    assert not [each for each in recorded.runs if not each.is_mark and each.domain != "joulegraph"]
    assert {(each.process, each.thread) for each in recorded.ranges} == {
        (outermost[0].process, outermost[0].process)
    }, "the worker's main thread"
    pushed = [each for each in recorded.lines if each.domain == "joulegraph" and each.what == "push"]
    assert len(pushed) == len(recorded.ranges)
    assert {each.what for each in recorded.lines if each.domain == "joulegraph"} == {"domain", "push", "pop"}


def test_phases_hold_steps_in_order_and_nothing_else(recorded: Recorded) -> None:
    whole = [f"step:{step}" for step in range(OUTPUT_TOKENS - 1)]
    untraced = [
        each for run in recorded.runs for each in run.inner if not each.is_mark and not each.name.startswith("trace:")
    ]
    decodes = [each for each in untraced if each.name == "phase:decode"]
    single = [each for each in decodes if each.names == ["step:0"]]

    assert {each.name for each in untraced} == {"phase:prefill", "phase:decode"}
    assert not [each for each in untraced if each.name == "phase:prefill" and each.inner]
    assert len(single) == 1, "the step before the trace, which is slower than those after it"
    for decode in decodes:
        passes = len(decode.inner) // len(whole)
        assert decode.names == (["step:0"] if decode in single else whole * passes)
        assert not [each for step in decode.inner for each in step.inner], "no modules outside of a trace"


def test_each_window_holds_the_passes_and_steps_of_its_reading(recorded: Recorded) -> None:
    steps_of_decode = OUTPUT_TOKENS - 1

    assert len(recorded.windows) == len(recorded.readings)
    assert {row.part for row in recorded.readings} == {Part.IDLE, Part.PREFILL, Part.DECODE, Part.RUN}
    for row, inside in zip(recorded.readings, recorded.windows, strict=True):
        names = [each.name for each in inside]
        steps = sum(len(each.inner) for each in inside)
        if row.part is Part.IDLE:
            assert (names, row.passes) == ([], 0)
        elif row.part is Part.PREFILL:
            assert (names, steps) == (["phase:prefill"], 0)
        elif row.part is Part.DECODE:
            assert names == ["phase:decode"]
            assert steps == round(row.passes * steps_of_decode)
        else:
            assert names == ["phase:prefill", "phase:decode"] * round(row.passes)
            assert steps == round(row.passes) * steps_of_decode


def test_a_window_holds_more_than_one_pass_somewhere(recorded: Recorded) -> None:
    """Otherwise the counts above would say little."""
    assert max(row.passes for row in recorded.readings if row.part in {Part.DECODE, Part.RUN}) > 1


def test_every_phase_is_traced_once_and_modules_are_there_only(recorded: Recorded) -> None:
    traces = [each for each in recorded.ranges if each.name.startswith("trace:")]
    modules = [each for each in recorded.ranges if each.name.startswith("module:")]
    prefill, decode = recorded.traced(Phase.PREFILL), recorded.traced(Phase.DECODE)

    assert [each.name for each in traces] == ["trace:prefill", "trace:decode"]
    assert (prefill.names, decode.names) == (["phase:prefill"], ["phase:decode"])
    assert len(modules) == sum(len(each.named("module:")) for each in traces) > 0


def test_each_traced_pass_runs_every_module_of_the_model_once_inside_its_own(recorded: Recorded) -> None:
    (prefill,) = recorded.traced(Phase.PREFILL).inner
    steps = recorded.traced(Phase.DECODE).inner[0].inner

    assert {each.name for each in steps} == {"step:0"}, "the step in the middle, a few times"
    for traced in (prefill, *steps):
        assert Counter(traced.names) == Counter(["module:model", "module:lm_head"])
        model = next(each for each in traced.inner if each.name == "module:model")
        layers = [f"module:model.layers.{layer}" for layer in range(LAYERS)]
        assert Counter(model.names) == Counter(
            ["module:model.embed_tokens", "module:model.rotary_emb", *layers, "module:model.norm"]
        )
        for layer in (each for each in model.inner if each.name in layers):
            held = {each.name: each for each in layer.inner}
            assert layer.names == [f"{layer.name}.{name}" for name in IN_LAYER]
            attention, mlp = held[f"{layer.name}.self_attn"], held[f"{layer.name}.mlp"]
            assert attention.names == [f"{attention.name}.{name}" for name in IN_ATTENTION]
            assert mlp.names == [f"{mlp.name}.{name}" for name in IN_MLP]


def test_the_modules_of_the_kernels_are_those_that_were_heard_as_often(recorded: Recorded) -> None:
    """A linear layer launches one product: its launches in a pass are the times its module was entered in one."""
    passes = {Phase.PREFILL: 1, Phase.DECODE: len(recorded.traced(Phase.DECODE).inner[0].inner)}
    steps = {Phase.PREFILL: 1, Phase.DECODE: OUTPUT_TOKENS - 1}
    for phase in Phase:
        entered = Counter(
            any_layer(each.name.removeprefix("module:")) for each in recorded.traced(phase).named("module:")
        )
        rows = [row for row in recorded.measurement.kernels if row.phase is phase]
        products = {row.module: row.launches for row in rows if row.kind == "gemm"}
        assert {row.module for row in rows} - {None} <= set(entered)
        assert len(products) == len(IN_ATTENTION) + 3 + 1, "the projections of a layer, and the head"
        assert products == {module: entered[module or ""] * steps[phase] / passes[phase] for module in products}
