"""Rules about single values: each column holds what its row class says it holds, and nothing that deceives a reader."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from harness.dataset.schema import Column, Table, columns_of
from harness.dataset.validation.findings import Severity
from harness.dataset.validation.limits import Limits
from harness.dataset.validation.relations import RAW
from harness.dataset.validation.rules import Rule, Test, quoted
from harness.records import SCHEMA_VERSION

# Text of people, of programs and JSON may be long and have several lines; all other text is a name.
_TEXTS = frozenset(
    {
        *("status_detail", "clipped", "configuration", "calibration", "kernels", "edges", "topology", "meter", "os"),
        *("shape", "variant", "measured_contexts", "flags", "how", "rejected", "title", "url", "licence", "citation"),
        *("measured", "derived", "prompts", "device_name", "cpu"),
    }
)
# Names that only ASCII is used for: another letter in them looks like one that is meant, and is another name.
_ASCII = frozenset(
    {
        *("run_id", "campaign_id", "environment_id", "graph_id", "source", "config_sha256", "device_sha256", "dtype"),
        *(
            "quantization",
            "runtime",
            "attention",
            "gpu",
            "parallelism",
            "method",
            "kernel_id",
            "op",
            "device",
            "driver",
        ),
    }
)
# Differences and what is measured against an arbitrary origin may be below 0, as may an energy that is a difference.
_SIGNED = frozenset(
    {
        *("residual_j", "ledger_kernels_j", "ledger_gaps_j", "active_energy_j", "wait_energy_j", "disagreement"),
        *("counter_start_j", "counter_end_j", "started_s", "t_s"),
    }
)
_COLD = "temperature_c"  # may be below 0, and is not 0.0 by chance
_SIGNED_IN = frozenset({(Table.KERNEL_ENERGIES, "energy_j")})
# Where 0 is an answer. In every other number it stands for "missing".
_MAY_BE_ZERO = frozenset(
    {
        *("n_gpus", "n_devices", "output_tokens", "mean_output_tokens", "rank", "node", "trial", "passes"),
        *("flop", "read_bytes", "write_bytes", "link_bytes", "wait_s", "graph_kernel", "lead_s", "tail_s"),
        *("context_start_tokens", "context_end_tokens", "host_gap_energy_j", "throttle_reasons", "uncertainty_j"),
        *("energy_ci95_j", "energy_systematic95_j", "duration_ci95_s", "residual_ci95_j", "schema_version"),
        "meter_step_s",  # rounded to milliseconds
    }
)
_MAY_BE_ZERO_IN = frozenset(
    {
        (Table.GRAPHS, "context_tokens"),
        (Table.KERNELS, "duration_s"),  # shorter than the clock of the trace
        (Table.KERNELS, "traced_duration_s"),
        (Table.RANK_TIMES, "duration_s"),
    }
)
_HASHES = frozenset({"config_sha256", "device_sha256"})
_INVISIBLE = r"\x{80}-\x{9f}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}\x{feff}\x{fff9}-\x{fffb}"
_NUMBER = r"-?(0|[1-9][0-9]*)"
_NAME = r'"[^"\\\x00-\x1f]*"'
_SCALAR = rf"({_NAME}|{_NUMBER}(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null)"


def _object_of(value: str) -> str:
    return rf"\{{\s*({_NAME}\s*:\s*{value}\s*(,\s*{_NAME}\s*:\s*{value}\s*)*)?\}}"


# JSON of rows that a dataset may have millions of. Other JSON is read in Python, by ``documents``.
_FORMS = {
    (Table.KERNELS, "shape"): (_object_of(_NUMBER), 'a JSON object of whole numbers, such as {"m":512,"n":576}'),
    (Table.KERNELS, "variant"): (_object_of(_SCALAR), "a JSON object of texts, numbers and truth values"),
    (Table.READINGS, "kernels"): (_object_of(_object_of(_NUMBER)), "JSON {phase: {kernel_id: launches}}"),
    (Table.PHASES, "measured_contexts"): (rf"\[\s*{_NUMBER}\s*(,\s*{_NUMBER}\s*)*\]", "a JSON list of whole numbers"),
}


def structure_rules() -> tuple[Rule, ...]:
    """The rules of this module but for ``too_long``, which comes before all others."""
    return (*_TEXT_RULES, *_NUMBER_RULES, *_WORD_RULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A column of a table."""

    table: Table
    column: Column

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def is_name(self) -> bool:
        return self.column.scalar is str and self.column.choices is None and self.name not in _TEXTS

    @property
    def is_text(self) -> bool:
        """Text that is no name."""
        return self.column.scalar is str and self.column.choices is None and self.name in _TEXTS

    @property
    def is_number(self) -> bool:
        return self.column.scalar in (int, float)

    def is_in(self, names: frozenset[str], places: frozenset[tuple[Table, str]] = frozenset()) -> bool:
        return self.name in names or (self.table, self.name) in places


