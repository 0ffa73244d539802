"""Which loops a run's kernels are measured with."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.campaign.works import WorkSpec, kernel_works, kernels_text
from harness.kernels import KernelCount, KernelKind, Phase
from harness.measuring.attribution import Ceilings
from harness.measuring.kernel_energy import null_loop
from harness.records import EnergyMethod, Part
from harness.tracing.timeline import TracedKernel
from tests.harness.measuring.made import count, traced

UNKNOWN = Ceilings(flop_per_s=None, bytes_per_s=None)  # every kernel is as large as its time
BOTH = (EnergyMethod.REPLAY, EnergyMethod.REGRESSED)
GEMM = traced("gemm", 0.080, launches=80)  # launches of 1 ms
ATTENTION = traced("attention", 0.010, launches=40)
SMALL = (traced("norm", 0.0002, launches=80), traced("copy", 0.0001, launches=40))
REDUCE = traced("reduce", 0.0003, launches=80, kind=KernelKind.ALL_REDUCE)
KERNELS = (GEMM, ATTENTION, *SMALL)


def works(*kernels: TracedKernel, methods: tuple[EnergyMethod, ...] = BOTH, seed: int = 1) -> list[WorkSpec]:
    return list(kernel_works({Phase.PREFILL: kernels}, methods, UNKNOWN, random.Random(seed)))


def of(specs: list[WorkSpec], part: Part) -> list[WorkSpec]:
    return [spec for spec in specs if spec.part is part]


def test_kernels_of_one_per_cent_are_looped_alone_and_smaller_ones_together() -> None:
    loops = [spec.kernels for spec in of(works(*KERNELS), Part.REPLAY)]
    assert loops[:3] == [
        (count("gemm"),),
        (count("attention"),),
        (count("norm", 2), count("copy", 1)),  # in the proportion of 80 to 40, as few as that allows
    ]
    assert loops[3:] == [null_loop(), null_loop("null_graph")]


def test_how_large_a_kernel_is_goes_by_its_modelled_energy() -> None:
    """Of two kernels of 0.8 % of the time, the one at peak FLOP/s is worth a loop."""
    busy = replace(traced("busy", 0.0008), flop=800_000_000)  # all that 10¹² FLOP/s allow
    ceilings = Ceilings(flop_per_s=1e12, bytes_per_s=None)
    phase = {Phase.PREFILL: [traced("long", 0.1), busy, traced("calm", 0.0008)]}
    loops = [spec.kernels for spec in kernel_works(phase, (EnergyMethod.REPLAY,), ceilings, random.Random(1))]
    assert loops[:3] == [(count("long"),), (count("busy"),), (count("calm"),)]
    assert (count("busy", 1), count("calm", 1)) in [
        spec.kernels for spec in kernel_works(phase, (EnergyMethod.REPLAY,), UNKNOWN, random.Random(1))
    ]


def test_without_a_method_that_needs_loops_there_are_none() -> None:
    assert works(*KERNELS, methods=()) == []
    assert works(methods=BOTH) == []
    assert {spec.part for spec in works(*KERNELS, methods=(EnergyMethod.REPLAY,))} == {Part.REPLAY}
    regressed = works(*KERNELS, methods=(EnergyMethod.REGRESSED,))
    assert [spec.kernels for spec in of(regressed, Part.REPLAY)] == [null_loop(), null_loop("null_graph")]
    assert len(of(regressed, Part.MIXTURE)) == len(regressed) - 2


def test_every_phase_has_loops_of_its_own() -> None:
    specs = kernel_works(
        {Phase.PREFILL: [GEMM], Phase.DECODE: [GEMM]}, (EnergyMethod.REPLAY,), UNKNOWN, random.Random(1)
    )
    assert [spec.kernels for spec in specs[:2]] == [
        (count("gemm", phase=Phase.PREFILL),),
        (count("gemm", phase=Phase.DECODE),),
    ]


def test_collectives_are_looped_alone_however_small_and_the_quickest_is_waited_for() -> None:
    slower = replace(REDUCE, kernel_id="slower", traced_duration_s=0.08)
    specs = works(*KERNELS, REDUCE, slower)
    assert WorkSpec(part=Part.REPLAY, kernels=(count("reduce"),)) in specs
    (waiting,) = of(specs, Part.WAITING)
    assert waiting.kernels == (count("reduce"),)
    assert waiting.late_s == pytest.approx(2e-3), "eight times its 3.75 µs would be too little to be seen"
    (waiting,) = of(works(slower), Part.WAITING)
    assert waiting.late_s == pytest.approx(8e-3)


def test_a_collective_that_moves_nothing_is_not_waited_for() -> None:
    assert of(works(*KERNELS, replace(REDUCE, link_bytes=0)), Part.WAITING) == []


@pytest.mark.parametrize("kernels", [2, 3, 9, 40])
def test_mixtures_are_balanced_and_tell_all_kernels_apart(kernels: int) -> None:
    phase = [traced(f"k{index:02d}", 0.001 * (1 + index / 50), launches=10) for index in range(kernels)]
    mixtures = of(works(*phase), Part.MIXTURE)

    rows = 2 * (kernels + 1) + 4
    assert rows - 2 <= len(mixtures) <= rows, "a row in which chance put no kernel is left out"
    seen = Counter(each.kernel_id for spec in mixtures for each in spec.kernels)
    assert set(seen.values()) == {rows // 2}
    present = [frozenset(each.kernel_id for each in spec.kernels) for spec in mixtures]
    columns = np.array([[each.kernel_id in row for row in present] for each in phase], dtype=float)  # [kernels, rows]
    assert len({tuple(column) for column in columns}) == kernels
    assert np.linalg.matrix_rank(columns) == kernels


def test_mixtures_of_few_kernels_never_put_two_into_the_same_windows() -> None:
    for seed in range(300):
        mixtures = of(works(GEMM, ATTENTION, seed=seed), Part.MIXTURE)
        rows_of = [
            frozenset(row for row, spec in enumerate(mixtures) if any(each.kernel_id == name for each in spec.kernels))
            for name in ("gemm", "attention")
        ]
        assert rows_of[0] != rows_of[1]


def test_one_kernel_alone_cannot_be_told_from_its_gaps_and_is_not_mixed() -> None:
    assert of(works(GEMM), Part.MIXTURE) == []


def test_mixtures_are_a_matter_of_the_seed() -> None:
    assert works(*KERNELS, seed=3) == works(*KERNELS, seed=3)
    assert works(*KERNELS, seed=3) != works(*KERNELS, seed=4)


def test_kernels_of_a_mixture_run_about_equally_long_and_in_the_models_order() -> None:
    """A product's launch takes 1 ms: attention of 250 µs runs four times, norms and copies together 142 times."""
    mixtures = of(works(*KERNELS), Part.MIXTURE)
    counts = {each.kernel_id: each.launches for spec in mixtures for each in spec.kernels}
    launch_s = {each.kernel_id: each.traced_duration_s / each.launches for each in KERNELS}
    assert (counts["gemm"], counts["attention"]) == (1, 4)
    assert counts["norm"] == 2 * counts["copy"]
    small_s = counts["norm"] * launch_s["norm"] + counts["copy"] * launch_s["copy"]
    assert small_s == pytest.approx(1e-3, rel=0.02)
    order = ["gemm", "attention", "norm", "copy"]
    for spec in mixtures:
        assert [each.kernel_id for each in spec.kernels] == [
            name for name in order if name in {each.kernel_id for each in spec.kernels}
        ]


def test_in_mixtures_of_short_kernels_each_runs_for_a_fifth_of_a_millisecond() -> None:
    short = [traced("a", 1e-3, launches=100), traced("b", 2e-3, launches=100)]
    counts = {each.kernel_id: each.launches for spec in of(works(*short), Part.MIXTURE) for each in spec.kernels}
    assert counts == {"a": 20, "b": 10}


def test_one_very_long_kernel_does_not_make_all_others_as_long() -> None:
    phase = [traced("scan", 1.0), traced("gemm", 0.5, launches=500)]
    counts = {each.kernel_id: each.launches for spec in of(works(*phase), Part.MIXTURE) for each in spec.kernels}
    assert counts == {"scan": 1, "gemm": 20}


def test_what_a_pass_launches_is_stored_by_phase_and_kernel() -> None:
    assert kernels_text(()) is None
    text = kernels_text([count("a", 3), KernelCount(phase=Phase.DECODE, kernel_id="a", launches=2), count("b")])
    assert text == '{"prefill":{"a":3,"b":1},"decode":{"a":2}}'
    assert json.loads(text)["decode"] == {"a": 2}
