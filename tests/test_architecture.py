"""The house: imports point down, heavy or foreign packages stay behind one door, files and functions stay small."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "run",
    "doctor",
    "examination",  # the checks behind the doctor
    "calibrate",
    "graph",
    "convert",
    "validate",
    "release",
    "export",
    "submit",
    "accept",
}
GROUND = {
    "arguments",
    "streams",
    "words",
    "units",
    "errors",
    "carbon",
    "hardware",
    "hardware_file",
    "records",
    "kernel_records",
    "setup_records",
    "requests",
    "kernels",
    "",
}
FLOORS = {
    "models": 1,
    "meters": 1,
    "tracing": 2,
    "measuring": 3,
    "virtual": 3,
    "dataset": 4,
    "campaign": 5,
    "report": 6,
}
DOORS = {
    "transformers": {"harness/models"},
    "pynvml": {"harness/meters/nvml.py"},
    "nvtx": {"harness/tracing/ranges.py"},
    "codecarbon": {"harness/meters/estimate.py", "predictor/carbon.py"},
    "torch.profiler": {"harness/tracing"},
    "duckdb": {"harness/dataset"},
    "huggingface_hub": {
        "harness/models",
        "harness/dataset/release/hub.py",
        "harness/dataset/contributions/offering.py",
    },
    "plotly": {"harness/report", "predictor/compare_page.py"},
    "torch_geometric": {"predictor/gnn.py"},
    "lightgbm": set(),
}
LONGEST_FILE_LINES = 350
FUNCTION_P90_LINES = 25
SOURCES = sorted(path for package in ("harness", "predictor") for path in (ROOT / package).rglob("*.py"))


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def floor(module: str) -> int:
    """Floor of a module of this project; raises for one nobody has placed."""
    parts = module.split(".")
    if parts[0] == "predictor":
        return 7
    name = parts[1] if len(parts) > 1 else ""
    if name in COMMANDS:
        return 9
    if name in GROUND:
        return 0
    return FLOORS[name]


def module_of(path: Path) -> str:
    return place(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_imports_point_down(path: Path) -> None:
    own = floor(module_of(path))
    package = module_of(path).split(".")[1:2]
    for name in imported(path):
        if name.split(".")[0] in {"benchmarks", "tests"}:
            pytest.fail(f"{place(path)} imports {name}, which is not installed with the package")
        if name.split(".")[0] not in {"harness", "predictor"}:
            continue
        # The predictor is flat: all of it is one floor, and its commands import nothing that imports them.
        same_package = name.split(".")[1:2] == package or own == floor(name) == FLOORS["report"] + 1
        assert floor(name) < own or same_package or (own == 9 and floor(name) == 9) or (own == floor(name) == 0), (
            f"{place(path)} (floor {own}) imports {name} (floor {floor(name)})"
        )


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_foreign_packages_come_in_through_one_door(path: Path) -> None:
    for name in imported(path):
        for package, doors in DOORS.items():
            if name == package or name.startswith(package + "."):
                assert any(place(path).startswith(door) for door in doors), f"{place(path)} imports {name}"


def test_the_predictor_sees_only_words_configs_graphs_datasets_and_charts_of_the_harness() -> None:
    below = {0, FLOORS["models"], FLOORS["tracing"], FLOORS["dataset"]}
    for path in (ROOT / "predictor").rglob("*.py"):
        for name in imported(path):
            if name.startswith("harness"):
                allowed = below | ({FLOORS["report"]} if path.stem == "compare_page" else set())
                assert floor(name) in allowed, f"{place(path)} imports {name}"
                assert not name.startswith("harness.meters"), f"{place(path)} imports {name}"


def test_what_evaluates_readings_cannot_see_the_truth_of_a_virtual_gpu() -> None:
    allowed = {"virtual", "campaign", "calibrate"}
    for path in SOURCES:
        users = module_of(path).split(".")[1:2]
        if any(name.startswith("harness.virtual") for name in imported(path)):
            assert set(users) <= allowed, f"{place(path)} may not know the virtual machine"
            assert users != ["campaign"] or "virtual" in path.stem or path.stem == "site", place(path)
        if path.stem != "truth" and "truth" in path.read_text() and users != ["virtual"]:
            assert not re.search(r"\.truth\b", path.read_text()), f"{place(path)} looks at the truth"


def test_importing_the_harness_loads_nothing_heavy() -> None:
    code = (
        "import sys, harness, harness.records, harness.hardware, harness.campaign.options, harness.doctor; "
        "print(sorted({'torch', 'transformers', 'pyarrow', 'numpy', 'codecarbon', 'pynvml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_files_stay_small_enough_to_read(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= LONGEST_FILE_LINES, f"{place(path)} has {lines} lines; split it by what its parts are about"


def test_nine_functions_in_ten_fit_on_a_screen() -> None:
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert statistics.quantiles(lengths, n=10)[-1] <= FUNCTION_P90_LINES


def test_nothing_names_a_developers_machine_or_a_registry() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    forbidden = ("/wo" + "rk/", "/ro" + "ot/", "files.pythonho" + "sted", "pypi.o" + "rg/simple", "deb.deb" + "ian.org")
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".ini", ".html", ".cff", ".yaml", ".txt", ".c", ""}
            and path.is_file()
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [word for word in forbidden if word in text], name
