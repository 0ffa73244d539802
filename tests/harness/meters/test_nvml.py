from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import MeterFailed, MeterUnavailable

Start = Callable[..., Any]
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


def uuids(machine: Any) -> list[str]:
    return [gpu["uuid"] for gpu in machine.ask("visible_gpus()")]


def opened(machine: Any) -> Any:
    machine.ask("globals().update(meter=NvmlMeter(visible_gpus()[0]))")
    return machine


def test_all_gpus_are_visible_unless_cuda_is_told_otherwise(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.describe(gpus=3)

    assert uuids(machine) == ["GPU-stub-0", "GPU-stub-1", "GPU-stub-2"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2,0", ["GPU-stub-2", "GPU-stub-0"]),
        ("GPU-stub-1", ["GPU-stub-1"]),
        ("", []),
        ("MIG-stub-1,MIG-stub-0", ["MIG-stub-1", "MIG-stub-0"]),
        ("MIG-stub-0,MIG-nowhere,MIG-stub-1", ["MIG-stub-0"]),
    ],
)
def test_visible_gpus_follow_cuda_visible_devices(nvml_machine: Start, value: str, expected: list[str]) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES=value)
    machine.describe(gpus=3, mig=1)

    assert uuids(machine) == expected


def test_a_slice_reads_its_board_and_does_not_pass_for_a_whole_gpu(nvml_machine: Start) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES="MIG-stub-0")
    machine.describe(mig=1, name="NVIDIA A100-SXM4-40GB", memory_bytes=8 * 1024**3, power_mw=0, energy_mj=5000)

    (gpu,) = machine.ask("visible_gpus()")
    assert gpu["board_uuid"] == "GPU-stub-0"
    assert gpu["name"] == "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    assert gpu["memory_bytes"] == 1024**3
    assert opened(machine).ask("meter.read_j()") == 5.0


def test_the_second_visible_gpu_is_metered_by_its_own_counter(nvml_machine: Start) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES="1,0")
    machine.describe(gpus=2, power_mw=0, _0_energy_mj=111_000, _1_energy_mj=222_000)

    assert machine.ask("NvmlMeter(visible_gpus()[0]).read_j()") == 222.0
    assert machine.ask("NvmlMeter(visible_gpus()[1]).read_j()") == 111.0


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (3, "Volta"),
        (4, "administrator"),
        (9, "modprobe nvidia"),
        (13, "Update the NVIDIA driver"),
        (15, "Xid"),
        (18, "Reboot"),
        (999, "nvidia-smi -q"),
    ],
)
def test_a_gpu_without_a_readable_counter_is_unavailable_with_the_remedy(
    nvml_machine: Start, code: int, says: str
) -> None:
    machine = nvml_machine()
    machine.describe(**{f"error__{ENERGY}": code})

    with pytest.raises(MeterUnavailable, match=says) as failure:
        opened(machine)
    assert f"({code})" in str(failure.value)


@pytest.mark.parametrize(("code", "says"), [(1, "shut NVML down"), (15, "Xid"), (16, "gpu-reset")])
def test_a_counter_that_stops_answering_is_a_failure_with_the_reason(nvml_machine: Start, code: int, says: str) -> None:
    machine = opened(nvml_machine())
    machine.describe(**{f"error__{ENERGY}": code})

    with pytest.raises(MeterFailed, match=says):
        machine.ask("meter.read_j()")


