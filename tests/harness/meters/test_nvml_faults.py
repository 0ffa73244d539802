"""Every way in which NVML can fail, through its own interface: each has its cause, and none becomes a number."""

from collections.abc import Callable
from typing import Any

import pynvml
import pytest

from harness.errors import MeterCause, MeterFailed, MeterUnavailable

Start = Callable[..., Any]
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
KNOWN = {
    pynvml.NVML_ERROR_UNINITIALIZED: MeterCause.UNINITIALIZED,
    pynvml.NVML_ERROR_NOT_SUPPORTED: MeterCause.NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION: MeterCause.NO_PERMISSION,
    pynvml.NVML_ERROR_NOT_FOUND: MeterCause.DEVICE_NOT_FOUND,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: MeterCause.DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: MeterCause.LIBRARY_MISSING,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: MeterCause.FUNCTION_MISSING,
    pynvml.NVML_ERROR_GPU_IS_LOST: MeterCause.DEVICE_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED: MeterCause.RESET_REQUIRED,
    pynvml.NVML_ERROR_OPERATING_SYSTEM: MeterCause.NO_PERMISSION,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: MeterCause.VERSION_MISMATCH,
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED: MeterCause.NOT_SUPPORTED,
    pynvml.NVML_ERROR_DEPRECATED: MeterCause.FUNCTION_MISSING,
    pynvml.NVML_ERROR_GPU_NOT_FOUND: MeterCause.DEVICE_NOT_FOUND,
}
EVERY_CODE = {
    name: code for name in sorted(dir(pynvml)) if name.startswith("NVML_ERROR_") and (code := getattr(pynvml, name))
}
every_code = pytest.mark.parametrize("code", EVERY_CODE.values(), ids=EVERY_CODE.keys())


def opened(machine: Any, **options: object) -> Any:
    words = "".join(f", {key}={value!r}" for key, value in options.items())
    machine.ask(f"globals().update(meter=NvmlMeter(visible_gpus()[0]{words}))")
    return machine


def at(machine: Any, now_s: float) -> Any:
    machine.describe(now_s=repr(now_s))
    return machine


def failure_of_read(machine: Any) -> MeterFailed:
    with pytest.raises(MeterFailed) as failure:
        machine.ask("meter.read_j()")
    return failure.value


@every_code
def test_a_gpu_whose_counter_refuses_is_unavailable_with_the_cause(shared_nvml_machine: Any, code: int) -> None:
    machine = shared_nvml_machine
    machine.file.set(error={ENERGY: code})
    machine.file.write()

    with pytest.raises(MeterUnavailable) as failure:
        opened(machine)
    assert failure.value.cause is KNOWN.get(code, MeterCause.DRIVER_ERROR)
    assert f"({code})" in str(failure.value)
    assert "\n" in str(failure.value), "the message ends with what to do"


@every_code
def test_a_counter_that_stops_answering_is_a_failure_with_the_cause(shared_nvml_machine: Any, code: int) -> None:
    machine = opened(at(shared_nvml_machine, 100.0))
    machine.file.set(from_s=100.5, error={ENERGY: code})

    at(machine, 100.4).ask("meter.read_j()")
    at(machine, 100.6)
    assert failure_of_read(machine).cause is KNOWN.get(code, MeterCause.DRIVER_ERROR)


@every_code
def test_a_driver_that_does_not_start_is_unavailable_with_the_cause(shared_nvml_machine: Any, code: int) -> None:
    machine = shared_nvml_machine
    machine.file.set(error={"nvmlInit": code})
    machine.file.write()

    with pytest.raises(MeterUnavailable) as failure:
        machine.ask("visible_gpus()")
    assert failure.value.cause is KNOWN.get(code, MeterCause.DRIVER_ERROR)


@every_code
def test_what_is_told_beside_the_energy_is_none_and_never_an_error(shared_nvml_machine: Any, code: int) -> None:
    machine = opened(shared_nvml_machine)
    names = ["ClockInfo", "TemperatureV", "Temperature", "FieldValues", "PowerUsage", "EnforcedPowerLimit"]
    names += ["PowerManagementLimit", "PerformanceState", "ComputeRunningProcesses_v3"]
    names += ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons"]
    machine.file.set(error={f"nvmlDeviceGet{name}": code for name in names})
    machine.file.write()

    assert set(machine.ask("meter.conditions()").values()) == {None}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (1, "shut NVML down"),
        (3, "Volta"),
        (4, "administrator"),
        (9, "modprobe nvidia"),
        (13, "Update the NVIDIA driver"),
        (15, "Xid"),
        (16, "gpu-reset"),
        (17, "/dev/nvidia"),
        (18, "Reboot"),
        (999, "nvidia-smi -q"),
    ],
)
def test_the_message_says_what_to_do(shared_nvml_machine: Any, code: int, says: str) -> None:
    machine = shared_nvml_machine
    machine.file.set(error={ENERGY: code})
    machine.file.write()

    with pytest.raises(MeterUnavailable, match=says):
        opened(machine)


def test_a_missing_library_is_unavailable(nvml_machine: Start) -> None:
    machine = nvml_machine(LD_LIBRARY_PATH="")

    with pytest.raises(MeterUnavailable, match="Install the NVIDIA driver") as failure:
        machine.ask("visible_gpus()")
    assert failure.value.cause is MeterCause.LIBRARY_MISSING


