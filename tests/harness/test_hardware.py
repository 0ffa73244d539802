import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from harness.errors import UnknownHardware, UsageError
from harness.hardware import (
    EXAMPLE_FILE,
    Hardware,
    Peaks,
    cpu_hardware,
    find,
    known,
    markdown_table,
    name_key,
    roofline_time_s,
)

ROOT = Path(__file__).resolve().parents[2]
AICONFIGURATOR = ROOT / "../shared/data/aiconfigurator/systems"

# FLOP per SM and clock, dense, 16 bit with float32 accumulation: tensor cores × fused multiply-adds × 2.
FLOP_PER_CLOCK = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "8.6": 1024, "8.7": 2048, "8.9": 1024, "9.0": 4096}
FLOP_PER_CLOCK |= {"10.0": 8192, "10.3": 8192, "12.0": 1024, "Xe2": 2048}  # Xe2: per Xe core
HALF_RATE = ("GeForce", "A10G", "L40")  # boards sold with half the rate where the sum is kept in float32
FP32_LANES = {"7.0": 64, "7.5": 64, "8.0": 64}  # per SM; 128 elsewhere
WANTED = """V100-SXM2-16GB V100-SXM2-32GB V100-PCIE-16GB T4 A10 A30 A40 A100-SXM4-40GB A100-SXM4-80GB A100-PCIE-40GB
A100-80GB-PCIe L4 L40 L40S H100-SXM H100-PCIe H100-NVL H200-SXM H200-NVL GH200-96GB GH200-144GB B200 GB200 B300-SXM
GB300 RTX-3090 RTX-4090 RTX-5090 RTX-PRO-6000-Server RTX-PRO-6000-Workstation A6000 AGX-Orin-64GB Orin-NX-16GB"""

ids = [hardware.name for hardware in known()]
every_device = pytest.mark.parametrize("device", known(), ids=ids)
every_nvidia_gpu = pytest.mark.parametrize(
    "device", [one for one in known() if one.compute_capability], ids=lambda one: one.name
)


@pytest.mark.parametrize("name", WANTED.split())
def test_the_devices_that_people_measure_on_are_known(name: str) -> None:
    assert find(name).source


@every_device
def test_the_16_bit_peak_is_what_the_sms_and_the_clock_give(device: Hardware) -> None:
    assert device.sm_count
    assert device.boost_clock_mhz
    rate = FLOP_PER_CLOCK[device.compute_capability or device.architecture or ""]
    if any(mark in device.name for mark in HALF_RATE) and not device.name.endswith("L40S"):
        rate //= 2
    expected = device.sm_count * rate * device.boost_clock_mhz * 1e6
    assert device.peak_flop_per_s_for("float16") == pytest.approx(expected, rel=0.02)


@every_device
def test_the_float32_peak_is_what_the_sms_and_a_boost_clock_give(device: Hardware) -> None:
    lanes = FP32_LANES.get(device.compute_capability or "", 128)
    clock_hz = device.peak_flop_per_s_for("float32") / ((device.sm_count or 0) * lanes * 2)
    assert 0.97 <= clock_hz / ((device.boost_clock_mhz or 0) * 1e6) <= 1.16  # GeForce-like clocks outside tensor cores


@every_nvidia_gpu
def test_a_device_has_peaks_for_exactly_the_dtypes_its_generation_brought(device: Hardware) -> None:
    major, minor = map(int, (device.compute_capability or "").split("."))
    first = {"float32": (1, 0), "float16": (7, 0), "int8": (7, 5), "tf32": (8, 0), "bfloat16": (8, 0)}
    first |= {"float8": (8, 9), "float4": (10, 0)}
    assert {dtype for dtype in first if device.supports(dtype)} == {
        dtype for dtype, capability in first.items() if (major, minor) >= capability
    }


@every_device
def test_peaks_are_dense_so_narrower_types_are_at_most_about_twice_as_fast(device: Hardware) -> None:
    peaks = device.peak_flop_per_s
    assert peaks.float16 is not None
    assert peaks.bfloat16 in (None, peaks.float16)
    if peaks.float8 is not None:
        assert peaks.float8 / peaks.float16 == pytest.approx(2, rel=0.02)
    if peaks.float4 is not None and peaks.float8 is not None:
        assert 1.9 <= peaks.float4 / peaks.float8 <= 4.05  # GeForce halves float8 alone; Blackwell Ultra has 3×
    if peaks.tf32 is not None:
        assert peaks.float16 / peaks.tf32 == pytest.approx(2, rel=0.02)


