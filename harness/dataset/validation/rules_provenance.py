"""Rules about where numbers come from: nothing estimated, simulated or copied passes for a measurement."""

from harness.dataset.schema import Table
from harness.dataset.validation.findings import Severity
from harness.dataset.validation.relations import READINGS, RUNS
from harness.dataset.validation.rules import Relation, Rule, Test
from harness.records import Provenance

OWN_SOURCE = "joulegraph"  # how the harness's own sources begin
VIRTUAL_DEVICE = "virtual:"  # how a simulated device begins, in the plan and in `gpu`
# Words of meters that read no counter of this machine while it worked.
_NO_COUNTER = "estimate|codecarbon|cpu-load|tdp|virtual|simulat|replay|model"
_SAYS_NO_COUNTER = rf"regexp_matches({{}}, '(?i)\b({_NO_COUNTER})')"

_CONFIGURED = Relation(
    name="runs with their configuration",
    table=Table.RUNS,
    query="""
    SELECT
        *,
        configuration ->> '$.quality' AS wanted_quality,
        configuration ->> '$.device' AS wanted_device,
        configuration ->> '$.dtype' AS wanted_dtype,
        try_cast(configuration -> '$.gpus' AS BIGINT[]) AS wanted_gpus
    FROM (SELECT * REPLACE (CASE WHEN json_valid(configuration) THEN configuration END AS configuration) FROM runs)
    """,
)
# Two measurements are never equal to the last digit in both energy and time. Simulations and rounded figures may be.
_COPIES = Relation(
    name="runs with equal numbers",
    table=Table.RUNS,
    query="""
    SELECT
        *, provenance = 'imported' AS imported,
        first_value(run_id) OVER equal_numbers AS twin,
        row_number() OVER equal_numbers > 1 AS again
    FROM runs
    WHERE energy_j IS NOT NULL AND duration_s IS NOT NULL AND superseded_by IS NULL
    WINDOW equal_numbers AS (PARTITION BY provenance, energy_j, duration_s ORDER BY file, row)
    """,
)
_COPIED_WINDOWS = Relation(
    name="readings with equal counters",
    table=Table.READINGS,
    query="""
    SELECT
        *,
        first_value(run_id) OVER equal_numbers AS twin
    FROM readings
    WHERE counter_start_j IS NOT NULL AND counter_end_j IS NOT NULL AND duration_s IS NOT NULL
    WINDOW equal_numbers AS (
        PARTITION BY provenance, device_sha256, meter, counter_start_j, counter_end_j, duration_s ORDER BY file, row
    )
    """,
)

