"""The contributor's side: a dataset folder into a bundle that a maintainer would take, or the reasons why not."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.dataset.contributions.bundle import LAB_FORM, is_lab
from harness.dataset.contributions.choosing import Chosen, choose
from harness.dataset.contributions.decoding import Decode, decode_apart
from harness.dataset.contributions.identity import Identity
from harness.dataset.contributions.inspecting import Validate, inspect, validated
from harness.dataset.contributions.objections import Objection
from harness.dataset.contributions.opening import open_bundle
from harness.dataset.contributions.pack import reference_pack
from harness.dataset.contributions.writing import WrittenBundle, write_bundle
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.validation.findings import Finding
from harness.errors import DatasetError, UsageError
from harness.records import EnvironmentRow, Quality

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is to be submitted, and by whom."""

    folders: tuple[Path, ...]  # of the campaign; then of the reference pack, if that is another one
    lab: str
    contact: str | None = None
    gpu: str | None = None  # null: the one there is
    include: frozenset[str] = frozenset()  # simulated, quick: for rehearsals
    out: Path  # file of the bundle, or a folder for it

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a name that no lab has."""
        if not is_lab(self.lab):
            raise UsageError(f"--lab {self.lab[:60]!r} is no name of a lab.\nWrite {LAB_FORM}.")
        if self.contact is not None and not (self.contact.isascii() and self.contact.isprintable()):
            raise UsageError("--contact holds what cannot be printed in ASCII.\nWrite an address or a link.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A bundle that was written and would be taken, as far as can be told without the release."""

    written: WrittenBundle
    chosen: Chosen
    environments: tuple[EnvironmentRow, ...]  # as they are published
    warnings: tuple[Finding, ...]


def prepare(
    submission: Submission,
    identity: Identity,
    *,
    validate: Validate | None = None,
    decode: Decode = decode_apart,
) -> Prepared:
    """Validate, choose, write and inspect; raises ``DatasetError`` and ``UsageError`` with what is to be done.

    No bundle is left behind where it would not be taken.
    """
    for folder in submission.folders:
        _refuse_faulty(folder, (validate or validated)(folder, None).errors)
    datasets = [open_dataset(folder) for folder in submission.folders]
    chosen = choose(datasets, gpu=submission.gpu, include=submission.include)
    _refuse_without_pack(chosen)
    _refuse_other_machine(datasets, chosen)
    written = write_bundle(
        datasets, chosen, submission.out, lab=submission.lab, contact=submission.contact, identity=identity
    )
    try:
        return _inspected(written, chosen, submission.include, validate, decode)
    except BaseException:
        written.path.unlink(missing_ok=True)
        raise


def _inspected(
    written: WrittenBundle, chosen: Chosen, include: frozenset[str], validate: Validate | None, decode: Decode
) -> Prepared:
    with tempfile.TemporaryDirectory(prefix="joulegraph-") as folder:
        given = open_bundle(written.path, Path(folder), decode)
        found = inspect(given, None, include=include, validate=validate)
        environments = tuple(given.dataset.rows(EnvironmentRow))
    if found.objections:
        raise DatasetError(f"The bundle would not be taken:\n{_told(found.objections)}\nNothing was written or sent.")
    return Prepared(written=written, chosen=chosen, environments=environments, warnings=found.warnings)


def _told(objections: Sequence[Objection]) -> str:
    lines = [f"  {each.rule}: {each.reason}\n    {each.remedy}" for each in objections[:_SHOWN]]
    more = len(objections) - _SHOWN
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def _refuse_faulty(folder: Path, errors: Sequence[Finding]) -> None:
    if not errors:
        return
    shown = "\n".join(
        f"  {'' if each.table is None else each.table.title} {each.rule}: {each.reason}" for each in errors[:_SHOWN]
    )
    raise DatasetError(
        f"{folder} has errors and cannot be submitted:\n{shown}\n"
        f"`python -m harness.validate {folder}` lists all of them, with what to do."
    )


def _refuse_without_pack(chosen: Chosen) -> None:
    if not chosen.lacks:
        return
    device = " --device cpu" if chosen.gpu.startswith("cpu: ") else ""
    raise DatasetError(
        f"{reference_pack().name} is not complete on {chosen.gpu}: {', '.join(map(str, chosen.lacks))} "
        f"{'is' if len(chosen.lacks) == 1 else 'are'} missing. By it labs are compared.\n"
        f"Run `python -m harness.run --reference-pack{device} --out PACK` on the same machine, then submit with "
        "--pack PACK."
    )


def _refuse_other_machine(datasets: Sequence[Dataset], chosen: Chosen) -> None:
    """The pack says something about the other runs only if it was made on the same set-up."""
    part = reference_pack().part_for(chosen.gpu)
    qualities = frozenset(Quality)
    of_pack = {run.environment_id for run in chosen.runs if part.has(run, qualities)}
    of_others = {run.environment_id for run in chosen.runs if not part.has(run, qualities)}
    machines = {row.environment_id: _machine(row) for dataset in datasets for row in dataset.rows(EnvironmentRow)}
    pack, others = _those(machines, of_pack), _those(machines, of_others)
    if others and not pack & others:
        raise DatasetError(
            f"The reference pack was run on another set-up than the rest: {', '.join(sorted(pack))}, not "
            f"{', '.join(sorted(others))}.\nRun it where the campaign was run, at the same power limit."
        )


def _those(machines: dict[str, str], environment_ids: Iterable[str | None]) -> set[str]:
    return {machines[each] for each in environment_ids if each in machines}


def _machine(row: EnvironmentRow) -> str:
    limit = "" if row.power_limit_w is None else f" at {row.power_limit_w:g} W"
    return f"{row.device_name}{limit} with {row.cpu}"