@every_device
def test_every_entry_says_where_its_figures_come_from(device: Hardware) -> None:
    assert device.architecture
    assert device.memory_type
    assert device.board_power_w
    assert device.process_nm
    assert "Orin" in device.name or (device.link_kind and device.link_bytes_per_s)
    for field in fields(Hardware):
        assert device.source_of(field.name)


def test_canonical_names_are_unique_and_no_entry_repeats_a_name() -> None:
    assert len({name_key(device.name) for device in known()}) == len(known())
    for device in known():
        keys = [name_key(name) for name in (device.name, *device.nvml_names, *device.short_names)]
        assert len(keys) == len(set(keys)), device.name


def test_links_are_per_direction() -> None:
    assert find("NVIDIA H100 80GB HBM3").link_bytes_per_s == 450e9  # the datasheet prints 900 GB/s
    assert find("A100-SXM4-80GB").link_bytes_per_s == 300e9
    assert find("NVIDIA B200").link_bytes_per_s == 900e9


# Where the table differs from aiconfigurator's figures on purpose: (system, key) → reason.
EXPLAINED = {
    ("rtx_pro_6000_server", "mem_bw"): "the Server Edition's datasheet says 1597 GB/s; 1792 is the Workstation Edition",
}
SYSTEMS = {
    "a100_pcie": "NVIDIA A100 80GB PCIe",
    "a100_sxm": "NVIDIA A100-SXM4-80GB",
    "a30": "NVIDIA A30",
    "b200_sxm": "NVIDIA B200",
    "b300_sxm": "NVIDIA B300 SXM6 AC",
    "gb200": "NVIDIA GB200",
    "gb300": "NVIDIA GB300",
    "h100_pcie": "NVIDIA H100 PCIe",
    "h100_sxm": "NVIDIA H100 80GB HBM3",
    "h200_sxm": "NVIDIA H200",
    "l4": "NVIDIA L4",
    "l40s": "NVIDIA L40S",
    "rtx_pro_6000_server": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
}


@pytest.mark.shared_data
@pytest.mark.skipif(not AICONFIGURATOR.is_dir(), reason="the public measurements are not here")
@pytest.mark.parametrize("system", SYSTEMS)
def test_figures_agree_with_those_of_aiconfigurator(system: str) -> None:
    text = (AICONFIGURATOR / f"{system}.yaml").read_text(encoding="utf-8")
    device = find(SYSTEMS[system])
    ours = {
        "mem_bw": device.peak_bytes_per_s,
        "mem_capacity": device.memory_bytes,
        "bfloat16_tc_flops": device.peak_flop_per_s.bfloat16,
        "int8_tc_flops": device.peak_flop_per_s.int8,
        "fp8_tc_flops": device.peak_flop_per_s.float8,
        "fp4_tc_flops": device.peak_flop_per_s.float4,
        "power": device.board_power_w,
    }
    theirs = {key: float(value) for key, value in re.findall(r"^  (\w+): (\d+)", text, flags=re.MULTILINE)}
    compared = [key for key in ours if key in theirs]
    assert {"mem_bw", "bfloat16_tc_flops", "power"} <= set(compared)
    for key in compared:
        # they take the nominal memory, the table what the driver leaves of it (ECC on GDDR6 costs 1/16)
        tolerance = 0.07 if key == "mem_capacity" else 0.01
        if (system, key) in EXPLAINED:
            assert ours[key] != pytest.approx(theirs[key], rel=tolerance), "the explained difference is gone"
        else:
            assert ours[key] == pytest.approx(theirs[key], rel=tolerance), key


# ---- names ----


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
        ("nvidia h100 80gb hbm3", "NVIDIA H100 80GB HBM3"),
        ("H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),  # drivers before 2021
        ("h100_sxm", "NVIDIA H100 80GB HBM3"),
        (" NVIDIA H200 ", "NVIDIA H200"),
        ("NVIDIA GH200 120GB", "NVIDIA GH200 480GB"),
        ("rtx 4090", "NVIDIA GeForce RTX 4090"),
        ("Tesla T4", "Tesla T4"),
    ],
)
def test_a_device_is_found_however_people_write_it(written: str, name: str) -> None:
    assert find(written).name == name


@pytest.mark.parametrize("name", ["A100", "H100", "a100-80gb", "V100", "GH200", "RTX PRO 6000", "Orin (nvgpu)"])
def test_a_name_that_several_devices_share_is_an_error_that_lists_them(name: str) -> None:
    with pytest.raises(UnknownHardware, match="several devices") as error:
        find(name)
    assert str(error.value).count("\n  ") >= 2