PROVENANCE_RULES = (
    Rule(
        name="measured-without-counter",
        severity=Severity.ERROR,
        checks="What is called measured was read from a hardware counter: no method, meter or environment of it names "
        "an estimate, a simulation or a replay.",
        remedy="Call it estimated or simulated, as the worker did.",
        tests=(
            Test(
                of=RUNS,
                column="method",
                broken=f"provenance = '{Provenance.MEASURED}' AND {_SAYS_NO_COUNTER.format('method')}",
                reason="'this is no hardware counter'",
            ),
            Test(
                of=RUNS,
                column="provenance",
                broken=f"provenance = '{Provenance.MEASURED}' AND "
                + _SAYS_NO_COUNTER.format("split_part(environment_meter, ';', 1)"),
                reason="format('the meter of its environment is {}', left(environment_meter, 100))",
            ),
            Test(
                of=READINGS,
                column="meter",
                broken=f"provenance = '{Provenance.MEASURED}' AND {_SAYS_NO_COUNTER.format('meter')}",
                reason="'this is no hardware counter'",
            ),
        ),
    ),
    Rule(
        name="provenance-contradicts-device",
        severity=Severity.ERROR,
        checks="A simulated run has a virtual device, and a run with a virtual device is simulated.",
        remedy="Call it simulated, and write `virtual: ` before the name of the device.",
        tests=(
            Test(
                of=RUNS,
                column="provenance",
                broken=f"provenance <> '{Provenance.SIMULATED}' AND (starts_with(lower(gpu), '{VIRTUAL_DEVICE}') "
                "OR starts_with(lower(device_name), 'virtual'))",
                reason="format('its device is {} ({})', gpu, coalesce(device_name, 'no environment'))",
            ),
            Test(
                of=_CONFIGURED,
                column="provenance",
                broken=f"provenance <> '{Provenance.SIMULATED}' AND starts_with(wanted_device, '{VIRTUAL_DEVICE}')",
                reason="format('its plan asked for the device {}', wanted_device)",
            ),
            Test(
                of=RUNS,
                column="gpu",
                broken=f"provenance = '{Provenance.SIMULATED}' AND NOT starts_with(lower(gpu), '{VIRTUAL_DEVICE}')",
                reason="'the run is simulated, and its device bears the name of a real one'",
            ),
        ),
    ),
    Rule(
        name="provenance-contradicts-readings",
        severity=Severity.ERROR,
        checks="Windows came about as their run did.",
        remedy="Correct the provenance of the run.",
        tests=(
            Test(
                of=READINGS,
                column="provenance",
                broken="provenance <> run_provenance",
                reason="format('the run is {}', run_provenance)",
            ),
        ),
    ),
    Rule(
        name="provenance-contradicts-source",
        severity=Severity.ERROR,
        checks="Numbers of others are imported; only the harness's own are measured, estimated or simulated.",
        remedy="Call it imported, and state its source and licence in `sources`.",
        tests=(
            Test(
                of=RUNS,
                column="source",
                broken=f"provenance <> '{Provenance.IMPORTED}' AND NOT starts_with(source, '{OWN_SOURCE}')",
                reason="format('the run is {}, and this is not the harness', provenance)",
            ),
            Test(
                of=RUNS,
                column="source",
                broken=f"provenance = '{Provenance.IMPORTED}' AND starts_with(source, '{OWN_SOURCE} ')",
                reason="'the run is imported, and this is the harness'",
            ),
        ),
    ),
    Rule(
        name="energy-without-readings",
        severity=Severity.ERROR,
        checks="The energy of a run of the harness's own comes from windows that are in `readings`.",
        remedy="Add the readings that the worker wrote: without them nobody can check the energy.",
        tests=(
            Test(
                of=RUNS,
                column="energy_j",
                broken="energy_j IS NOT NULL AND NOT imported AND coalesce(used_windows, 0) = 0",
                reason="'no window of its own that was used is in readings'",
            ),
        ),
    ),
    Rule(
        name="energy-contradicts-readings",
        severity=Severity.ERROR,
        checks="The energy of a run, and of a phase measured at one context, is the mean of its windows per pass; that "
        "of an imported run lies among its repeats.",
        tolerance="2 %: what idle power took before and after the work is estimated; repeats: 0.1 %, for rounding",
        remedy="Compute it anew from the windows; check units and passes.",
        softer_for_imports=True,
        tests=(
            Test(
                of=RUNS,
                column="energy_j",
                broken="CASE WHEN imported THEN energy_j NOT BETWEEN 0.999 * least_j AND 1.001 * most_j "
                "ELSE abs(energy_j / mean_j - 1) > 0.02 END",
                reason="format('{} windows say {:.5g} J ({:.5g} to {:.5g} J)', used_windows, mean_j, least_j, most_j)",
            ),
        ),
    ),
    Rule(
        name="configuration-contradicts-run",
        severity=Severity.ERROR,
        checks="The configuration stored with a run is that of the run: quality, dtype and number of GPUs.",
        remedy="Store the configuration of the campaign that made the run.",
        tests=(
            Test(
                of=_CONFIGURED,
                column="quality",
                broken="wanted_quality <> quality",
                reason="format('its plan asked for {}', wanted_quality)",
            ),
            Test(
                of=_CONFIGURED,
                column="dtype",
                broken="wanted_dtype <> 'auto' AND wanted_dtype <> dtype",
                reason="format('its plan asked for {}', wanted_dtype)",
            ),
            Test(
                of=_CONFIGURED,
                column="n_gpus",
                broken="n_gpus > 0 AND len(wanted_gpus) > 0 AND NOT contains(wanted_gpus, n_gpus)",
                reason="format('its plan asked for {} GPUs', wanted_gpus::VARCHAR)",
            ),
        ),
    ),
    Rule(
        name="copied-run",
        severity=Severity.ERROR,
        checks="No two measurements are equal to the last digit, in energy and time of the run or in counter and time "
        "of a window.",
        remedy="Remove the copy. A run that was made again has new numbers.",
        tests=(
            Test(
                of=_COPIES,
                column="energy_j",
                broken=f"again AND provenance IN ('{Provenance.MEASURED}', '{Provenance.ESTIMATED}')",
                reason="format('energy and time are those of run {}', twin)",
            ),
            Test(
                of=_COPIED_WINDOWS,
                column="counter_start_j",
                broken=f"twin <> run_id AND provenance IN ('{Provenance.MEASURED}', '{Provenance.ESTIMATED}')",
                reason="format('counter and time are those of a window of run {}', twin)",
            ),
        ),
    ),
    Rule(
        name="equal-imports",
        severity=Severity.NOTE,
        checks="Imported runs differ in energy or time.",
        remedy="Look whether the source has the run twice; figures that were rounded may be equal by chance.",
        tests=(
            Test(
                of=_COPIES,
                column="energy_j",
                broken=f"again AND provenance = '{Provenance.IMPORTED}'",
                reason="format('energy and time are those of run {}', twin)",
            ),
        ),
    ),
    Rule(
        name="import-with-own-columns",
        severity=Severity.WARNING,
        checks="Imported runs leave null what only the harness knows: lab, quality and configuration.",
        remedy="Write null, or call the run what it is.",
        tests=tuple(
            Test(
                of=RUNS,
                column=column,
                broken=f"provenance = '{Provenance.IMPORTED}' AND {column} IS NOT NULL",
                reason="'only runs of the harness itself have it'",
            )
            for column in ("lab", "quality", "configuration")
        ),
    ),
)
