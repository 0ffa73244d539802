"""What a bundle holds of a dataset: the chosen runs, under public ids, and nothing that tells whose machine it was."""

import io
import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow.parquet as pq
import pytest

from harness.dataset.contributions.bundle import HEADER, parse_header
from harness.dataset.contributions.choosing import choose
from harness.dataset.contributions.identity import Identity, this_machine
from harness.dataset.contributions.ids import public_run_id
from harness.dataset.contributions.writing import write_bundle
from harness.dataset.reading import open_dataset
from harness.dataset.rows import rows_from_values
from harness.dataset.schema import Row, Table, columns_of
from harness.errors import DatasetError, UsageError
from harness.records import EnvironmentRow, Measurement, Provenance, Quality, RunRow, Status
from harness.setup_records import environment_content_id
from tests.harness.dataset.contributions.bundles import LAB, bundle_of, members_of, tables_of
from tests.harness.dataset.contributions.measured import (
    OTHER,
    campaign_measurements,
    environment,
    measurement,
    pack_measurements,
    write_dataset,
)

HOST, USER, HOME = "gpu-box-17.lab.example", "alicia", "/home/alicia"
UUID, SERIAL, IP = "GPU-b0e1c9ab-1234-5678-9abc-def012345678", "1321021036482", "10.20.30.40"
MAC, MAIL, SECRET = "de:ad:be:ef:00:01", "alicia@lab.example", "hf_abcdefghijklmnopqrstu"
PRIVATE = (HOST, USER, HOME, UUID, SERIAL, IP, MAC, MAIL, SECRET, "gpu-box-17", "b0e1c9ab")
STUFFED = f"{HOST} {USER} {HOME}/runs/x.json {UUID} {SERIAL} {IP} {MAC} {MAIL} {SECRET} pid 4711"
IDENTITY = Identity.of(users=(USER,), hosts=(HOST, "gpu-box-17"), homes=(HOME,), hidden=())


def runs_of(bundle: Path) -> tuple[RunRow, ...]:
    columns = tables_of(bundle)[Table.RUNS].columns
    return rows_from_values(RunRow, [column.to_pylist() for column in columns])


# Ids by which rows find each other, and what the harness itself writes.
_KEYS = {"run_id", "environment_id", "graph_id", "lab", "superseded_by", "started_at_utc", "kernel_id", "edges"}


def stuffed(table: Table, row: Row, text: str) -> Row:
    """The row with private text in every column of text, in documents as a value and as a key."""
    changes: dict[str, Any] = {}
    for column in columns_of(table):
        if column.scalar is not str or column.choices or column.name in _KEYS:
            continue
        value = getattr(row, column.name)
        try:
            document = json.loads(value) if value else None
        except ValueError:
            document = None
        if isinstance(document, dict) and column.name in {"configuration", "calibration", "variant", "kernels"}:
            changes[column.name] = json.dumps({**document, "note": text, text: [text], "hostname": HOST})
        elif column.name not in {"shape", "kernels"}:
            changes[column.name] = text
    return replace(row, **changes)


def stuffed_measurement(made: Measurement) -> Measurement:
    """Private text wherever a measurement of a campaign can have any text at all."""
    found: dict[str, Any] = {}
    for table in Table:
        if table is Table.SOURCES:
            continue
        rows = tuple(stuffed(table, row, STUFFED) for row in table.rows_of(made))
        found[table.attribute] = (rows[0] if rows else None) if table.attribute in {"run", "environment"} else rows
    machine = replace(found["environment"], gpu=made.run.gpu)
    machine = replace(machine, environment_id=environment_content_id(machine))
    run = replace(found["run"], gpu=made.run.gpu, environment_id=machine.environment_id, source=made.run.source)
    return replace(made, **found | {"environment": machine, "run": run})


