"""All importers of runs alike: damaged cells, and what every one of them states about its source."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dataset.importers.co2_meter import Co2Meter
from harness.dataset.importers.energaizer import Energaizer
from harness.dataset.importers.energy_inference import EnergyInference
from harness.dataset.importers.importing import Importer
from harness.dataset.importers.leadgreen import LeadGreen
from harness.dataset.importers.ml_energy import MlEnergy
from harness.dataset.importers.splitwise import Splitwise
from harness.errors import DatasetError
from tests.harness.dataset.importers import test_co2_meter as co2_meter
from tests.harness.dataset.importers import test_energaizer as energaizer
from tests.harness.dataset.importers import test_energy_inference as energy_inference
from tests.harness.dataset.importers import test_ml_energy as ml_energy
from tests.harness.dataset.importers import test_splitwise as splitwise
from tests.harness.dataset.importers.run_examples import assert_sound, imported

TABLES: dict[str, tuple[Importer, str, list[str]]] = {
    "energaizer": (
        Energaizer(),
        "a100.csv",
        [energaizer.HEADER, f"{energaizer.OPT}_attneager_freq900_iter100.csv,11.5,76.0,900.0,64.5"],
    ),
    "energy-inference": (
        EnergyInference(),
        "plots/all-stats.csv",
        [energy_inference.COLUMNS, *energy_inference.sweeps()],
    ),
    "splitwise": (
        Splitwise(),
        "perf_model.csv",
        [splitwise.COLUMNS, splitwise.row(200.0, 38.0, mean=0.5, peak=0.9), splitwise.row(200.0, 39.0)],
    ),
    "co2-meter": (Co2Meter(), "uniform.csv", [co2_meter.row(5.0, 30.0, output=51), co2_meter.row(0.1, 1.0)]),
}
ODD = [
    "",
    "0",
    "-1",
    "1e308",
    "-1e308",
    "1e-300",
    "nan",
    "inf",
    "1_0",
    "0x10",
    "2.5",
    "99999999999999999999",
    '"',
    "\x00",
]


@pytest.mark.parametrize("source", TABLES)
@settings(max_examples=80)
@given(place=st.integers(0, 1000), cell=st.sampled_from(ODD) | st.text(max_size=12))
def test_whatever_stands_in_a_cell_the_rows_are_sound_or_it_is_an_error(source: str, place: int, cell: str) -> None:
    importer, name, lines = TABLES[source]
    line = 1 + place % (len(lines) - 1) if source != "co2-meter" else place % len(lines)
    cells = lines[line].split(",")
    cells[place % len(cells)] = cell
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes("\n".join([*lines[:line], ",".join(cells), *lines[line + 1 :]]).encode("utf-8", "replace"))

        try:
            found = imported(importer, Path(folder))
        except DatasetError as error:
            assert str(error)  # noqa: PT017 - either is right
            return

    assert_sound(found)


@settings(max_examples=80)
@given(
    key=st.sampled_from(sorted(ml_energy.configuration())),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.lists(st.integers()),
)
def test_whatever_stands_in_a_figure_the_rows_are_sound_or_it_is_an_error(key: str, value: object) -> None:
    with TemporaryDirectory() as folder:
        ml_energy.write(Path(folder), ml_energy.configuration(**{key: value}))
        try:
            found = imported(MlEnergy(), Path(folder))
        except DatasetError as error:
            assert str(error)  # noqa: PT017 - either is right
            return

    assert_sound(found)
    json.dumps([run.energy_j for run in found.runs], allow_nan=False)


@pytest.mark.parametrize(
    "importer",
    [Energaizer(), EnergyInference(), Splitwise(), Co2Meter(), MlEnergy(), LeadGreen()],
    ids=lambda importer: importer.name,
)
def test_an_empty_folder_is_no_source_and_the_error_says_what_is_wanted(importer: Importer, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"does not hold .*\n.*clone") as refusal:
        imported(importer, tmp_path)

    assert str(tmp_path) in str(refusal.value)
    with pytest.raises(DatasetError, match="is not there"):
        imported(importer, tmp_path / "nowhere")


@pytest.mark.parametrize("source", TABLES)
def test_what_is_measured_and_what_is_derived_is_stated_and_the_licence_is_that_of_the_importer(
    source: str, tmp_path: Path
) -> None:
    importer, name, lines = TABLES[source]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("\n".join(lines) + "\n")

    found = imported(importer, tmp_path)

    (stated,) = set(found.sources)
    assert (stated.source, stated.licence) == (importer.name, importer.licence)
    assert stated.measured
    assert stated.derived
    assert stated.url is not None
    assert all(math.isfinite(run.energy_j or 0.0) for run in found.runs)