def test_a_driver_that_does_not_start_is_unavailable(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.describe(error__nvmlInit=9)

    with pytest.raises(MeterUnavailable, match="kernel driver is not running"):
        machine.ask("visible_gpus()")


def test_a_missing_library_is_unavailable(nvml_machine: Start) -> None:
    machine = nvml_machine(LD_LIBRARY_PATH="")

    with pytest.raises(MeterUnavailable, match="Install the NVIDIA driver"):
        machine.ask("visible_gpus()")


def test_a_counter_that_goes_back_is_a_failure_and_not_negative_energy(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.describe(power_mw=0, energy_mj=90_000)
    opened(machine)
    machine.describe(energy_mj=10)

    with pytest.raises(MeterFailed, match="went back from 90000 to 10 mJ"):
        machine.ask("meter.read_j()")


def test_conditions_are_in_the_units_of_their_names(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(power_mw=345_600, sm_mhz=1755, mem_mhz=2619, temperature=61, reasons=0x44)

    assert machine.ask("meter.conditions()") == {
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 2619,
        "temperature_c": 61,
        "power_w": pytest.approx(345.6),
        "reported_power_w": pytest.approx(345.6),
        "throttle_reasons": 0x44,
        "other_processes": 0,
    }


def test_a_condition_the_gpu_does_not_tell_is_none(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    functions = ("ClockInfo", "TemperatureV", "Temperature", "FieldValues", "ComputeRunningProcesses_v3")
    reasons = ("CurrentClocksEventReasons", "CurrentClocksThrottleReasons")
    machine.describe(**{f"error__nvmlDeviceGet{name}": 3 for name in functions + reasons})

    conditions = machine.ask("meter.conditions()")
    assert conditions.pop("reported_power_w") == 100.0
    assert set(conditions.values()) == {None}


def test_an_instant_power_of_zero_is_not_believed(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(power_mw=0)

    assert machine.ask("meter.conditions().power_w") is None


def test_an_older_driver_answers_by_the_older_names(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(
        temperature=70,
        reasons=8,
        error__nvmlDeviceGetTemperatureV=13,
        error__nvmlDeviceGetCurrentClocksEventReasons=13,
    )

    assert machine.ask("meter.conditions().temperature_c") == 70
    assert machine.ask("meter.conditions().throttle_reasons") == 8


def test_strangers_on_the_gpu_are_counted_without_this_run(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.describe(pids="12,34,56")

    assert machine.ask("NvmlMeter(visible_gpus()[0], 0, frozenset({12, 56})).conditions().other_processes") == 1


def test_process_numbers_of_another_namespace_are_not_called_strangers(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(pids="999999999")

    machine.ask("setattr(nvml, '_pids_are_the_drivers', lambda: False)")
    assert machine.ask("meter.conditions().other_processes") is None
    machine.ask("setattr(nvml, '_pids_are_the_drivers', lambda: True)")
    assert machine.ask("meter.conditions().other_processes") == 1


def test_a_thread_of_this_run_is_not_a_stranger(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.ask("globals().update(threading=__import__('threading'))")
    machine.ask("globals().update(thread=threading.Thread(target=threading.Event().wait, daemon=True))")
    machine.ask("thread.start()")
    machine.describe(pids=machine.ask("thread.native_id"))

    assert machine.ask("thread.native_id not in meter._own_pids")
    assert machine.ask("meter.conditions().other_processes") == 0


def test_facts_tell_the_set_up_of_the_gpu_and_hide_its_uuid(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(ecc=0, mig=1, persistence=1, limit_mw=450_000, driver="580.65.06")

    facts = machine.ask("meter.facts()")
    assert facts["name"] == "NVIDIA Stub"
    assert facts["driver"] == "580.65.06"
    assert facts["vbios"] == "96.00.00.00.01"
    assert facts["power_limit_w"] == pytest.approx(450.0)
    assert (facts["ecc"], facts["mig"], facts["persistence_mode"]) == (False, True, True)
    assert len(facts["uuid_sha256"]) == 64
    assert "GPU-" not in str(facts)


def test_a_setting_the_gpu_does_not_have_is_none_and_not_off(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(**{f"error__nvmlDeviceGet{name}": 3 for name in ("EccMode", "MigMode", "PersistenceMode")})

    facts = machine.ask("meter.facts()")
    assert (facts["ecc"], facts["mig"], facts["persistence_mode"]) == (None, None, None)


def test_links_between_gpus_are_named(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.describe(gpus=3, _0_p2p=0, _1_level=40)

    assert machine.ask("topology(visible_gpus())") == "nvlink: 0-1 0-2; NUMA node: 1-2"
    assert machine.ask("topology(visible_gpus()[:1])") is None


def test_one_meter_closing_does_not_close_the_other(nvml_machine: Start) -> None:
    machine = nvml_machine()
    machine.ask("globals().update(first=NvmlMeter(visible_gpus()[0]), second=NvmlMeter(visible_gpus()[0]))")
    machine.ask("first.close() or first.close()")

    assert machine.ask("second.read_j()") > 0
