"""The loads of real machines: that they last as long as they should, let meters be looked at, and stop."""

import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from harness.errors import CannotMeasure
from harness.measuring.calibration_loads import CpuLoad, CudaLoad
from tests.harness.measuring.calibration_machines import PausingManualClock


class FakeGpu:
    """Does what it is given, one after another, on a clock; a product of side n takes n³ × ``s_per_cube``."""

    def __init__(self, clock: PausingManualClock, s_per_cube: float) -> None:
        self.clock, self.s_per_cube = clock, s_per_cube
        self.free_s = 0.0
        self.starved_s = 0.0
        self.products = 0

    def multiply(self, side: int) -> None:
        now_s = self.clock.now_s()
        if self.products:
            self.starved_s += max(0.0, now_s - self.free_s)
        self.free_s = max(self.free_s, now_s) + side**3 * self.s_per_cube
        self.products += 1


class FakeMatrix:
    def __init__(self, side: int, device: "FakeDevice") -> None:
        self.side, self.device = side, device

    def to(self, dtype: str) -> "FakeMatrix":
        return self


class FakeDevice:
    def __init__(self, kind: str, index: int) -> None:
        self.kind, self.index = kind, index


class FakeEvent:
    gpu: FakeGpu

    def record(self, stream: FakeGpu) -> None:
        self.gpu, self.done_s = stream, stream.free_s

    def query(self) -> bool:
        return self.gpu.clock.now_s() >= self.done_s


class FakeTorch(types.SimpleNamespace):
    """What the load uses of torch."""

    def __init__(self, gpus: list[FakeGpu]) -> None:
        super().__init__(bfloat16="torch.bfloat16", float16="torch.float16", device=FakeDevice)
        self.gpus = gpus
        self.randn = lambda rows, columns, device: FakeMatrix(rows, device)
        self.mm = lambda left, right, out: gpus[left.device.index].multiply(left.side)
        self.cuda = types.SimpleNamespace(
            is_bf16_supported=lambda including_emulation: True,
            device=lambda place: nullcontext(),
            Event=FakeEvent,
            current_stream=lambda place: gpus[place.index],
            synchronize=self._synchronize,
        )

    def _synchronize(self, place: FakeDevice) -> None:
        gpu = self.gpus[place.index]
        gpu.clock.advance(max(0.0, gpu.free_s - gpu.clock.now_s()))


@pytest.fixture
def clock() -> PausingManualClock:
    return PausingManualClock(per_read_s=2e-6)


@pytest.fixture
def pair(clock: PausingManualClock, monkeypatch: pytest.MonkeyPatch) -> list[FakeGpu]:
    """Two GPUs, the second a tenth slower."""
    gpus = [FakeGpu(clock, 2e-14), FakeGpu(clock, 2.2e-14)]
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(gpus))
    return gpus


def looking(clock: PausingManualClock, takes_s: float) -> Callable[[], None]:
    return lambda: clock.advance(takes_s)


@pytest.mark.parametrize("duration_s", [0.05, 0.5, 5.0])
def test_a_cuda_load_lasts_as_long_as_it_should(
    clock: PausingManualClock, pair: list[FakeGpu], duration_s: float
) -> None:
    load = CudaLoad((0, 1), clock)
    load.prepare()

    busy = load.run(duration_s, looking(clock, 1e-3), 2e-3)

    assert busy.ended_s - busy.started_s == pytest.approx(duration_s, rel=0.03, abs=1e-3)
    assert "matmul" in load.name
    assert "bfloat16" in load.name


def test_looking_at_meters_does_not_let_the_devices_starve(clock: PausingManualClock, pair: list[FakeGpu]) -> None:
    load = CudaLoad((0, 1), clock)
    load.prepare()
    load.run(0.05, lambda: None, 1.0)
    before = [gpu.starved_s for gpu in pair]
    looks: list[float] = []

    def look() -> None:
        looks.append(clock.now_s())
        clock.advance(8e-3)  # a slow driver

    busy = load.run(2.0, look, 2e-3)

    assert len(looks) > 100
    assert looks[0] >= busy.started_s
    assert looks[-1] <= busy.ended_s
    # The faster one waited for the slower one at the end of the run before, and no longer since.
    assert all(gpu.starved_s - was < 0.006 for gpu, was in zip(pair, before, strict=True))


def test_a_cuda_load_learns_that_clocks_have_changed(clock: PausingManualClock, pair: list[FakeGpu]) -> None:
    load = CudaLoad((0, 1), clock)
    load.prepare()
    for gpu in pair:
        gpu.s_per_cube *= 1.5

    load.run(1.0, looking(clock, 1e-4), 2e-3)
    busy = load.run(1.0, looking(clock, 1e-4), 2e-3)

    assert busy.ended_s - busy.started_s == pytest.approx(1.0, rel=0.03)


def test_a_cuda_load_that_is_not_prepared_is_a_mistake(clock: PausingManualClock) -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        CudaLoad((0,), clock).run(1.0, lambda: None, 0.1)


def test_cuda_that_does_not_work_is_said_for_people(clock: PausingManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> bool:
        raise RuntimeError("no CUDA-capable device is detected")

    torch = FakeTorch([FakeGpu(clock, 1e-14)])
    torch.cuda.is_bf16_supported = broken
    monkeypatch.setitem(sys.modules, "torch", torch)

    with pytest.raises(CannotMeasure, match=r"no CUDA-capable(.|\n)*doctor"):
        CudaLoad((0,), clock).prepare()


def test_a_cpu_load_lasts_as_long_as_it_should_and_leaves_no_thread(clock: PausingManualClock) -> None:
    looks: list[float] = []
    load = CpuLoad(clock, clock.pause, threads=2)
    load.prepare()

    busy = load.run(1.0, lambda: looks.append(clock.now_s()), 0.1)

    assert busy.ended_s - busy.started_s == pytest.approx(1.0, abs=0.01)
    assert len(looks) == pytest.approx(10, abs=1)
    assert not load.has_context
    assert load.name == "SHA-256 on 2 threads"


def test_a_cpu_load_stops_when_looking_fails(clock: PausingManualClock) -> None:
    import threading

    def look() -> None:
        raise CannotMeasure("gone")

    before = threading.active_count()
    with pytest.raises(CannotMeasure):
        CpuLoad(clock, clock.pause, threads=2).run(1.0, look, 0.1)

    for thread in threading.enumerate():
        if thread.name.endswith("(_hash_until)"):
            thread.join(timeout=5)
    assert threading.active_count() <= before
