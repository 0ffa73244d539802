from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import MeterCause, MeterFailed, MeterUnavailable

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


def test_several_slices_of_one_gpu_are_told_apart(nvml_machine: Start) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES="MIG-b,MIG-a")
    machine.describe(mig=1, mig_uuid="MIG-a,MIG-b")

    assert uuids(machine) == ["MIG-b", "MIG-a"]
    assert {gpu["board_uuid"] for gpu in machine.ask("visible_gpus()")} == {"GPU-stub-0"}


def test_a_gpu_that_this_job_may_not_use_is_not_among_those_cuda_numbers(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.describe(gpus=3, _0_error__nvmlDeviceGetHandleByIndex_v2=4, _1_error__nvmlDeviceGetHandleByIndex_v2=17)

    assert uuids(machine) == ["GPU-stub-2"]
    assert machine.ask("[gpu.uuid for gpu in visible_gpus({'CUDA_VISIBLE_DEVICES': '0'})]") == ["GPU-stub-2"]


def test_a_lost_gpu_matters_only_to_those_who_want_it(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.describe(gpus=3, _1_error__nvmlDeviceGetHandleByIndex_v2=15)

    others = "[gpu.uuid for gpu in visible_gpus({'CUDA_VISIBLE_DEVICES': '2,0'})]"
    assert machine.ask(others) == ["GPU-stub-2", "GPU-stub-0"]
    with pytest.raises(MeterUnavailable, match="Xid") as failure:
        machine.ask("visible_gpus({'CUDA_VISIBLE_DEVICES': '1'})")
    assert failure.value.cause is MeterCause.DEVICE_LOST


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


def test_conditions_are_in_the_units_of_their_names(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    machine.describe(power_mw=345_600, sm_mhz=1755, mem_mhz=2619, temperature=61, reasons=0x44)
    machine.describe(limit_mw=500_000, set_limit_mw=600_000, pstate=2)

    assert machine.ask("meter.conditions()") == {
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 2619,
        "temperature_c": 61,
        "power_w": pytest.approx(345.6),
        "reported_power_w": pytest.approx(345.6),
        "throttle_reasons": 0x44,
        "other_processes": 0,
        "average_power_w": pytest.approx(345.6),
        "power_limit_w": 500.0,
        "set_power_limit_w": 600.0,
        "performance_state": 2,
    }


def test_a_condition_the_gpu_does_not_tell_is_none(nvml_machine: Start) -> None:
    machine = opened(nvml_machine())
    functions = ["ClockInfo", "TemperatureV", "Temperature", "FieldValues", "ComputeRunningProcesses_v3"]
    functions += ["EnforcedPowerLimit", "PowerManagementLimit", "PerformanceState"]
    reasons = ["CurrentClocksEventReasons", "CurrentClocksThrottleReasons"]
    machine.describe(**{f"error__nvmlDeviceGet{name}": 3 for name in functions + reasons})

    conditions = machine.ask("meter.conditions()")
    assert conditions.pop("reported_power_w") == 100.0
    assert set(conditions.values()) == {None}


@pytest.mark.parametrize("milliwatts", [0, 0xFFFFFFFF])
def test_what_no_gpu_draws_is_not_believed(shared_nvml_machine: Any, milliwatts: int) -> None:
    machine = opened(shared_nvml_machine)
    machine.describe(power_mw=milliwatts)

    told = machine.ask("meter.conditions()")
    assert [told[name] for name in ("power_w", "average_power_w", "reported_power_w")] == [None] * 3


@pytest.mark.parametrize("code", [0, 3])
def test_power_fields_polled_too_fast_are_none_and_not_zero(shared_nvml_machine: Any, code: int) -> None:
    machine = opened(shared_nvml_machine)
    machine.describe(fast_ms=60_000, fast_code=code)
    machine.ask("meter.conditions()")

    told = machine.ask("meter.conditions()")
    assert (told["power_w"], told["average_power_w"], told["reported_power_w"]) == (None, None, 100.0)


def test_each_power_field_is_its_own(shared_nvml_machine: Any) -> None:
    machine = opened(shared_nvml_machine)
    machine.file.segments(0, [(0.0, 100.0), (49.5, 500.0)])
    machine.describe(now_s=50, average_ms=2000, usage="instant")

    told = machine.ask("meter.conditions()")
    assert told["power_w"] == 500.0
    assert told["average_power_w"] == pytest.approx((1.5 * 100 + 0.5 * 500) / 2)
    assert told["reported_power_w"] == 500.0


def test_a_power_limit_that_is_changed_is_seen(shared_nvml_machine: Any) -> None:
    machine = opened(shared_nvml_machine)
    machine.file.set(gpu=0, from_s=70.0, limit_mw=300_000)

    machine.describe(now_s=69.9)
    assert machine.ask("meter.conditions().power_limit_w") == 700.0
    machine.describe(now_s=70)
    assert machine.ask("meter.conditions().power_limit_w") == 300.0


def test_a_process_that_appears_is_counted_from_then_on(shared_nvml_machine: Any) -> None:
    machine = opened(shared_nvml_machine)
    machine.ask("setattr(nvml_device, 'pids_are_the_drivers', lambda: True)")
    machine.file.set(gpu=0, pids=machine.pid)
    machine.file.set(gpu=0, from_s=5.0, pids=f"{machine.pid},999999999")

    machine.describe(now_s=4)
    assert machine.ask("meter.conditions().other_processes") == 0
    machine.describe(now_s=6)
    assert machine.ask("meter.conditions().other_processes") == 1


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

    machine.ask("setattr(nvml_device, 'pids_are_the_drivers', lambda: False)")
    assert machine.ask("meter.conditions().other_processes") is None
    machine.ask("setattr(nvml_device, 'pids_are_the_drivers', lambda: True)")
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
    assert (facts["set_power_limit_w"], facts["most_power_w"]) == (450.0, 450.0)
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


def test_a_library_of_an_older_driver_is_read_by_the_older_names(old_nvml_library: Any, nvml_machine: Start) -> None:
    machine = nvml_machine(LD_LIBRARY_PATH=str(old_nvml_library))
    machine.describe(temperature=66, reasons=4)

    with pytest.raises(MeterUnavailable, match="Update the NVIDIA driver") as failure:
        opened(machine)
    assert failure.value.cause is MeterCause.FUNCTION_MISSING
    machine.ask("globals().update(nvml_=open_nvml())")
    machine.ask("globals().update(device=device_of(nvml_, visible_gpus()[0], 'GPU'))")
    told = machine.ask("device.conditions(frozenset())")
    assert (told["temperature_c"], told["throttle_reasons"], told["reported_power_w"]) == (66, 4, 100.0)
    assert (told["power_w"], told["average_power_w"]) == (None, None)


def test_a_meter_answers_with_the_time_of_its_look(shared_nvml_machine: Any) -> None:
    machine = opened(shared_nvml_machine)
    machine.describe(latency_us=3000)
    machine.ask("globals().update(begun_s=MonotonicClock().now_s())")
    read = machine.ask("meter.read_at(MonotonicClock())")

    assert 0.003 <= read["latency_s"] < 1
    assert machine.ask("begun_s") < read["at_s"] < machine.ask("MonotonicClock().now_s()")


def test_a_closed_meter_tells_nothing_and_does_not_wait(shared_nvml_machine: Any) -> None:
    machine = opened(shared_nvml_machine)
    machine.ask("meter.close()")
    machine.ask("globals().update(begun_s=time.perf_counter())")

    assert set(machine.ask("meter.conditions()").values()) == {None}
    assert machine.ask("time.perf_counter() - begun_s") < 2
    with pytest.raises(MeterFailed, match="closed") as failure:
        machine.ask("meter.read_j()")
    assert failure.value.cause is MeterCause.CLOSED
