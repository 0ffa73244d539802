"""The page in a real browser: drawn, silent, offline, and deaf to markup in the data."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.records import Measurement
from harness.report.page import write_report
from tests.harness.report.report_examples import with_ledger

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # the browser itself stays offline too
    "--virtual-time-budget=20000",
)
ACTIONS = """
<script>
addEventListener("load", () => setTimeout(() => {
  const text = (found) => Array.from(found, (element) => element.textContent.trim());
  const section = (name) => document.getElementById(name);
  const points = () => section("phases").querySelectorAll(".chart .points path").length;
  const result = { pointsBefore: points() };
  section("phases").querySelector("button[data-view='2']").click();
  result.axis = section("phases").querySelector(".xtitle").textContent;
  section("phases").querySelector("button[data-series]").click();
  result.pointsAfter = points();
  const table = section("runs").querySelector("table");
  const heading = Array.from(table.tHead.rows[0].cells).find((cell) => cell.textContent.trim() === "energy");
  const energies = () => Array.from(table.tBodies[0].rows, (row) => row.cells[heading.cellIndex].dataset.key ?? null);
  heading.firstElementChild.click();
  result.rising = energies();
  heading.firstElementChild.click();
  result.falling = energies();
  result.order = heading.getAttribute("aria-sort");
  result.width = document.documentElement.scrollWidth;
  document.title = JSON.stringify(result);
}, 3000));
</script>
"""


TO_PERCENT = """
<script>
addEventListener("load", () => setTimeout(() => {
  document.querySelector("#ledger button[data-view='1']").click();
  const chart = document.getElementById("chart-ledger-1");
  document.title = JSON.stringify({
    title: chart.querySelector(".xtitle").textContent,
    base: chart.data.map((trace) => trace.base[0]),
    x: chart.data.map((trace) => trace.x[0]),
    error: chart.data[3].error_x.array,
  });
}, 3000));
</script>
"""
Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a browser made of a page."""

    dom: str
    console: tuple[str, ...]
    requests: tuple[str, ...]

    @property
    def title(self) -> str:
        """Title of the document in the end."""
        found = re.search(r"<title>(.*?)</title>", self.dom, re.DOTALL)
        return "" if found is None else found[1]

    @property
    def charts(self) -> list[str]:
        """What is inside each chart."""
        return re.split(r'<div class="chart', self.dom)[1:]


