import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MeterFailed, MeterUnavailable
from harness.meters.rapl import RaplMeter, find_domains

Write = Callable[..., Path]


def labels(root: Path) -> list[str]:
    return [domain.label for domain in find_domains(root)]


def test_packages_and_their_memory_are_summed_and_nothing_twice(powercap: Write) -> None:
    root = powercap(
        {
            "intel-rapl:0": ("package-0", 50_000_000),
            "intel-rapl:0:0": ("core", 1),
            "intel-rapl:0:1": ("uncore", 1),
            "intel-rapl:0:2": ("dram", 9_000_000),
            "intel-rapl:1": ("package-1", 50_000_000),
            "intel-rapl:1:0": ("dram", 9_000_000),
            "intel-rapl:2": ("psys", 1),
            "intel-rapl-mmio:0": ("package-0", 50_000_000),
        }
    )

    assert labels(root) == ["package-0", "package-1", "dram", "dram"]


def test_dies_that_repeat_one_counter_count_once(powercap: Write) -> None:
    root = powercap(
        {
            "intel-rapl:0": ("package-0-die-0", 77_000_000_000),
            "intel-rapl:1": ("package-0-die-1", 77_000_000_900),
            "intel-rapl:2": ("package-1-die-0", 77_000_001_000),
        }
    )

    assert labels(root) == ["package-0-die-0", "package-1-die-0"]


def test_dies_with_counters_of_their_own_are_summed(powercap: Write) -> None:
    root = powercap(
        {
            "intel-rapl:0": ("package-0-die-0", 77_000_000_000),
            "intel-rapl:1": ("package-0-die-1", 61_000_000_000),
        }
    )

    assert labels(root) == ["package-0-die-0", "package-0-die-1"]


def test_a_machine_without_powercap_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(MeterUnavailable, match="modprobe intel_rapl_msr"):
        RaplMeter(tmp_path / "nowhere")


def test_a_machine_with_the_whole_board_alone_is_unavailable(powercap: Write) -> None:
    with pytest.raises(MeterUnavailable, match="found: psys"):
        RaplMeter(powercap({"intel-rapl:0": ("psys", 1)}))


def test_a_refused_counter_is_unavailable_with_the_command_that_helps(
    powercap: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = powercap({"intel-rapl:0": ("package-0", 1)})
    read_text = Path.read_text

    def refuse(path: Path, *arguments: str, **options: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(MeterUnavailable, match="sudo chmod a\\+r"):
        RaplMeter(root)


@pytest.mark.parametrize("content", ["", "12 34", "-5", "1e6", "nan", "١٢"])
def test_a_counter_that_holds_no_number_is_a_failure(powercap: Write, content: str) -> None:
    root = powercap({"intel-rapl:0": ("package-0", 1)})
    meter = RaplMeter(root)
    (root / "intel-rapl:0" / "energy_uj").write_text(content, encoding="utf-8")

    with pytest.raises(MeterFailed, match="no count of microjoules"):
        meter.read_j()
    meter.close()


def test_a_domain_without_a_range_is_unavailable(powercap: Write) -> None:
    with pytest.raises(MeterUnavailable, match="counter range"):
        RaplMeter(powercap({"intel-rapl:0": ("package-0", 1)}, range_uj=0))


def test_a_counter_above_its_range_that_goes_back_is_a_failure(powercap: Write) -> None:
    root = powercap({"intel-rapl:0": ("package-0", 900)}, range_uj=500)
    meter = RaplMeter(root, guard_s=1000)
    (root / "intel-rapl:0" / "energy_uj").write_text("5")

    with pytest.raises(MeterFailed, match="above its own range"):
        meter.read_j()
    meter.close()


@settings(max_examples=40, deadline=None)
@given(
    start_uj=st.integers(0, 9_999),
    moves_uj=st.lists(st.integers(0, 9_999), max_size=12),
)
def test_energy_is_right_however_often_the_counter_comes_round(start_uj: int, moves_uj: list[int]) -> None:
    range_uj = 10_000
    with TemporaryDirectory() as folder:
        domain = Path(folder) / "intel-rapl:0"
        domain.mkdir()
        (domain / "name").write_text("package-0")
        (domain / "max_energy_range_uj").write_text(str(range_uj))
        (domain / "energy_uj").write_text(str(start_uj))
        meter = RaplMeter(Path(folder), guard_s=1000)
        total_uj = start_uj
        for move_uj in moves_uj:
            total_uj += move_uj
            (domain / "energy_uj").write_text(str(total_uj % range_uj))
            assert meter.read_j() == pytest.approx((total_uj - start_uj) * 1e-6, abs=1e-12)
        meter.close()


def test_one_counter_coming_round_leaves_the_others_alone(powercap: Write) -> None:
    root = powercap({"intel-rapl:0": ("package-0", 900), "intel-rapl:1": ("package-1", 100)}, range_uj=1000)
    meter = RaplMeter(root, guard_s=1000)
    (root / "intel-rapl:0" / "energy_uj").write_text("50")
    (root / "intel-rapl:1" / "energy_uj").write_text("140")

    assert meter.read_j() == pytest.approx(190e-6)
    meter.close()


def test_a_long_window_is_watched_so_that_no_round_is_missed(powercap: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = threading.Event()
    read_j = RaplMeter.read_j

    def noticed(meter: RaplMeter) -> float:
        watched.set()
        return read_j(meter)

    monkeypatch.setattr(RaplMeter, "read_j", noticed)
    meter = RaplMeter(powercap({"intel-rapl:0": ("package-0", 1)}), guard_s=0.001)

    assert watched.wait(timeout=10)
    meter.close()