def everything_in(bundle: Path) -> str:
    """Every byte of the members that are text, and every value and piece of metadata of the tables."""
    texts = [bundle.name]
    for name, content in members_of(bundle).items():
        if name == HEADER:
            texts.append(content.decode())
            continue
        file = pq.ParquetFile(io.BytesIO(content))
        texts += [str(file.metadata), str(file.schema_arrow), str(file.schema_arrow.metadata)]
        texts += [json.dumps(row) for row in file.read().to_pylist()]
    with zipfile.ZipFile(bundle) as archive:
        texts += [repr(info) for info in archive.infolist()]
    return "\n".join(texts)


def test_nothing_private_is_in_a_bundle_of_a_dataset_full_of_it(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, [stuffed_measurement(made) for made in campaign_measurements()], identity=IDENTITY)

    text = everything_in(bundle)
    assert "[user]" in text, "it was there before"
    assert [word for word in PRIVATE if word.lower() in text.lower()] == []
    assert not any(word.encode() in bundle.read_bytes() for word in PRIVATE)


def test_nothing_of_this_very_machine_is_in_a_bundle(tmp_path: Path) -> None:
    identity = this_machine()
    words = [private.word for private in identity.words]
    made = [
        replace(each, run=replace(each.run, status_detail="; ".join([*words, str(tmp_path)])))
        for each in campaign_measurements()
    ]

    text = everything_in(bundle_of(tmp_path, made, identity=identity)).lower()

    assert [word for word in [*words, str(tmp_path)] if word.lower() in text] == []


def test_ids_of_devices_campaigns_and_runs_are_others_for_every_lab(tmp_path: Path) -> None:
    made = campaign_measurements()
    bundles = [bundle_of(tmp_path, made, lab=lab, name=lab) for lab in ("green-lab", "blue-lab")]

    columns = [(Table.RUNS, "run_id"), (Table.RUNS, "campaign_id"), (Table.READINGS, "device_sha256")]
    for table, column in columns:
        own = {getattr(row, column) for each in made for row in table.rows_of(each)}
        seen = [set(tables_of(bundle)[table].column(column).to_pylist()) for bundle in bundles]
        assert len(own) == len(seen[0]) == len(seen[1])
        assert own.isdisjoint(seen[0])
        assert own.isdisjoint(seen[1])
        assert seen[0].isdisjoint(seen[1])


def test_the_public_id_of_a_run_is_that_of_run_lab_and_time(tmp_path: Path) -> None:
    made = campaign_measurements()
    wanted = {public_run_id(each.run.run_id, LAB, each.run.started_at_utc) for each in made}

    runs = runs_of(bundle_of(tmp_path, made))

    assert {run.run_id for run in runs} == wanted
    assert {run.lab for run in runs} == {LAB}


def test_every_row_still_belongs_to_its_run_environment_and_graph(tmp_path: Path) -> None:
    tables = tables_of(bundle_of(tmp_path, campaign_measurements(), identity=IDENTITY))

    runs = set(tables[Table.RUNS].column("run_id").to_pylist())
    for table in (Table.PHASES, Table.KERNELS, Table.KERNEL_ENERGIES, Table.READINGS):
        assert set(tables[table].column("run_id").to_pylist()) == runs
    graphs = set(tables[Table.GRAPHS].column("graph_id").to_pylist())
    assert set(tables[Table.PHASES].column("graph_id").to_pylist()) == graphs
    environments = tables[Table.ENVIRONMENTS].column("environment_id").to_pylist()
    assert set(tables[Table.RUNS].column("environment_id").to_pylist()) == set(environments)


def test_numbers_are_published_to_the_last_digit(tmp_path: Path) -> None:
    made = campaign_measurements()
    table = tables_of(bundle_of(tmp_path, made))[Table.READINGS]

    for column in ("energy_j", "duration_s", "passes", "counter_start_j"):
        own = sorted(getattr(row, column) for each in made for row in each.readings)
        assert sorted(table.column(column).to_pylist()) == own


