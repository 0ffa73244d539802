"""The study of focused sampling: what it calls a saving, and that no way sees what it is scored on."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import focused_study
from benchmarks.focused_cells import Cell, Population
from benchmarks.focused_curves import COUNTS, MOST, Errors, Way, _split, errors
from benchmarks.focused_page import Curves, Need, need, needed, saved
from harness.campaign.fields import RequestSpec


def a_cell(source: str = "virtual GPU") -> Cell:
    """Energies that are exactly 1 J a token."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 2000, size=(220, 2))

    def population(rows: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Population:
        requests = tuple(RequestSpec(batch_size=1, prompt_tokens=int(p), output_tokens=int(o)) for p, o in rows)
        return Population(
            requests=requests,
            log_energies=tuple(np.log([float(each.prompt_tokens + each.output_tokens)]) for each in requests),
        )

    return Cell(
        source=source, name="toy", phase="request", trace=population(sizes[:150]), uniform=population(sizes[150:])
    )


def curves(random: float, focused: float) -> Curves:
    """Errors that fall as 1 / runs, with a factor."""
    made = {
        way: tuple(Errors(median=factor / np.array(COUNTS), mean=factor / np.array(COUNTS)) for _ in range(3))
        for way, factor in zip(Way, (random, random, random, focused), strict=True)
    }
    return Curves(cell=a_cell(), errors=made)


def test_runs_are_counted_from_where_the_error_stays_below() -> None:
    curve = np.full(len(COUNTS), 0.1)
    curve[5] = 0.3  # after 12 runs it is worse again
    assert needed(curve, 0.1) == COUNTS[6]
    assert needed(curve, 0.3) == COUNTS[0]
    assert needed(curve, 0.05) == float("inf")


def test_half_the_error_is_half_the_runs() -> None:
    found = need([curves(1.0, 0.5)], Way.FOCUSED, 16, kind="median")
    assert found.runs == pytest.approx(8, abs=0.3)
    assert saved(found, 16) == "**50% saved**"


def test_twice_the_error_is_a_loss_and_a_wide_interval_is_neither() -> None:
    assert saved(need([curves(1.0, 2.0)], Way.FOCUSED, 8, kind="mean"), 8) == "loss"
    assert saved(Need(runs=8, low=4, high=20), 16) == "neither shown"
    assert Need(runs=float("inf"), low=12, high=float("inf")).text() == f"> {MOST} (12 … > {MOST})"


def test_no_way_may_measure_the_lengths_it_is_scored_on() -> None:
    split = _split(a_cell(), np.random.default_rng(5))
    held = set(zip(split.held_sizes.prompt_tokens, split.held_sizes.output_tokens, strict=True))
    free = {(each.prompt_tokens, each.output_tokens) for each in (*split.trace.requests, *split.uniform.requests)}

    assert len(held) == 50
    assert not held & free


@pytest.mark.parametrize("way", Way)
def test_every_way_learns_and_gives_the_same_curve_again(way: Way) -> None:
    one, again = errors(a_cell(), way, 3), errors(a_cell(), way, 3)

    assert one.median.tolist() == again.median.tolist()
    assert one.median[-1] < 0.02
    assert one.median[-1] < one.median[0]


def test_without_the_data_of_others_the_page_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(focused_study, "virtual_cell", lambda *names, **options: a_cell())
    page = tmp_path / "page.md"

    assert focused_study.main(["--seeds", "2", "--co2-meter", str(tmp_path / "nowhere"), "--write", str(page)]) == 0

    text = page.read_text(encoding="utf-8")
    assert "co2-meter are not on this machine" in text
    assert "| toy (simulated) | median |" in text
    assert text.strip() == capsys.readouterr().out.strip()