_PLACES = tuple(_Place(table=table, column=column) for table in Table for column in columns_of(table))


def _tests(places: Iterable[_Place], broken: str, reason: str) -> tuple[Test, ...]:
    """A test of every column; ``{column}`` in the texts is its name."""
    return tuple(
        Test(
            of=RAW[place.table],
            column=place.name,
            broken=broken.replace("{column}", place.name),
            reason=reason.replace("{column}", place.name),
        )
        for place in places
    )


_NAMES = tuple(place for place in _PLACES if place.is_name)
_LONG_TEXTS = tuple(place for place in _PLACES if place.is_text)
_NUMBERS = tuple(place for place in _PLACES if place.is_number)


def too_long(limits: Limits) -> Rule:
    """The rule about the length of texts: before it is asked nothing holds a text in memory."""
    names = _tests(
        _NAMES,
        f"strlen({{column}}) > {limits.name_bytes}",
        f"format('{{}} bytes, and a name has at most {limits.name_bytes}', strlen({{column}}))",
    )
    texts = _tests(
        _LONG_TEXTS,
        f"strlen({{column}}) > {limits.text_bytes}",
        f"format('{{}} bytes, and a text has at most {limits.text_bytes}', strlen({{column}}))",
    )
    return Rule(
        name="text-too-long",
        severity=Severity.ERROR,
        checks="A text is no longer than a reader can be asked to hold.",
        tolerance=f"names {limits.name_bytes} bytes, other text {limits.text_bytes} bytes: far above all that is known",
        remedy="Shorten it; a value of this size is a mistake, or made to harm.",
        tests=(*names, *texts),
    )


_TEXT_RULES = (
    Rule(
        name="unprintable-text",
        severity=Severity.ERROR,
        checks="Text has no control characters, and none that are invisible or turn the direction of reading; names "
        "are in one line and not empty.",
        remedy="Write the text anew without these characters.",
        tests=(
            *_tests(
                _NAMES,
                rf"regexp_matches({{column}}, '[\x00-\x1f\x7f{_INVISIBLE}]') OR trim({{column}}) <> {{column}} "
                "OR {column} = ''",
                "'empty, or it holds a control character, an invisible one, or space at an end'",
            ),
            *_tests(
                _LONG_TEXTS,
                rf"regexp_matches({{column}}, '[\x00-\x08\x0b-\x1f\x7f{_INVISIBLE}]')",
                "'it holds a control character, or an invisible one'",
            ),
        ),
    ),
    Rule(
        name="text-not-normalised",
        severity=Severity.ERROR,
        checks="Names are in Unicode's composed form (NFC), so that equal names are equal bytes.",
        remedy="Normalise the text to NFC.",
        tests=_tests(_NAMES, "nfc_normalize({column}) <> {column}", "'it is not in Unicode form NFC'"),
    ),
    Rule(
        name="look-alike-name",
        severity=Severity.ERROR,
        checks="Names of hardware, software, operators and identifiers are ASCII: a letter of another alphabet in them "
        "looks like the one that is meant, and makes another name.",
        remedy="Write the name with ASCII letters.",
        tests=_tests(
            [place for place in _NAMES if place.is_in(_ASCII)],
            r"regexp_matches({column}, '[^\x00-\x7f]')",
            r"format('U+{:04X} is not ASCII', unicode(regexp_extract({column}, '[^\x00-\x7f]')))",
        ),
    ),
    Rule(
        name="model-not-ascii",
        severity=Severity.WARNING,
        checks="Names of models and labs are ASCII, as Hub ids are.",
        remedy="Compare the name letter by letter with the one that is meant.",
        tests=_tests(
            [place for place in _NAMES if place.is_in(frozenset({"model", "lab"}))],
            r"regexp_matches({column}, '[^\x00-\x7f]')",
            r"format('U+{:04X} is not ASCII', unicode(regexp_extract({column}, '[^\x00-\x7f]')))",
        ),
    ),
    Rule(
        name="malformed-hash",
        severity=Severity.ERROR,
        checks="A sha256 is 64 hexadecimal digits in lower case.",
        remedy="Write the hash itself, or null where it is not known.",
        tests=_tests(
            [place for place in _NAMES if place.is_in(_HASHES)],
            "NOT regexp_full_match({column}, '[0-9a-f]{64}')",
            "'no sha256 in hexadecimal digits'",
        ),
    ),
    Rule(
        name="malformed-id",
        severity=Severity.ERROR,
        checks="A run_id can be part of a file name.",
        remedy="Use letters, digits, `_`, `.` and `-`, at most 128 of them, not beginning with `.` or `-`.",
        tests=(
            Test(
                of=RAW[Table.RUNS],
                column="run_id",
                broken="NOT regexp_full_match(run_id, '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}')",
                reason="'it cannot be part of a file name'",
            ),
        ),
    ),
    Rule(
        name="malformed-json",
        severity=Severity.ERROR,
        checks="A column of JSON holds JSON of the form that the schema states.",
        remedy="Write it with a JSON library, in the form stated in dataset_card/schema.md.",
        tests=tuple(
            Test(
                of=RAW[table],
                column=column,
                broken=f"NOT regexp_full_match({column}, {quoted(pattern)})",
                reason=quoted(f"it is not {form}"),
            )
            for (table, column), (pattern, form) in _FORMS.items()
        ),
    ),
)