def test_equal_runs_of_a_lab_make_equal_bytes_under_one_name(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
        dataset = open_dataset(write_dataset(folder / "data", campaign_measurements()))
        write_bundle([dataset], choose([dataset]), folder, lab=LAB, contact=None, identity=IDENTITY)

    (one,), (other,) = first.glob("*.zip"), second.glob("*.zip")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    assert one.name.startswith("joulegraph-green-lab-nvidia-a100-sxm4-80gb-")


def test_the_header_says_what_is_inside(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, campaign_measurements())

    header = parse_header(members_of(bundle)[HEADER])

    assert header.rows_of(Table.RUNS) == 5
    assert {file.table: file.rows for file in header.files} == {
        table: arrow.num_rows for table, arrow in tables_of(bundle).items()
    }


def test_a_pack_in_a_folder_of_its_own_is_added_and_runs_in_both_are_there_once(tmp_path: Path) -> None:
    campaign = open_dataset(write_dataset(tmp_path / "campaign", [measurement(OTHER), pack_measurements()[0]]))
    pack = open_dataset(write_dataset(tmp_path / "pack", pack_measurements()))

    chosen = choose([campaign, pack])
    out = write_bundle([campaign, pack], chosen, tmp_path, lab=LAB, contact=None, identity=IDENTITY).path

    assert chosen.lacks == ()
    tables = tables_of(out)
    assert tables[Table.RUNS].num_rows == 5
    assert tables[Table.PHASES].num_rows == 10
    assert tables[Table.ENVIRONMENTS].num_rows == 1


def altered(**run: Any) -> Measurement:
    made = measurement(OTHER, seed=3)
    return replace(made, run=replace(made.run, **run))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ({"status": Status.OOM}, "not of status ok"),
        ({"quality": Quality.QUICK}, "of quality quick"),
        ({"provenance": Provenance.SIMULATED}, "simulated"),
        ({"provenance": Provenance.IMPORTED}, "imported"),
        ({"provenance": Provenance.ESTIMATED}, "estimated on a GPU"),
        ({"superseded_by": "0" * 20}, "corrected"),
    ],
)
def test_what_is_not_published_is_left_out_and_counted(tmp_path: Path, run: dict[str, Any], reason: str) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "data", [*pack_measurements(), altered(**run)]))

    chosen = choose([dataset])

    assert len(chosen.runs) == 4
    assert [each.runs for each in chosen.left_out] == [1]
    assert chosen.left_out[0].reason.startswith(reason)


def test_a_folder_with_nothing_to_publish_says_why_and_what_to_do(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "data", [altered(provenance=Provenance.SIMULATED)]))

    with pytest.raises(DatasetError, match=r"(?s)1 simulated.*--include simulated"):
        choose([dataset])
    assert len(choose([dataset], include=frozenset({"simulated"})).runs) == 1


def test_a_bundle_is_of_one_device(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "data", [*pack_measurements(), altered(gpu="NVIDIA L4")]))

    with pytest.raises(UsageError, match="Name it with --gpu"):
        choose([dataset])
    assert len(choose([dataset], gpu="NVIDIA L4").runs) == 1
    with pytest.raises(UsageError, match="no runs on 'NVIDIA L40'"):
        choose([dataset], gpu="NVIDIA L40")


def test_what_the_pack_lacks_is_named(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "data", pack_measurements()[:3]))

    assert list(map(str, choose([dataset]).lacks)) == ["Qwen/Qwen2.5-1.5B 32x128x256"]


def test_an_environment_with_something_private_gets_the_id_of_what_is_published(tmp_path: Path) -> None:
    machine = environment(os=f"Linux 6.12 {USER}")
    made = [measurement(OTHER, machine=machine)]

    tables = tables_of(bundle_of(tmp_path, made, identity=IDENTITY))

    (row,) = rows_from_values(EnvironmentRow, [column.to_pylist() for column in tables[Table.ENVIRONMENTS].columns])
    assert row.os == "Linux 6.12 [user]"
    assert row.environment_id == environment_content_id(row) != machine.environment_id


def test_every_column_of_text_is_looked_at() -> None:
    """A column that is added to the schema is scrubbed as text unless it is given another shape."""
    hints = {table: get_type_hints(table.row_class) for table in Table}
    assert all(len(fields(table.row_class)) == len(hints[table]) for table in Table)
    assert sum(column.scalar is str for table in Table for column in columns_of(table)) > 60