def visit(page: Path, scratch: Path, *, width_px: int = 1400) -> Visit:
    """Load a page until its scripts are done."""
    log = scratch / "net.json"
    finished = subprocess.run(
        [
            str(BROWSER),
            *QUIET,
            f"--user-data-dir={scratch / 'profile'}",
            f"--log-net-log={log}",
            f"--window-size={width_px},1000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    console = tuple(line for line in finished.stderr.splitlines() if ":CONSOLE" in line)
    return Visit(dom=finished.stdout, console=console, requests=_page_requests(log))


def _page_requests(log: Path) -> tuple[str, ...]:
    """Addresses that the page asked for; what the browser asks on its own account has no origin."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return tuple(params["url"] for params in asked if params["initiator"] != "not an origin")


@pytest.fixture(scope="module")
def visited(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    scratch = tmp_path_factory.mktemp("browser")
    return visit(write_report(mixed, scratch / "report.html"), scratch)


def test_every_chart_is_drawn_with_its_points_or_bars(visited: Visit) -> None:
    assert len(visited.charts) == 19
    assert f'data-charts="{len(visited.charts)}"' in visited.dom
    for chart in visited.charts:
        assert 'class="main-svg"' in chart
        assert re.search(r'<g class="points?"', chart), chart[:300]


def test_the_console_stays_empty(visited: Visit) -> None:
    assert visited.console == ()


def test_nothing_is_asked_of_a_network(visited: Visit) -> None:
    assert visited.requests == ()


def test_a_page_that_asks_a_network_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<!DOCTYPE html><img src="http://joulegraph.invalid/x.png" alt="">', encoding="utf-8")

    assert visit(page, tmp_path).requests == ("http://joulegraph.invalid/x.png",)


def test_markup_in_the_data_is_neither_run_nor_rendered(hostile_dataset: Path, tmp_path: Path) -> None:
    found = visit(write_report(hostile_dataset, tmp_path / "report.html"), tmp_path)

    assert found.title.startswith("Energy of ")
    assert "<img" not in found.dom
    assert found.console == ()
    assert f'data-charts="{len(found.charts)}"' in found.dom


def test_a_page_about_several_ranks_is_drawn_and_silent(parallel: Path, tmp_path: Path) -> None:
    found = visit(write_report(parallel, tmp_path / "report.html"), tmp_path, width_px=500)

    assert 'id="ranks"' in found.dom
    assert f'data-charts="{len(found.charts)}"' in found.dom
    assert all('class="main-svg"' in chart for chart in found.charts)
    assert found.console == ()


def bars(visit_of: Visit, chart: str) -> list[str]:
    """The outlines of the bars of a chart; one that is not drawn is a point."""
    (found,) = (text for text in visit_of.charts if f'id="chart-{chart}"' in text)
    return re.findall(r'<g class="point"><path[^>]*? d="([^"]+)"', found)


def whiskers(visit_of: Visit, chart: str) -> int:
    """How many of the bars of a chart have an interval."""
    (found,) = (text for text in visit_of.charts if f'id="chart-{chart}"' in text)
    return found.count('<path class="xerror"')


def test_a_page_with_ledger_methods_and_collectives_is_drawn_and_silent(virtual: Path, tmp_path: Path) -> None:
    found = visit(write_report(virtual, tmp_path / "report.html"), tmp_path, width_px=500)

    assert all(f'id="{name}"' in found.dom for name in ("ledger", "methods-of-kernels", "collectives"))
    assert f'data-charts="{len(found.charts)}"' in found.dom
    assert all('class="main-svg"' in chart for chart in found.charts)
    assert found.console == ()
    assert found.title.startswith("SIMULATED: ")


@pytest.mark.parametrize("residual_j", [1e-9, 0.0, -30.0])
def test_a_residual_is_visible_however_small(
    dataset_of: DatasetOf, example_measurements: Examples, tmp_path: Path, residual_j: float
) -> None:
    folder = dataset_of(with_ledger(example_measurements(n_runs=1)[0], residual_j))

    found = visit(write_report(folder, tmp_path / "report.html"), tmp_path)

    for chart, pieces in (("ledger-1", 4), ("residual-1", 1)):
        outlines = bars(found, chart)
        assert len(outlines) == pieces
        assert all("V" in outline for outline in outlines), outlines
        assert whiskers(found, chart) == 1


def test_an_interval_that_is_not_known_has_no_whisker(
    dataset_of: DatasetOf, example_measurements: Examples, tmp_path: Path
) -> None:
    folder = dataset_of(with_ledger(example_measurements(n_runs=1)[0], 1.0, ci95_j=None))

    found = visit(write_report(folder, tmp_path / "report.html"), tmp_path)

    assert [whiskers(found, chart) for chart in ("ledger-1", "residual-1")] == [0, 0]


def test_the_ledger_in_percent_moves_starts_and_whiskers_too(virtual: Path, tmp_path: Path) -> None:
    page = write_report(virtual, tmp_path / "report.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("</body>", f"{TO_PERCENT}</body>"), encoding="utf-8")

    done = json.loads(visit(page, tmp_path).title)

    assert done == {"title": "share of the run's energy", "base": [0, 60, 90, 99], "x": [60, 30, 9, 1], "error": [2]}


def test_a_page_without_energies_draws_what_it_has(failed: Path, tmp_path: Path) -> None:
    found = visit(write_report(failed, tmp_path / "report.html"), tmp_path)

    assert len(found.charts) == 1
    assert 'class="main-svg"' in found.charts[0]
    assert found.console == ()


@pytest.mark.parametrize("width_px", [500, 1400])
def test_views_series_and_tables_answer_to_clicks(mixed: Path, tmp_path: Path, width_px: int) -> None:
    page = write_report(mixed, tmp_path / "report.html")
    # The page's own policy forbids scripts that are not its own, so the one that clicks comes with a page without it.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("</body>", f"{ACTIONS}</body>"), encoding="utf-8")

    done = json.loads(visit(page, tmp_path, width_px=width_px).title)

    known = [float(energy) for energy in done["rising"] if energy is not None]
    assert done["axis"] == "batch size"
    assert 0 < done["pointsAfter"] < done["pointsBefore"]
    assert known == sorted(known)
    assert [float(energy) for energy in done["falling"] if energy is not None] == known[::-1]
    assert done["rising"][-3:] == done["falling"][-3:] == [None] * 3
    assert done["order"] == "descending"
    assert done["width"] <= width_px
