"""Validation of a dataset folder: whole or still being written, of one's own or of a stranger."""

from collections.abc import Sequence
from pathlib import Path

from harness.dataset.layout import files_of, survey
from harness.dataset.manifest import MANIFEST
from harness.dataset.schema import Table
from harness.dataset.validation.catalogue import JOINED_RULES
from harness.dataset.validation.documents import document_findings
from harness.dataset.validation.engine import EXAMPLES, Inspection, inspecting
from harness.dataset.validation.facts import FACT_TABLES
from harness.dataset.validation.files import (
    MANIFEST_DAMAGED,
    NOT_ASKED,
    NOT_CLOSED,
    DataFile,
    file_finding,
    look_through,
)
from harness.dataset.validation.findings import Finding, TableRows, ValidationReport, ordered
from harness.dataset.validation.limits import Limits
from harness.dataset.validation.rules_statistics import COMPARED
from harness.dataset.validation.rules_structure import structure_rules, too_long
from harness.errors import DatasetError

MEMORY_BYTES = 1_000_000_000  # for DuckDB; the process takes a few hundred megabytes beside it


def validate(
    folder: Path,
    *,
    memory_bytes: int = MEMORY_BYTES,
    reference: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> ValidationReport:
    """Hold a dataset folder against all rules; ``reference`` is a dataset with whose runs its runs are compared.

    Whatever is wrong with the dataset is a finding. Raises ``DatasetError`` where the folder holds no dataset, cannot
    be read at all, or memory does not suffice, and for a ``reference`` that cannot be used.
    """
    looked = look_through(folder, limits)
    findings = list(looked.findings)
    with inspecting(memory_bytes) as inspection:
        unreadable = inspection.unreadable(folder, looked.files, limits)
        findings += [file_finding(bad.rule, bad.file.name, bad.reason, table=bad.file.table) for bad in unreadable]
        files = tuple(file for file in looked.files if file not in {bad.file for bad in unreadable})
        whole = looked.whole and not unreadable
        if not whole:
            inspection.show(folder, files)
        long_texts = tuple(inspection.ask([too_long(limits)]))
        findings += long_texts
        if whole and not long_texts:
            files, told = _that_count(folder, files)
            findings += told
            inspection.show(folder, files)
        if not long_texts:
            findings += inspection.ask(structure_rules())
            findings += document_findings(inspection.connection, examples=EXAMPLES)
        if whole and not long_texts:
            findings += _of_rows_together(inspection, reference, limits)
        else:
            findings.append(file_finding(NOT_ASKED, None, "keys, physics and statistics were not looked at"))
    return _report(folder, files, findings)


def _of_rows_together(inspection: Inspection, reference: Path | None, limits: Limits) -> list[Finding]:
    """What rules find that need rows of several tables, or of another dataset."""
    compared = () if reference is None else _reference_files(reference, limits)
    inspection.show(reference or Path(), compared, prefix="reference_")
    return list(inspection.ask_together((*FACT_TABLES, COMPARED), JOINED_RULES))


def _that_count(folder: Path, files: Sequence[DataFile]) -> tuple[tuple[DataFile, ...], tuple[Finding, ...]]:
    """Files that count, without what an interruption left over; and whether the manifest covers them."""
    try:
        contents = survey(folder)
    except DatasetError as error:
        return tuple(files), (file_finding(MANIFEST_DAMAGED, MANIFEST, str(error).splitlines()[0]),)
    counting = {path for table in Table for path in files_of(folder, contents, table)}
    found = tuple(file for file in files if folder / file.name in counting)
    if contents.manifest is not None and not contents.parts:
        return found, ()
    why = "there is no manifest yet" if contents.manifest is None else f"{len(contents.parts)} runs are not in it yet"
    return found, (file_finding(NOT_CLOSED, MANIFEST, why),)


def _reference_files(reference: Path, limits: Limits) -> tuple[DataFile, ...]:
    looked = look_through(reference, limits)
    if not looked.whole:
        raise DatasetError(
            f"{reference} cannot be compared with: {looked.findings[0].file}: {looked.findings[0].reason}.\n"
            f"Validate it first: python -m harness.validate {reference}"
        )
    return tuple(file for file in _that_count(reference, looked.files)[0])


def _report(folder: Path, files: Sequence[DataFile], findings: Sequence[Finding]) -> ValidationReport:
    rows = {table: sum(file.rows for file in files if file.table is table) for table in Table}
    return ValidationReport(
        folder=folder,
        rows=tuple(TableRows(table=table, rows=count) for table, count in rows.items()),
        findings=ordered(findings),
    )
