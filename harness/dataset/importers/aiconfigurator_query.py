"""The SQL that turns files of aiconfigurator into kernels: one table of everything found, rejected rows included."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.dataset.importers.aiconfigurator_kinds import Bound, Kernel, Size, dtype_sql, literal, quoted
from harness.dataset.importers.aiconfigurator_layout import KernelFile
from harness.dataset.importers.duck import file_sql
from harness.hardware import Hardware, Peaks
from harness.kernels import KernelKind

# Rules by which a row is left out, the first that holds.
NO_TIME = "the time is not a positive number"
NO_SIZE = "a size is missing or no whole number above zero"
OTHER_DEVICE = "the device column names another GPU than the folder"
TWIN = "equal in every value to a row before it"
NO_KERNEL = "an operation this importer does not know"
# Rules by which a row is kept and flagged.
TOO_SHORT = "shorter than 1 µs, which no launch is: a difference of two timings"
TOO_FAST = "faster than the Roofline"
UNREAD = "of a file in which large kernels read faster than memory can: they did not read all that is counted"
COPIED = "the same rows stand in the file of another GPU"
OTHER_BACKEND = "the backend of the row and of the folder differ"
OTHER_VERSION = "the version of the row and of the folder differ"
ABOVE_LIMIT = "power above 1.1 × its limit"
BELOW_POLL = "under 0.1 ms: power averaged over a loop shorter than the meter's window"

_SHORTEST_S = 1e-6
_POLL_S = 1e-4
_ABOVE_LIMIT = 1.1
# A file is judged by its kernels with this many times the bytes of the L2 cache, if it has so many of them.
_LARGE = 8
_ENOUGH = 20
_TOO_MANY = 0.2  # of them faster than memory; of files beyond suspicion it is under 0.01
_READING = 0.25  # share of a kernel's time that its bytes need at least, for what was not read to matter
_MATRIX_KINDS = {KernelKind.GEMM, KernelKind.MOE_GEMM, KernelKind.ATTENTION}
_RUN_COLUMNS = {"framework", "version", "device", "op_name", "power", "power_limit"}
_TIME_COLUMNS = {"latency", "avg_ms", "transmit_us"}
PHYSICAL_COLUMNS = ("flop", "read_bytes", "write_bytes", "link_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One file as one group of runs reads it."""

    file: KernelFile
    number: int  # of the file, in the order that decides which of two equal rows is kept
    columns: frozenset[str]
    kernels: tuple[Kernel, ...]
    tags: tuple[str, ...] | None  # backend and version columns of the rows wanted; None: all of them
    foreign_devices: tuple[str, ...]  # values of the device column that are other GPUs
    gpus_per_node: int | None
    flags: tuple[str, ...]


def tag_sql(columns: Iterable[str]) -> str:
    """Backend and version of a row as one text; files that lack the columns have one tag."""
    parts = [f"coalesce({name}, '')" if name in set(columns) else "''" for name in ("framework", "version")]
    return f"{parts[0]} || chr(31) || {parts[1]}"


def rows_sql(reading: Reading) -> str:
    """The rows of a file that a group wants."""
    source = f"read_parquet({file_sql(reading.file.path)}, file_row_number=true)"
    if reading.tags is None:
        return source
    wanted = ", ".join(map(literal, reading.tags))
    return f"(SELECT * FROM {source} WHERE {tag_sql(reading.columns)} IN ({wanted}))"  # noqa: S608