def test_an_unknown_name_is_an_error_with_near_names_and_the_way_to_add_it() -> None:
    with pytest.raises(UnknownHardware) as error:
        find("NVIDIA H100 80GB HBM3e")
    assert "Closest: NVIDIA H100 80GB HBM3" in str(error.value)
    assert "--hardware FILE.toml" in str(error.value)
    assert EXAMPLE_FILE in str(error.value)


def test_a_name_near_nothing_lists_all_devices() -> None:
    with pytest.raises(UnknownHardware) as error:
        find("§§§")
    assert all(device.name in str(error.value) for device in known())


def test_a_users_entry_wins_every_name_it_claims() -> None:
    mine = replace(find("H100-SXM"), board_power_w=500.0, short_names=("A100",), nvml_names=("NVIDIA H100 NVL",))
    table = known([mine])
    assert find("NVIDIA H100 80GB HBM3", table=table) is mine
    assert find("A100", table=table) is mine
    assert find("NVIDIA H100 NVL", table=table) is mine
    assert find("H100", table=table).name == "NVIDIA H100 PCIe"  # the only built-in one that still claims it
    assert find("NVIDIA H100 80GB HBM3").board_power_w == 700


# ---- dtypes and the roofline ----


def test_a_dtype_without_native_units_is_an_error_that_names_the_native_ones() -> None:
    v100 = find("Tesla V100-SXM2-16GB")
    assert v100.supports("float16")
    assert v100.emulates("bfloat16")
    with pytest.raises(UsageError, match=r"no native units for bfloat16.*\n.*float32, float16"):
        v100.peak_flop_per_s_for("bfloat16")


def test_a_word_that_is_no_dtype_is_an_error_and_not_an_emulated_dtype() -> None:
    for ask in (find("T4").supports, find("T4").emulates, find("T4").peak_flop_per_s_for):
        with pytest.raises(UsageError, match="is not a dtype"):
            ask("complex64")


@pytest.mark.parametrize(
    ("dtype", "key"),
    [("torch.bfloat16", "bfloat16"), ("float8_e4m3fn", "float8"), ("fp16", "float16"), ("tf32", "tf32")],
)
def test_torch_names_of_dtypes_are_understood(dtype: str, key: str) -> None:
    h100 = find("H100-SXM")
    assert h100.peak_flop_per_s_for(dtype) == getattr(h100.peak_flop_per_s, key)


def test_the_slowest_of_arithmetic_memory_and_link_sets_the_time() -> None:
    h100 = find("H100-SXM")
    for expected, flop, traffic, link in ((2, 2 * 989e12, 3.35e12, 450e9), (3, 1, 3 * 3.35e12, 1), (4, 1, 1, 1.8e12)):
        time_s = roofline_time_s(
            work_flop=flop, traffic_bytes=traffic, link_bytes=link, hardware=h100, dtype="bfloat16"
        )
        assert time_s == pytest.approx(expected)


def test_work_that_computes_nothing_needs_no_peak() -> None:
    v100 = find("Tesla V100-SXM2-16GB")
    assert roofline_time_s(work_flop=0, traffic_bytes=900e9, hardware=v100, dtype="bfloat16") == pytest.approx(1)


def test_an_unknown_rate_is_an_error_and_not_a_time_of_zero() -> None:
    cpu = cpu_hardware("Example CPU", 1e11, None, None)
    for traffic, link, field in ((1, 0, "peak_bytes_per_s"), (0, 1, "link_bytes_per_s")):
        with pytest.raises(UsageError, match=field):
            roofline_time_s(work_flop=1, traffic_bytes=traffic, link_bytes=link, hardware=cpu, dtype="float32")


def test_a_probed_cpu_is_a_device_with_one_peak() -> None:
    cpu = cpu_hardware("Example CPU @ 2.00GHz", 2e11, 2e10, 2**34, dtype="bfloat16")
    assert cpu.name == "cpu: Example CPU @ 2.00GHz"
    assert cpu.peak_flop_per_s == Peaks(bfloat16=2e11)
    assert roofline_time_s(work_flop=2e11, traffic_bytes=4e10, hardware=cpu, dtype="bfloat16") == pytest.approx(2)


# ---- the page, and what importing costs ----


def test_the_page_in_docs_is_the_one_the_table_gives() -> None:
    page = (ROOT / "docs/hardware.md").read_text(encoding="utf-8")
    assert page == markdown_table(), "docs/hardware.md is stale: python -m harness.hardware > docs/hardware.md"


def test_importing_the_table_loads_neither_toml_nor_anything_heavy() -> None:
    code = "import sys, harness.hardware; print(*sorted({'tomllib', 'difflib', 'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