def _earliest_and_latest() -> Iterable[Test]:
    written = "try_cast(started_at_utc AS TIMESTAMP)"
    latest = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d")
    yield Test(
        of=RAW[Table.RUNS],
        column="started_at_utc",
        broken=f"started_at_utc IS NOT NULL AND ({written} IS NULL OR NOT starts_with(started_at_utc, '20'))",
        reason="'it is not a time in ISO 8601 of this century'",
    )
    yield Test(
        of=RAW[Table.RUNS],
        column="started_at_utc",
        broken=f"{written} > TIMESTAMP '{latest} 23:59:59'",
        reason="'it lies in the future'",
    )


_NUMBER_RULES = (
    Rule(
        name="not-finite",
        severity=Severity.ERROR,
        checks="A number is neither infinite nor NaN.",
        remedy="Write null for what is not known.",
        tests=_tests(
            [place for place in _NUMBERS if place.column.scalar is float],
            "NOT isfinite({column})",
            "'it is infinite, or not a number'",
        ),
    ),
    Rule(
        name="negative-number",
        severity=Severity.ERROR,
        checks="Counts, times, energies, powers and half widths are not below 0 (differences may be).",
        remedy="Look for a difference taken the wrong way round; write null for what is not known.",
        tests=_tests(
            [place for place in _NUMBERS if not place.is_in(_SIGNED | {_COLD}, _SIGNED_IN)],
            "{column} < 0",
            "'it cannot be below 0'",
        ),
    ),
    Rule(
        name="zero-for-missing",
        severity=Severity.ERROR,
        checks="0 stands for none, never for missing: no run takes 0 J or 0 s, no device has 0 bytes of memory.",
        remedy="Write null for what is not known.",
        tests=_tests(
            [place for place in _NUMBERS if not place.is_in(_SIGNED | _MAY_BE_ZERO, _MAY_BE_ZERO_IN)],
            "{column} = 0",
            "'0 is not possible here: it stands for a value that is missing'",
        ),
    ),
    Rule(
        name="wrong-schema-version",
        severity=Severity.ERROR,
        checks=f"schema_version is 1 to {SCHEMA_VERSION}, the version of this harness.",
        remedy="Update the harness, or write the version that the row was made with.",
        tests=(
            Test(
                of=RAW[Table.RUNS],
                column="schema_version",
                broken=f"schema_version NOT BETWEEN 1 AND {SCHEMA_VERSION}",
                reason=quoted(f"this harness knows the versions 1 to {SCHEMA_VERSION}"),
            ),
        ),
    ),
    Rule(
        name="malformed-time",
        severity=Severity.ERROR,
        checks="started_at_utc is ISO 8601 and not in the future.",
        tolerance="a day, for clocks that are wrong",
        remedy="Write it as 2026-11-23T10:00:00+00:00; set the clock of the machine.",
        tests=tuple(_earliest_and_latest()),
    ),
)

_WORD_RULES = (
    Rule(
        name="unknown-word",
        severity=Severity.ERROR,
        checks="A column with a fixed vocabulary holds one of its words.",
        remedy="Use one of the words that dataset_card/schema.md lists for the column.",
        tests=tuple(
            Test(
                of=RAW[place.table],
                column=place.name,
                broken=f"{place.name} NOT IN ({', '.join(map(quoted, place.column.choices))})",
                reason=quoted(f"it is none of {', '.join(place.column.choices)}"),
            )
            for place in _PLACES
            if place.column.choices
        ),
    ),
)