def found_sql(readings: Iterable[Reading], gpu: Hardware) -> str:
    """Every kernel of every row, with the rule that rejects it, its place among equal kernels, and its flags."""
    parts = " UNION ALL ".join(
        _kernel_sql(reading, part, kernel, gpu) for reading in readings for part, kernel in enumerate(reading.kernels)
    )
    large_s = _LARGE * gpu.l2_bytes / gpu.peak_bytes_per_s if gpu.l2_bytes and gpu.peak_bytes_per_s else "NULL"
    return f"""
        WITH judged AS (
            SELECT *, first_rule IS NULL AND traffic_s > {large_s} AS is_large FROM ({parts})
        ), keyed AS (
            SELECT * EXCLUDE (flags, traffic_s, is_large),
                left(md5(concat_ws(chr(31), kind, op, dtype, shape, variant)), 16) AS key,
                nullif(concat_ws('; ', flags, CASE WHEN traffic_s > {_READING} * duration_s
                    AND count(*) FILTER (is_large) OVER file >= {_ENOUGH}
                    AND avg((traffic_s > duration_s)::INT) FILTER (is_large) OVER file > {_TOO_MANY}
                    THEN {literal(UNREAD)} END), '') AS flags
            FROM judged WINDOW file AS (PARTITION BY number, part, op, dtype)
        ), twins AS (
            SELECT *, row_number() OVER (
                PARTITION BY gpus, power_limit, key, duration_s, power, first_rule IS NULL ORDER BY number, row
            ) AS twin FROM keyed
        ), ruled AS (
            SELECT * EXCLUDE (first_rule, twin),
                CASE WHEN first_rule IS NULL AND twin > 1 THEN {literal(TWIN)} ELSE first_rule END AS rule
            FROM twins
        )
        SELECT * EXCLUDE (key), key || CASE WHEN repeat > 1 THEN '-' || repeat ELSE '' END AS kernel_id
        FROM (SELECT *, row_number() OVER (
            PARTITION BY gpus, power_limit, key, rule IS NULL ORDER BY number, row) AS repeat FROM ruled)
    """  # noqa: S608


def _kernel_sql(reading: Reading, part: int, kernel: Kernel, gpu: Hardware) -> str:
    counts = {name: getattr(kernel, name) for name in PHYSICAL_COLUMNS}
    given = ", ".join(f"{_whole(sql)} AS {name}" for name, sql in counts.items())
    power, limit = (
        f"{name}::DOUBLE" if name in reading.columns else "NULL::DOUBLE" for name in ("power", "power_limit")
    )
    gpus = kernel.gpus.format(gpus_per_node=reading.gpus_per_node or "NULL")
    return f"""
        SELECT {reading.number} AS number, file_row_number AS row, {part} AS part, ({gpus})::BIGINT AS gpus,
            CASE WHEN {power} > 0 AND isfinite({power}) THEN {power} END AS power,
            CASE WHEN {limit} > 0 AND isfinite({limit}) THEN {limit} END AS power_limit,
            {literal(kernel.kind)} AS kind, {kernel.op} AS op, {dtype_sql(kernel.dtype)} AS dtype,
            {_shape_sql(kernel)} AS shape, {_variant_sql(reading, kernel)} AS variant,
            ({kernel.time_s})::DOUBLE AS duration_s, {given}, {_rule_sql(reading, kernel, gpus)} AS first_rule,
            {_flags_sql(reading, kernel, gpu)} AS flags, {_traffic_sql(kernel, gpu)} AS traffic_s
        FROM {rows_sql(reading)} WHERE {kernel.where}
    """  # noqa: S608


def _whole(sql: str | None) -> str:
    return "NULL::BIGINT" if sql is None else f"TRY_CAST(({sql}) AS BIGINT)"


def _shape_sql(kernel: Kernel) -> str:
    plain = _json(kernel.sizes)
    if kernel.window_tokens is None:
        return plain
    windowed = _json((*kernel.sizes, Size(name="window_tokens", sql=kernel.window_tokens)))
    return f"CASE WHEN ({kernel.window_tokens}) > 0 THEN {windowed} ELSE {plain} END"


def _json(sizes: Iterable[Size]) -> str:
    return "to_json({" + ", ".join(f"{literal(size.name)}: ({size.sql})::BIGINT" for size in sizes) + "})::VARCHAR"


def _variant_sql(reading: Reading, kernel: Kernel) -> str:
    used = {size.sql for size in kernel.sizes} | set(kernel.unlike) | _RUN_COLUMNS | _TIME_COLUMNS
    used |= {name for name in ("kernel_source", "phase") if name in kernel.op}
    rest = sorted(reading.columns - used)
    if not rest:
        return "NULL::VARCHAR"
    return "to_json({" + ", ".join(f"{literal(name)}: {quoted(name)}" for name in rest) + "})::VARCHAR"


