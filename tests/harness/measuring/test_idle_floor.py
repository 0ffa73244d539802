import pytest

from harness.measuring.results import IdleFloor, results
from harness.records import Part
from tests.harness.measuring.made import EXACT, idle_floor, taken, window


def floor_of(*points: tuple[float, float]) -> IdleFloor:
    """Idle windows of ten seconds: when each started, and its power."""
    return IdleFloor(windows=tuple(window(10 * power_w, work_s=10.0, started_s=at_s) for at_s, power_w in points))


def test_the_idle_floor_is_linear_between_before_and_after() -> None:
    floor = floor_of((0, 50.0), (100, 70.0))
    assert [floor.power_w(at_s) for at_s in (0, 5, 55, 105, 200)] == pytest.approx([50, 50, 60, 70, 70])
    assert floor.mean_power_w == 60


def test_an_idle_floor_known_before_only_is_constant() -> None:
    assert floor_of((0, 50.0)).power_w(1e3) == 50


def test_an_idle_floor_of_several_windows_is_linear_piece_by_piece() -> None:
    floor = floor_of((0, 50.0), (100, 70.0), (200, 64.0), (400, 66.0))
    at_s = [5, 55, 105, 155, 205, 305, 405, 999]
    assert [floor.power_w(each) for each in at_s] == pytest.approx([50, 60, 70, 67, 64, 65, 66, 66])
    assert floor.mean_power_w == pytest.approx(62.5)


def test_every_device_has_an_idle_floor_of_its_own() -> None:
    floor = IdleFloor(windows=(window(500, 300, work_s=10.0), window(700, 300, work_s=10.0, started_s=100.0)))
    assert floor.device_power_w(0, 55) == pytest.approx(60)
    assert floor.device_power_w(1, 55) == pytest.approx(30)
    assert floor.power_w(55) == pytest.approx(90)
    assert floor.mean_powers_w == pytest.approx((60, 30))


def test_a_rising_idle_floor_is_taken_out_of_each_lead_and_tail_as_it_was() -> None:
    floor = floor_of((0, 50.0), (100, 70.0))
    tailed = taken(Part.PREFILL, 100.0, passes=2.0, started_s=54.6, work_s=0.8, lead_s=0.15, tail_s=0.05)
    work = type("Named", (), {"part": Part.PREFILL, "mean_context_tokens": None})()

    (found,) = results([work], [tailed, tailed], floor)

    assert found.energy_j is not None
    assert found.energy_j.value == pytest.approx((100 - 60 * 0.2) / 2)
    assert found.duration_s is not None
    assert found.duration_s.value == pytest.approx(0.4)


def test_idle_energy_of_all_devices_is_taken_out() -> None:
    window_of_two = taken(Part.RUN, 100.0, 80.0, work_s=1.0, tail_s=0.5)
    work = type("Named", (), {"part": Part.RUN, "mean_context_tokens": None})()

    (found,) = results([work], [window_of_two] * 2, idle_floor(40.0, 20.0), EXACT)

    assert found.energy_j is not None
    assert found.energy_j.value == pytest.approx(180 - 0.5 * 60)