def test_a_missing_package_is_unavailable(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.ask("sys.modules.update(pynvml=None)")

    with pytest.raises(MeterUnavailable, match="pip install nvidia-ml-py") as failure:
        machine.ask("visible_gpus()")
    assert failure.value.cause is MeterCause.LIBRARY_MISSING


def test_a_gpu_that_is_gone_is_not_replaced_by_another(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.ask("globals().update(gpu=visible_gpus()[0])")
    machine.describe(uuid="GPU-other")

    with pytest.raises(MeterUnavailable, match="nvidia-smi -L") as failure:
        machine.ask("NvmlMeter(gpu)")
    assert failure.value.cause is MeterCause.DEVICE_NOT_FOUND


@pytest.mark.parametrize(
    ("before", "after", "cause", "says"),
    [
        ({"energy_mj": 90_000_000}, {"counter_from_s": 1000.4}, MeterCause.COUNTER_RESET, "driver was reloaded"),
        ({"counter_bits": 32, "energy_mj": 2**32 - 100_010_000}, {}, MeterCause.COUNTER_WRAPPED, "32 bits"),
        ({"energy_mj": 90_000_000}, {"energy_mj": 20_000_000}, MeterCause.COUNTER_WENT_BACK, "neither a reset"),
        ({}, {"energy_mj": 50_000_000}, MeterCause.COUNTER_JUMPED, "limited to 700 W"),
        ({}, {"energy_mj": 2**63}, MeterCause.COUNTER_JUMPED, "jumped"),
    ],
)
def test_what_no_counter_can_honestly_show_is_a_failure(
    shared_nvml_machine: Any, before: dict[str, int], after: dict[str, float], cause: MeterCause, says: str
) -> None:
    machine = shared_nvml_machine
    machine.describe(**before)
    opened(at(machine, 1000.0))
    machine.file.set(from_s=1000.4, **after)
    if cause is MeterCause.COUNTER_RESET:
        machine.file.set(from_s=1000.4, energy_mj=0)

    failure = failure_of_read(at(machine, 1000.5))
    assert failure.cause is cause
    assert says in str(failure)
    assert failure_of_read(at(machine, 1001.0)).cause is cause, "a fault is final"


def test_a_counter_that_stands_still_is_a_failure_even_between_two_reads(shared_nvml_machine: Any) -> None:
    machine = opened(at(shared_nvml_machine, 500.0))
    machine.file.set(gpu=0, from_s=501.0, counter_until_s=501)
    shown_j = at(machine, 502.0).ask("meter.read_j()")

    assert at(machine, 506.9).ask("meter.read_j()") == shown_j
    failure = failure_of_read(at(machine, 560.0))
    assert failure.cause is MeterCause.COUNTER_STOOD_STILL
    assert "0 J" in str(failure)


def test_a_gpu_lost_mid_window_fails_while_its_neighbour_goes_on(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.describe(gpus=2, now_s=10)
    machine.ask("globals().update(meters=[NvmlMeter(gpu, i) for i, gpu in enumerate(visible_gpus())])")
    machine.file.set(gpu=1, from_s=12.0, error={ENERGY: 15})

    assert at(machine, 11.9).ask("[meter.read_j() for meter in meters]") == [1190.0, 1190.0]
    at(machine, 12.1)
    assert machine.ask("meters[0].read_j()") == 1210.0
    assert machine.ask("cause(meters[1].read_j)") == "DEVICE_LOST"


def test_a_call_that_hangs_is_given_up_and_the_meter_with_it(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.describe(gpus=2)
    machine.ask("globals().update(meters=[NvmlMeter(gpu, i, timeout_s=0.5) for i, gpu in enumerate(visible_gpus())])")
    machine.file.set(gpu=0, hang=[ENERGY])
    machine.file.write()

    with pytest.raises(MeterFailed, match=r"did not come back within 0\.5 s") as failure:
        machine.ask("meters[0].read_j()")
    assert failure.value.cause is MeterCause.HUNG
    machine.ask("globals().update(begun_s=time.perf_counter())")
    assert machine.ask("cause(meters[0].read_j)") == "HUNG"
    assert set(machine.ask("meters[0].conditions()").values()) == {None}
    assert machine.ask("meters[0].facts()")["driver"] is None
    machine.ask("meters[0].close()")
    assert machine.ask("time.perf_counter() - begun_s") < 0.5, "after the first time nobody waits again"
    assert machine.ask("meters[1].read_j()") > 0


def test_a_call_that_comes_back_too_late_does_not_bring_the_meter_back(nvml_machine: Start) -> None:
    machine = opened(nvml_machine(), timeout_s=0.5)
    machine.file.set(hang=[ENERGY])
    machine.file.write()
    assert failure_of_read(machine).cause is MeterCause.HUNG
    machine.file.set(**{f"hang.{ENERGY}": None})
    machine.file.write()

    assert failure_of_read(machine).cause is MeterCause.HUNG
    assert machine.ask("NvmlMeter(visible_gpus()[0]).read_j()") > 0, "a new meter is a new chance"


def test_conditions_that_hang_are_none_and_the_next_read_says_why(nvml_machine: Start) -> None:
    machine = opened(nvml_machine(), timeout_s=0.5)
    machine.file.set(hang=["nvmlDeviceGetPowerUsage"])
    machine.file.write()

    assert set(machine.ask("meter.conditions()").values()) == {None}
    assert failure_of_read(machine).cause is MeterCause.HUNG


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetName"])
def test_a_driver_that_hangs_at_the_start_is_unavailable(nvml_machine: Start, function: str) -> None:
    machine = nvml_machine()
    machine.ask("setattr(sys.modules['harness.meters.nvml_library'], 'START_TIMEOUT_S', 0.1)")
    machine.file.set(hang=[function])
    machine.file.write()

    with pytest.raises(MeterUnavailable, match="did not come back") as failure:
        machine.ask("visible_gpus(timeout_s=0.1)")
    assert failure.value.cause is MeterCause.HUNG