def _rule_sql(reading: Reading, kernel: Kernel, gpus: str) -> str:
    wholes = [*(size.sql for size in kernel.sizes), gpus]
    sizes = " AND ".join(f"coalesce(({sql}) > 0 AND ({sql}) = ({sql})::BIGINT, FALSE)" for sql in wholes)
    rules = [
        f"WHEN NOT coalesce(({kernel.time_s}) > 0 AND isfinite(({kernel.time_s})::DOUBLE), FALSE) "
        f"THEN {literal(NO_TIME)}",
        f"WHEN NOT ({sizes}) THEN {literal(NO_SIZE)}",
    ]
    if reading.foreign_devices:
        devices = ", ".join(map(literal, reading.foreign_devices))
        rules.insert(0, f"WHEN device IN ({devices}) THEN {literal(OTHER_DEVICE)}")
    return f"CASE {' '.join(rules)} END"


def _flags_sql(reading: Reading, kernel: Kernel, gpu: Hardware) -> str:
    """Rules by which a row is suspicious, parted by '; '; null: none."""
    bound, time = _bound_sql(kernel, gpu), f"({kernel.time_s})"
    return f"""nullif(concat_ws('; ',
        {"".join(f"{literal(flag)}, " for flag in reading.flags)}
        CASE WHEN {time} < {_SHORTEST_S} THEN {literal(TOO_SHORT)} END,
        CASE WHEN {time} > 0 AND {time} < {bound}
            THEN {literal(TOO_FAST + " (× ")} || round({bound} / {time}, 1) || ')' END
    ), '')"""


def _bound_sql(kernel: Kernel, gpu: Hardware) -> str:
    """Least time in seconds by the Roofline: of arithmetic, of traffic beyond what the L2 cache can hold, of links.

    A kernel that is looped may find in the cache what it left there. What is not known bounds nothing.
    Source: Williams, Waterman, Patterson, "Roofline", Communications of the ACM 52(4), 2009.
    """
    least = _least(kernel)
    times = [f"({least.flop})::DOUBLE / {_peak_sql(kernel, gpu)}"]
    if gpu.peak_bytes_per_s and gpu.l2_bytes is not None:
        times.append(f"(({least.bytes})::DOUBLE - {gpu.l2_bytes}) / {gpu.peak_bytes_per_s!r}")
    if gpu.link_bytes_per_s:
        times.append(f"({least.link_bytes})::DOUBLE / {gpu.link_bytes_per_s!r}")
    return f"greatest({', '.join(times)})"


def _traffic_sql(kernel: Kernel, gpu: Hardware) -> str:
    """Seconds that all bytes of a kernel take at the peak of the memory; null where one of the two is not known."""
    return f"({_least(kernel).bytes})::DOUBLE / {gpu.peak_bytes_per_s!r}" if gpu.peak_bytes_per_s else "NULL::DOUBLE"


def _least(kernel: Kernel) -> Bound:
    counted = Bound(
        flop=kernel.flop or "NULL",
        bytes=f"{kernel.read_bytes} + {kernel.write_bytes}" if kernel.read_bytes and kernel.write_bytes else "NULL",
        link_bytes=kernel.link_bytes or "NULL",
    )
    return kernel.bound or counted


def _peak_sql(kernel: Kernel, gpu: Hardware) -> str:
    """Peak FLOP/s of a row; null where the GPU has no native units for the dtype, or its peak is not known."""
    peaks = gpu.peak_flop_per_s
    if kernel.kind not in _MATRIX_KINDS:
        return repr(peaks.float32) if peaks.float32 else "NULL"
    known = {name: peak for name in Peaks.__slots__ if (peak := getattr(peaks, name)) is not None}
    words = [kernel.dtype, *kernel.fastest_dtypes]
    whens = " ".join(f"WHEN {literal(name)} THEN {peak!r}" for name, peak in known.items())
    return f"greatest({', '.join(f'CASE {dtype_sql(word)} {whens} END' for word in words)})" if whens else "NULL"


ENERGY_FLAGS = f"""nullif(concat_ws('; ',
    CASE WHEN power > {_ABOVE_LIMIT} * power_limit THEN {literal(ABOVE_LIMIT)} END,
    CASE WHEN duration_s < {_POLL_S} THEN {literal(BELOW_POLL)} END
), '')"""
