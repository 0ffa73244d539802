"""Bundles that somebody changed after they were written: none of more than five hundred is taken.

Who changes a bundle is taken to know the format: hashes, sizes and row counts are made to fit where that is possible.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from harness.dataset.contributions.accepting import Terms, accept
from harness.dataset.contributions.bundle import HEADER, member_name
from harness.dataset.contributions.decoding import decode_here
from harness.dataset.schema import Table, columns_of
from harness.errors import HarnessError
from tests.harness.dataset.contributions.bundles import (
    Change,
    archive_bytes,
    bundle_of,
    each,
    header_bytes,
    members_of,
    only,
    parquet_bytes,
    rebuilt,
    tables_of,
    with_column,
)
from tests.harness.dataset.contributions.measured import campaign_measurements, pack_measurements
from tests.harness.dataset.contributions.releases import release_of

TERMS = Terms(today=date(2026, 12, 1), dry_run=True)
FLOATS = [(table, column.name) for table in Table for column in columns_of(table) if column.scalar is float]
TEXTS = [
    (table, column.name)
    for table in Table
    for column in columns_of(table)
    if column.scalar is str and column.choices is None
]


class Place:
    """A release, a good bundle, and a file for changed ones."""

    def __init__(self, folder: Path) -> None:
        self.release = release_of(folder / "release", pack_measurements(seed=7, factor=1.02))
        self.good = bundle_of(folder, campaign_measurements()).read_bytes()
        self.tables = tables_of(self.good)
        self.file = folder / "changed.zip"

    def taken(self, content: bytes) -> bool:
        """Whether a bundle would be taken; any other error than one of ours lets the test fail."""
        self.file.write_bytes(content)
        with suppress(HarnessError):
            return not accept(self.file, self.release, TERMS, decode=decode_here).refused
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("mutations"))


def many(examples: int) -> Callable[[Any], Any]:
    """So many bundles, the same in each run; a failure is not made smaller, which would take minutes."""
    return settings(max_examples=examples, derandomize=True, phases=(Phase.explicit, Phase.generate))


def known(place: Place, choices: list[tuple[Table, str]]) -> list[tuple[Table, str]]:
    """Columns that have values in the good bundle."""
    return [
        (table, name)
        for table, name in choices
        if table in place.tables and place.tables[table].column(name).null_count < place.tables[table].num_rows
    ]


def test_the_bundle_itself_is_taken(place: Place) -> None:
    assert place.taken(place.good)
    assert place.taken(rebuilt(place.good, {Table.RUNS: lambda arrow: arrow})), "written by another hand, equal rows"


@many(120)
@given(data=st.data())
def test_no_bundle_with_changed_bytes_is_taken(place: Place, data: st.DataObject) -> None:
    content = bytearray(place.good)
    start = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "append", "prepend", "remove", "swap"]))
    extra = data.draw(st.binary(min_size=1, max_size=40))
    if kind == "flip":
        content[start] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[start:]
    elif kind == "insert":
        content[start:start] = extra
    elif kind == "append":
        content += extra
    elif kind == "prepend":
        content[:0] = extra
    elif kind == "remove":
        del content[start : start + data.draw(st.integers(1, 5000))]
    else:
        other = data.draw(st.integers(0, len(content) - 1).filter(lambda at: content[at] != content[start]))
        content[start], content[other] = content[other], content[start]

    assert not place.taken(bytes(content))


NAMES = st.sampled_from(
    [
        *("../bundle.json", "/etc/passwd", "data/../../x", "data\\runs.parquet", "C:\\x", "data/runs.parquet\0.zip"),
        *("data/runs.pkl", "data//runs.parquet", "./bundle.json", "DATA/runs.parquet", "data/rυns.parquet", "", "~/x"),
        *("data/runs.parquet/", "data/runs.parquet ", "setup.py", "data/unknown.parquet", "a" * 70_000),
    ]
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@many(60)
@given(
    name=NAMES,
    how=st.sampled_from(["stored", "deflated", "twice", "link"]),
    comment=st.binary(max_size=3),
    first=st.booleans(),
)
def test_no_archive_of_another_form_is_taken(place: Place, name: str, how: str, comment: bytes, first: bool) -> None:
    out = io.BytesIO()
    good = members_of(place.good)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if how == "deflated" else zipfile.ZIP_STORED) as file:
        file.comment = comment
        entry = zipfile.ZipInfo("data/runs.parquet" if how == "twice" else name[:60_000])
        entry.external_attr = 0o120777 << 16 if how == "link" else 0
        others: list[tuple[str | zipfile.ZipInfo, bytes]] = [*good.items()]
        entries = [(entry, b"x"), *others] if first else [*others, (entry, b"x")]
        for each_name, content in entries:
            file.writestr(each_name, content)

    assert not place.taken(out.getvalue())


def _header_change(fields: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return fields | {key: value}


HEADER_KEYS = [
    *("bundle_version", "schema_version", "harness", "lab", "contact", "gpu", "created_utc", "licence", "statement"),
    *("files", "x"),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(max_size=30),
    st.sampled_from([[], {}, 1e308]),
)


@many(70)
@given(
    key=st.sampled_from(HEADER_KEYS),
    value=VALUES,
)
def test_no_bundle_with_another_header_is_taken(place: Place, key: str, value: Any) -> None:
    changed = rebuilt(place.good, header=lambda fields: _header_change(fields, key, value))
    if key in {"harness", "contact"} and (value is None or isinstance(value, str)):
        return  # the writer's to state
    if changed == place.good:
        return

    assert not place.taken(changed)


@many(70)
@given(
    place_of=st.integers(0, 7),
    key=st.sampled_from(["sha256", "bytes", "rows", "table"]),
    value=st.one_of(VALUES, st.sampled_from(["0" * 64, "runs", "graphs", 10**12, 2**63 - 1, 2**31, 1, 0, -1])),
)
def test_no_bundle_that_promises_other_tables_is_taken(place: Place, place_of: int, key: str, value: Any) -> None:
    def change(fields: dict[str, Any]) -> dict[str, Any]:
        fields["files"][place_of][key] = value
        return fields

    changed = rebuilt(place.good, header=change)

    assert changed == place.good or not place.taken(changed)


@many(60)
@given(data=st.data())
def test_no_number_that_is_none_is_taken(place: Place, data: st.DataObject) -> None:
    table, column = data.draw(st.sampled_from(known(place, FLOATS)))
    value = data.draw(st.sampled_from([float("nan"), float("inf"), float("-inf")]))
    row = data.draw(st.integers(0, 1000))

    assert not place.taken(rebuilt(place.good, {table: with_column(column, only(row, lambda _: value))}))


TRICKS = [
    *("\u202e", "\u200b", "\u200d", "\u2066", "\ufeff", "\x00", "\x1b[2J", "\u00ad", "\u0430", "\u2010", "e\u0301"),
    *("\u212b", "\uff21", "\U000e0041", "\ud7ff\u0301", "\u037e", "\x85", "\u2028"),
]


@many(70)
@given(data=st.data())
def test_no_text_with_unicode_tricks_is_taken(place: Place, data: st.DataObject) -> None:
    table, column = data.draw(st.sampled_from(known(place, TEXTS)))
    trick = data.draw(st.sampled_from(TRICKS))
    at = data.draw(st.integers(0, 20))
    row = data.draw(st.integers(0, 1000))
    change = only(row, lambda text: text[:at] + trick + text[at:])

    assert not place.taken(rebuilt(place.good, {table: with_column(column, change)}))


def _unknown_columns(arrow: pa.Table) -> pa.Table:
    return arrow.append_column("__reduce__", pa.array(["x"] * arrow.num_rows))


def _repeated_thousandfold(arrow: pa.Table) -> pa.Table:
    return pa.concat_tables([arrow] * 1000)


def _as_lists(arrow: pa.Table) -> pa.Table:
    return arrow.set_column(0, arrow.column_names[0], pa.array([[value] for value in arrow.column(0).to_pylist()]))


SHAPES: list[Change] = [
    _unknown_columns,
    _repeated_thousandfold,
    _as_lists,
    lambda arrow: arrow.drop_columns([arrow.column_names[-1]]),
    lambda arrow: arrow.slice(0, arrow.num_rows - 1),
    lambda arrow: pa.concat_tables([arrow, arrow.slice(0, 1)]),
    lambda arrow: arrow.select(list(reversed(arrow.column_names))),
    lambda arrow: arrow.rename_columns(["x", *arrow.column_names[1:]]),
    lambda arrow: arrow.set_column(0, arrow.column_names[0], pa.array([b"\x80\x04"] * arrow.num_rows, pa.binary())),
]


@many(30)
@given(data=st.data())
def test_no_table_of_another_shape_is_taken(place: Place, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from([table for table in place.tables if table is not Table.KERNEL_ENERGIES]))
    change = data.draw(st.sampled_from(SHAPES))

    assert not place.taken(rebuilt(place.good, {table: change}))


@many(20)
@given(data=st.data())
def test_no_table_compressed_otherwise_or_that_is_no_parquet_is_taken(place: Place, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(list(place.tables)))
    members = members_of(place.good)
    content = data.draw(
        st.one_of(
            st.just(parquet_bytes(place.tables[table], compression="gzip")),
            st.just(parquet_bytes(place.tables[table], compression="brotli")),
            st.binary(min_size=1, max_size=100),
            st.just(b"PAR1" + b"\xff" * 50 + b"PAR1"),
            st.just(members[member_name(table)][:-9] + b"\xff\xff\xff\x7fPAR1"),
        )
    )

    assert not place.taken(_with_member(place.good, table, content))


def _with_member(good: bytes, table: Table, content: bytes) -> bytes:
    members = members_of(good)
    fields = json.loads(members[HEADER])
    for entry in fields["files"]:
        if entry["table"] == table.title:
            entry["sha256"], entry["bytes"] = hashlib.sha256(content).hexdigest(), len(content)
    return archive_bytes(members | {HEADER: header_bytes(fields), member_name(table): content})


# Every column of energy, time, power or a limit of it, in another unit, in all rows or in one.
UNITS = [3600.0, 1 / 3600.0, 1e3, 1e-3, 1e6, 1e-6, 60.0]
IN_UNITS = [
    *((Table.RUNS, name) for name in ("energy_j", "duration_s", "idle_power_w")),
    *((Table.PHASES, name) for name in ("energy_j", "duration_s", "idle_energy_j", "host_gap_energy_j")),
    *((Table.KERNEL_ENERGIES, name) for name in ("energy_j", "active_energy_j")),
    *((Table.READINGS, name) for name in ("energy_j", "duration_s")),
    (Table.KERNELS, "duration_s"),
]
WHOLE = {
    "energies": [(table, name) for table, name in IN_UNITS if name.endswith("_j")]
    + [(Table.READINGS, name) for name in ("uncertainty_j", "counter_start_j", "counter_end_j")]
    + [(Table.RUNS, "energy_ci95_j"), (Table.RUNS, "energy_systematic95_j")]
    + [(Table.PHASES, "energy_ci95_j"), (Table.PHASES, "energy_systematic95_j"), (Table.RUNS, "idle_power_w")],
    "times": [
        *((table, name) for table, name in IN_UNITS if name.endswith("_s")),
        (Table.KERNELS, "traced_duration_s"),
    ],
}


@many(25)
@given(data=st.data())
def test_no_column_in_another_unit_is_taken(place: Place, data: st.DataObject) -> None:
    table, column = data.draw(st.sampled_from(IN_UNITS))
    factor = data.draw(st.sampled_from(UNITS))
    one = data.draw(st.booleans())
    row = data.draw(st.integers(0, 1000))
    change = only(row, lambda value: value * factor) if one else each(lambda value: value * factor)

    assert not place.taken(rebuilt(place.good, {table: with_column(column, change)}))


@pytest.mark.parametrize("factor", UNITS)
@pytest.mark.parametrize("kind", [*WHOLE, "both"])
def test_no_bundle_all_of_whose_columns_are_in_another_unit_is_taken(place: Place, kind: str, factor: float) -> None:
    columns = WHOLE[kind] if kind in WHOLE else [*WHOLE["energies"], *WHOLE["times"]]
    columns = [column for column in columns if kind != "both" or column != (Table.RUNS, "idle_power_w")]

    assert not place.taken(rebuilt(place.good, _all_scaled(columns, factor)))


def _all_scaled(columns: list[tuple[Table, str]], factor: float) -> dict[Table, Change]:
    def of(table: Table) -> Change:
        def apply(arrow: pa.Table) -> pa.Table:
            for at, name in columns:
                if at is table:
                    arrow = with_column(name, each(lambda value: value * factor))(arrow)
            return arrow

        return apply

    return {table: of(table) for table in {table for table, _ in columns}}


def _doubled(run_ids: list[str], new_ids: list[str]) -> Change:
    """The rows of some runs once more, under other ids."""
    known = dict(zip(run_ids, new_ids, strict=True))

    def apply(arrow: pa.Table) -> pa.Table:
        copies = arrow.filter(pa.compute.is_in(arrow.column("run_id"), pa.array(run_ids)))
        return pa.concat_tables([arrow, with_column("run_id", each(known.__getitem__))(copies)])

    return apply


@many(20)
@given(data=st.data())
def test_no_run_is_taken_twice_under_another_name(place: Place, data: st.DataObject) -> None:
    found = place.tables[Table.RUNS].column("run_id").to_pylist()
    copied = data.draw(st.lists(st.sampled_from(found), min_size=1, unique=True))
    named = data.draw(st.booleans())
    new = [hashlib.sha256(run_id.encode()).hexdigest()[:20] if named else run_id for run_id in copied]
    tables = [table for table in place.tables if table.shared_key is None]
    apart = data.draw(st.floats(0.0, 1e-3))
    changes = {table: _doubled(copied, new) for table in tables}
    plain = changes[Table.RUNS]
    # The copies may differ in what does not come from a window.
    changes[Table.RUNS] = lambda arrow: with_column("energy_ci95_j", each(lambda value: value * (1 + apart)))(
        plain(arrow)
    )

    assert not place.taken(rebuilt(place.good, changes))


WORDS: dict[str, list[object]] = {
    "provenance": ["measured", "estimated", "simulated", "imported", "Measured", ""],
    "method": ["nvml-counter", "nvml-power", "rapl", "virtual-counter", "codecarbon-cpu-load", "watt-meter", None],
    "gpu": ["NVIDIA H100 80GB HBM3", "A100", "NVIDIA A100-SXM4-8OGB", "virtual: NVIDIA A100-SXM4-80GB", "cpu: x"],
    "source": ["joulegraph 0.1.0 ", "aiconfigurator", "NVIDIA", "joulegraph 9.9.9"],
    "lab": ["other-lab", "Green-Lab", "green-lab ", None],
    "status": ["failed", "oom", "OK"],
    "quality": ["quick", None],
    "workload": ["server", "kernels"],
    "model": ["qwen/qwen2.5-1.5b", "Qwen/Qwen2.5-l.5B", "Owen/Qwen3-8B/..", "Qwen/Qwen3 8B", "", None],
    "started_at_utc": ["2031-01-01T00:00:00+00:00", "yesterday", None],
    "run_id": ["../../x", "0" * 19, "0" * 64],
    "trials": [0, 1, 4, 500, None],
    "n_gpus": [0, 2, 8],
    "configuration": ["{", "[]" * 9, "NaN", '{"a":1,"a":2}', "[" * 100_000, None],
}
FORGERIES = [(column, value) for column, values in WORDS.items() for value in values]


@pytest.mark.parametrize(("column", "value"), FORGERIES)
@pytest.mark.parametrize("whole", [True, False], ids=["all", "one"])
def test_no_forged_run_is_taken(place: Place, column: str, value: object, whole: bool) -> None:
    known = place.tables[Table.RUNS].column(column).to_pylist()
    if value in known:
        pytest.skip("that is what it says already")
    change = (lambda values: [value] * len(values)) if whole else (lambda values: [value, *values[1:]])

    assert not place.taken(rebuilt(place.good, {Table.RUNS: with_column(column, change)}))
