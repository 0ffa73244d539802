"""Every rule about rows, with a change to the healthy dataset that breaks it and, as far as possible, nothing else."""

from dataclasses import dataclass
from typing import Any

from harness.dataset.schema import Table
from harness.records import SCHEMA_VERSION
from tests.harness.dataset.validation.mutating import Again, Edit, Gone

RUNS, PHASES, KERNELS, ENERGIES = Table.RUNS, Table.PHASES, Table.KERNELS, Table.KERNEL_ENERGIES
READINGS, GRAPHS, ENVIRONMENTS = Table.READINGS, Table.GRAPHS, Table.ENVIRONMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is changed, and where the rule is found broken."""

    rule: str
    edits: tuple[Edit | Again | Gone, ...]
    table: Table
    column: str
    value: str | None  # part of what the finding shows
    also: frozenset[str] = frozenset()  # other rules that the same change cannot but break
    severity: str | None = None  # None: that of the rule
    name: str = ""

    def __str__(self) -> str:
        return f"{self.rule}{self.name and f': {self.name}'}"


def case(rule: str, table: Table, where: dict[str, Any], column: str, new: object, **more: Any) -> Case:
    """One cell."""
    value = more.pop("value", None if new is None or callable(new) else str(new))
    found_in, shown = more.pop("finding", (column, value))
    also = frozenset(more.pop("also", ()))
    edit = Edit(table=table, where=where, values={column: new})
    return Case(rule=rule, edits=(edit,), table=table, column=found_in, value=shown, also=also, **more)


ONE, TWO, CPU = {"run_id": "one"}, {"run_id": "two"}, {"run_id": "cpu"}
SERVER, THEIRS, KERNEL = {"run_id": "server"}, {"run_id": "prefill"}, {"run_id": "kernels"}
PREFILL = {"phase": "prefill"}
PRODUCT = ONE | PREFILL | {"kernel_id": "k0"}
REPLAYED = PRODUCT | {"method": "replay"}
OWN_WINDOW = ONE | {"part": "run", "trial": 0}
TEMPERATURE = {"part": "run", "trial": 1}


def scaled(factor: float) -> Any:
    return lambda value: None if value is None else value * factor


def moved(amount: float) -> Any:
    return lambda value: value + amount


VALUES = (
    case("text-too-long", RUNS, ONE, "model_revision", "x" * 5000, value="xxxx", also={"rules-not-asked"}),
    case("unprintable-text", RUNS, SERVER, "status_detail", "a\x1b[31mb", value="a\x1b[31mb"),
    case("unprintable-text", RUNS, SERVER, "model_revision", "a\u200bb", value="a\u200bb", name="invisible"),
    case("unprintable-text", RUNS, SERVER, "model_revision", "", value="", name="empty"),
    case("text-not-normalised", RUNS, SERVER, "model_revision", "e\u0301", value="e\u0301"),
    case("look-alike-name", RUNS, SERVER, "runtime", "vll\u043c", value="vll\u043c"),
    case("model-not-ascii", RUNS, SERVER, "model", "someone/m\u043edel", value="m\u043edel"),
    case("malformed-hash", RUNS, SERVER, "config_sha256", "ABC123"),
    case("malformed-json", KERNELS, KERNEL, "shape", '{"m":1.5}'),
    case("malformed-json", KERNELS, KERNEL, "variant", '{"library":[1]}', name="variant"),
    case("malformed-json", PHASES, ONE | PREFILL, "measured_contexts", "[1,]", name="list"),
    case("malformed-document", RUNS, ONE, "configuration", '{"quality":"standard","x":NaN}', value="NaN"),
    case("malformed-document", ENVIRONMENTS, {"environment_id": "a100"}, "calibration", "[]", name="list"),
    case("malformed-graph", GRAPHS, {"phase": "decode"}, "edges", "[[5,6]]", finding=("kernels", None)),
    case("not-finite", READINGS, TEMPERATURE, "polled_energy_j", float("nan"), value="nan"),
    case("not-finite", READINGS, TEMPERATURE, "polled_energy_j", float("inf"), value="inf", name="infinite"),
    case("negative-number", RUNS, SERVER, "ttft_s", -0.5, value="-0.5"),
    case("zero-for-missing", READINGS, TEMPERATURE, "temperature_c", 0.0, value="0.0"),
    case("zero-for-missing", RUNS, SERVER, "tpot_s", 0.0, value="0.0", name="time"),
    case("wrong-schema-version", RUNS, SERVER, "schema_version", SCHEMA_VERSION + 1),
    case("malformed-time", RUNS, ONE, "started_at_utc", "yesterday"),
    case("malformed-time", RUNS, ONE, "started_at_utc", "2099-01-01T00:00:00+00:00", name="future"),
    case("unknown-word", RUNS, SERVER, "weights", "borrowed"),
    Case(
        rule="malformed-id",
        edits=(Edit(table=RUNS, where=SERVER, values={"run_id": "../x"}),),
        table=RUNS,
        column="run_id",
        value="../x",
    ),
)
KEYS = (
    Case(
        rule="duplicate-key",
        edits=(Again(table=KERNELS, where=KERNEL),),
        table=KERNELS,
        column="run_id",
        value="kernels · 0 · k0",
    ),
    Case(
        rule="duplicate-key",
        edits=(Again(table=RUNS, where=SERVER),),
        table=RUNS,
        column="run_id",
        value="server",
        name="run",
    ),
    Case(
        rule="unknown-run",
        edits=(Gone(table=RUNS, where=KERNEL),),
        table=KERNELS,
        column="run_id",
        value="kernels",
    ),
    case("unknown-kernel", ENERGIES, KERNEL, "kernel_id", "k9"),
    Case(
        rule="unknown-phase",
        edits=(Edit(table=KERNELS, where=KERNEL, values={"phase": "decode"}), Gone(table=ENERGIES, where=KERNEL)),
        table=KERNELS,
        column="phase",
        value="decode",
        severity="warning",
    ),
    case("unknown-graph", PHASES, THEIRS, "graph_id", "1234"),
    case("not-in-graph", KERNELS, PRODUCT, "graph_kernel", 7),
    case("unknown-environment", RUNS, SERVER, "environment_id", "nowhere"),
    case("unknown-environment", RUNS, SERVER, "gpu", "NVIDIA H100 80GB HBM3", name="another"),
    case("unknown-environment", RUNS, CPU, "environment_id", None, name="none", also={"unused-row"}),
    case("unknown-source", RUNS, SERVER, "source", "nobody"),
    Case(
        rule="own-source-missing",
        edits=(Gone(table=Table.SOURCES, where={"source": "joulegraph 0.1.0"}),),
        table=RUNS,
        column="source",
        value="joulegraph",
    ),
    case("unknown-correction", RUNS, SERVER, "superseded_by", "nothing"),
    Case(
        rule="circular-correction",
        edits=(
            Edit(table=RUNS, where=SERVER, values={"superseded_by": "kernels"}),
            Edit(table=RUNS, where=KERNEL, values={"superseded_by": "server"}),
        ),
        table=RUNS,
        column="superseded_by",
        value="server",
    ),
    Case(
        rule="unused-row",
        edits=(Again(table=ENVIRONMENTS, where={"environment_id": "cpu"}, values={"environment_id": "attic"}),),
        table=ENVIRONMENTS,
        column="environment_id",
        value="attic",
    ),
    case("missing-value", RUNS, ONE, "attention", None),
    case("status-without-reason", RUNS, {"run_id": "failed"}, "status_detail", None),
    case("status-contradicts-numbers", RUNS, {"run_id": "failed"}, "energy_j", 12.0, also={"energy-without-readings"}),
    Case(
        rule="status-contradicts-numbers",
        edits=(
            Edit(
                table=RUNS,
                where=SERVER,
                values=dict.fromkeys(("energy_j", "mean_power_w", "tpot_s", "output_tokens_per_s")),
            ),
        ),
        table=RUNS,
        column="status",
        value="ok",
        name="no number",
    ),
    case("phases-contradict-request", RUNS, CPU, "output_tokens", 1, also={"phase-contradicts-request"}),
    case("phase-contradicts-request", PHASES, ONE | PREFILL, "steps", 2),
    case("phase-contradicts-request", PHASES, THEIRS, "context_end_tokens", 5, severity="warning", name="import"),
)
POWER = (
    case("power-above-limit", RUNS, SERVER, "mean_power_w", 900.0, severity="warning"),
    Case(
        rule="power-above-limit",
        edits=(Edit(table=READINGS, where=OWN_WINDOW, values={"duration_s": scaled(0.4)}),),
        table=READINGS,
        column="energy_j",
        value=None,
        name="window",
    ),
    Case(
        rule="power-implausibly-low",
        edits=tuple(Edit(table=table, where=THEIRS, values={"duration_s": 10.0}) for table in (RUNS, PHASES, READINGS)),
        table=RUNS,
        column="energy_j",
        value="2.0",
        severity="warning",
    ),
    Case(
        rule="cpu-power-implausible",
        edits=(Edit(table=RUNS, where=CPU, values={"nodes": 1000}),),
        table=RUNS,
        column="energy_j",
        value=None,
    ),
    case("below-idle", RUNS, THEIRS, "idle_power_w", 210.0, finding=("energy_j", "2.0")),
    case(
        "far-below-idle",
        RUNS,
        THEIRS,
        "idle_power_w",
        300.0,
        finding=("energy_j", "2.0"),
        severity="warning",
        also={"below-idle"},
    ),
    case("mean-power-contradicts-energy", RUNS, THEIRS, "mean_power_w", 250.0),
    Case(
        rule="idle-power-contradicts-readings",
        edits=(Edit(table=READINGS, where=CPU | {"part": "idle"}, values={"duration_s": scaled(1.05)}),),
        table=RUNS,
        column="idle_power_w",
        value="10.0",
        also=frozenset({"kernel-energy-not-split"}),
    ),
    case("kernel-power-above-limit", ENERGIES, KERNEL, "energy_j", 13.0),
    Case(
        rule="kernel-power-impossible",
        edits=(Edit(table=ENERGIES, where=KERNEL, values={"energy_j": 26.0, "flags": "odd"}),),
        table=ENERGIES,
        column="energy_j",
        value="26",
        severity="note",
    ),
    case("kernel-energy-not-positive", ENERGIES, KERNEL, "energy_j", -1.0, severity="warning"),
    case("counter-contradicts-energy", READINGS, OWN_WINDOW, "counter_end_j", moved(500.0), finding=("energy_j", None)),
    case("counter-contradicts-energy", READINGS, CPU | {"part": "prefill", "trial": 0}, "passes", 0.0, name="no pass"),
)
LEDGER = (
    case(
        "phase-not-filled",
        PHASES,
        ONE | PREFILL,
        "host_gap_energy_j",
        scaled(1.001),
        finding=("energy_j", "5.3"),
    ),
    case("idle-energy-wrong", PHASES, ONE | PREFILL, "idle_energy_j", scaled(1.01)),
    case("kernel-energy-not-split", ENERGIES, REPLAYED, "active_energy_j", scaled(1.01)),
    case("ledger-does-not-add-up", RUNS, ONE, "residual_j", moved(0.01)),
    case("ledger-incomplete", RUNS, ONE, "ledger_method", None),
    case("ledger-open", RUNS, ONE, "residual_ci95_j", 1e-6, finding=("residual_j", None)),
    case("phases-differ-from-run", RUNS, CPU, "duration_s", scaled(1.2)),
    Case(
        rule="phases-contradict-run",
        edits=(
            Edit(table=PHASES, where=THEIRS, values={"energy_j": 1.0}),
            Edit(table=READINGS, where=THEIRS | {"part": "prefill"}, values={"energy_j": scaled(0.5)}),
        ),
        table=RUNS,
        column="energy_j",
        value="2.0",
        severity="warning",
        also=frozenset({"phases-differ-from-run"}),
    ),
)
TIME = (
    case("faster-than-roofline", KERNELS, KERNEL, "flop", 10**13, finding=("duration_s", "0.02"), severity="warning"),
    Case(
        rule="faster-than-roofline",
        edits=(Edit(table=KERNELS, where=KERNEL, values={"read_bytes": 10**11, "flags": "in cache"}),),
        table=KERNELS,
        column="duration_s",
        value="0.02",
        severity="note",
        name="bytes",
    ),
    case("kernels-longer-than-phase", KERNELS, TWO | PREFILL | {"kind": "all_reduce", "rank": 1}, "wait_s", 0.006),
    Case(
        rule="ranks-differ-from-gpus",
        edits=tuple(Edit(table=table, where=TWO | {"rank": 1}, values={"rank": 2}) for table in (KERNELS, ENERGIES)),
        table=KERNELS,
        column="rank",
        value="2",
    ),
    case("device-read-twice", READINGS, TWO | {"part": "run", "trial": 0}, "device_sha256", "0" * 64),
    case("memory-above-device", RUNS, ONE, "peak_memory_bytes", 90 * 1024**3),
    Case(
        rule="gpu-not-in-table",
        edits=tuple(
            Edit(table=table, where={"environment_id": "theirs"}, values={"gpu": "NVIDIA Z900"})
            for table in (RUNS, ENVIRONMENTS)
        ),
        table=RUNS,
        column="gpu",
        value="NVIDIA Z900",
    ),
)
PROVENANCE = (
    case("measured-without-counter", RUNS, ONE, "method", "virtual-counter"),
    case("measured-without-counter", READINGS, OWN_WINDOW, "meter", "codecarbon-cpu-load", name="window"),
    Case(
        rule="measured-without-counter",
        edits=(
            Edit(table=RUNS, where=CPU, values={"provenance": "measured", "method": "rapl"}),
            Edit(table=READINGS, where=CPU, values={"provenance": "measured", "meter": "rapl (package-0)"}),
        ),
        table=RUNS,
        column="provenance",
        value="measured",
        name="environment",
    ),
    case(
        "provenance-contradicts-device",
        RUNS,
        ONE,
        "configuration",
        '{"device":"virtual:a100-sxm","dtype":"auto","gpus":[1],"quality":"standard"}',
        finding=("provenance", "measured"),
    ),
    Case(
        rule="provenance-contradicts-device",
        edits=tuple(Edit(table=table, where=CPU, values={"provenance": "simulated"}) for table in (RUNS, READINGS)),
        table=RUNS,
        column="gpu",
        value="cpu: Example CPU",
        name="real name",
    ),
    case("provenance-contradicts-readings", READINGS, OWN_WINDOW, "provenance", "estimated"),
    case("provenance-contradicts-source", RUNS, ONE, "source", "somebody"),
    Case(
        rule="energy-without-readings",
        edits=(Gone(table=READINGS, where=CPU | {"part": "run"}),),
        table=RUNS,
        column="energy_j",
        value=None,
    ),
    case("energy-contradicts-readings", RUNS, THEIRS, "energy_j", 2.1, severity="warning"),
    case("configuration-contradicts-run", RUNS, CPU, "quality", "quick"),
    Case(
        rule="copied-run",
        edits=(
            *(
                Again(table=table, where=CPU, values={"run_id": "copy"})
                for table in (RUNS, PHASES, KERNELS, ENERGIES, READINGS)
            ),
        ),
        table=RUNS,
        column="energy_j",
        value=None,
        also=frozenset({"same-request-twice"}),
    ),
    Case(
        rule="equal-imports",
        edits=(*(Again(table=table, where=THEIRS, values={"run_id": "again"}) for table in (RUNS, PHASES, READINGS)),),
        table=RUNS,
        column="energy_j",
        value="2.0",
    ),
    case("import-with-own-columns", RUNS, SERVER, "lab", "Somebody"),
)
STATISTICS = (
    Case(
        rule="few-trials",
        edits=(
            Edit(table=RUNS, where=CPU, values={"trials": 4}),
            Edit(table=READINGS, where=CPU | {"part": "run", "trial": 2}, values={"rejected": "others at work"}),
        ),
        table=RUNS,
        column="trials",
        value="4",
    ),
    case("trials-contradict-readings", RUNS, ONE, "trials", 6),
    case("wide-interval", RUNS, CPU, "energy_ci95_j", scaled(6.0)),
    Case(
        rule="wide-interval-quick",
        edits=(
            Edit(
                table=RUNS,
                where=CPU,
                values={"energy_ci95_j": scaled(20.0), "quality": "quick", "configuration": '{"quality":"quick"}'},
            ),
        ),
        table=RUNS,
        column="energy_ci95_j",
        value=None,
    ),
    Case(
        rule="wide-spread",
        edits=(
            Edit(table=READINGS, where=THEIRS | {"trial": 0}, values={"energy_j": 1.3}),
            Edit(table=READINGS, where=THEIRS | {"trial": 2}, values={"energy_j": 2.7}),
        ),
        table=RUNS,
        column="energy_j",
        value="2.0",
    ),
    Case(
        rule="no-spread",
        edits=tuple(
            Edit(
                table=READINGS,
                where=ONE | {"part": "run", "trial": trial},
                values={
                    "energy_j": 1000.0,
                    "counter_start_j": 3e4 + 2000 * trial,
                    "counter_end_j": 3.1e4 + 2000 * trial,
                },
            )
            for trial in range(5)
        ),
        table=RUNS,
        column="energy_j",
        value=None,
        also=frozenset({"energy-contradicts-readings"}),
    ),
    Case(
        rule="same-request-twice",
        edits=(Again(table=RUNS, where={"run_id": "failed"}, values={"run_id": "once-more"}),),
        table=RUNS,
        column="run_id",
        value="once-more",
    ),
    Case(
        rule="unlike-comparable-runs",
        edits=(Again(table=RUNS, where=SERVER, values={"run_id": "other", "energy_j": 150.0}),),
        table=RUNS,
        column="energy_j",
        value=None,
    ),
)
CASES = (*VALUES, *KEYS, *POWER, *LEDGER, *TIME, *PROVENANCE, *STATISTICS)
