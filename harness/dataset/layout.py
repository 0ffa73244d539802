"""Which files in a dataset folder count, and which are left over from an interruption.

    README.md                          the card
    manifest.json                      lists the compacted files; what it lists is the dataset
    data/<table>/data-00000.parquet    compacted files
    data/<table>/part-<run_id>.parquet rows of one run that no compacted file holds yet
    data/<table>/bulk-<hash>.parquet   the same for runs that were appended together

A part counts once ``data/runs`` has a file of its name: that one is written last and commits the others. A part whose
runs are listed in the manifest's files, a part without its commit, a compacted file that is not listed and a temporary
file are leftovers: a crash left them, no content is lost with them.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.dataset.disk import temporary
from harness.dataset.files import damaged, read_batches
from harness.dataset.manifest import MANIFEST, Manifest, read_manifest
from harness.dataset.schema import Table
from harness.errors import CorruptFile, DatasetError

CARD = "README.md"
PART, BULK, COMPACTED = "part-", "bulk-", "data-"
_OWN = (PART, BULK, COMPACTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows appended together and not compacted yet; its name is that of its file in each table."""

    name: str
    run_ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a dataset folder holds."""

    manifest: Manifest | None
    parts: tuple[Part, ...]
    leftovers: tuple[Path, ...]


def table_folder(folder: Path, table: Table) -> Path:
    """Folder of the files of a table."""
    return folder / "data" / table.title


def survey(folder: Path) -> Contents:
    """Look a dataset folder through, without changing it.

    Raises ``CorruptFile`` where the manifest or a file that tells which runs there are is damaged, ``NewerSchema``,
    and ``DatasetError`` where the folder cannot be read.
    """
    manifest = read_manifest(folder)
    found = _own_files(folder)
    listed = {folder / file.path for file in manifest.files} if manifest else set()
    if gone := sorted(path for path in listed if not path.is_file()):
        raise damaged(gone[0], f"is listed in {MANIFEST} and missing")
    commits = sorted(path for path in found if path.parent.name == Table.RUNS.title and _is_part(path))
    unlisted = [path for path in found if path.name.startswith(COMPACTED) and path not in listed]
    compacted = compacted_run_ids(folder, manifest) if commits or unlisted else frozenset()
    parts = [Part(name=path.name, run_ids=_part_run_ids(path)) for path in commits]
    live = tuple(part for part in parts if not part.run_ids <= compacted)
    _refuse_unexplained(unlisted, compacted.union(*(part.run_ids for part in parts)))
    names = {part.name for part in live}
    leftovers = tuple(path for path in found if path not in listed and path.name not in names)
    return Contents(manifest=manifest, parts=live, leftovers=leftovers)


def files_of(folder: Path, contents: Contents, table: Table) -> tuple[Path, ...]:
    """Files that hold the rows of a table: compacted ones, then parts."""
    listed = contents.manifest.files_of(table) if contents.manifest else ()
    parts = [table_folder(folder, table) / part.name for part in contents.parts]
    return (*(folder / file.path for file in listed), *(path for path in parts if path.is_file()))


def compacted_run_ids(folder: Path, manifest: Manifest | None) -> frozenset[str]:
    """Runs in the files that the manifest lists."""
    files = manifest.files_of(Table.RUNS) if manifest else ()
    return frozenset().union(*(_run_ids(folder / file.path) for file in files))


def _own_files(folder: Path) -> list[Path]:
    """Files the store itself may have written; anything else in the folder is left alone."""
    try:
        in_tables = [
            path
            for table in Table
            if table_folder(folder, table).is_dir()
            for path in table_folder(folder, table).iterdir()
            if path.name.startswith(_OWN) and path.name.endswith((".parquet", ".parquet.tmp"))
        ]
        beside = [temporary(folder / name) for name in (MANIFEST, CARD)]
        return sorted([*in_tables, *(path for path in beside if path.is_file())])
    except OSError as error:
        raise DatasetError(
            f"{folder} cannot be read: {error.strerror}.\nCheck its permissions and the disk."
        ) from error


def _is_part(path: Path) -> bool:
    return path.name.startswith((PART, BULK)) and path.suffix == ".parquet"


def _part_run_ids(path: Path) -> frozenset[str]:
    if path.name.startswith(PART):  # the name says it, and a campaign may have thousands of them
        return frozenset({path.stem.removeprefix(PART)})
    return _run_ids(path)


def _run_ids(path: Path) -> frozenset[str]:
    batches = read_batches(path, Table.RUNS, ["run_id"])
    return frozenset(run_id for batch in batches for run_id in batch.column(0).to_pylist())


def _refuse_unexplained(unlisted: list[Path], run_ids: frozenset[str]) -> None:
    """A crash can leave compacted files that are not listed, but never one with runs that are nowhere else."""
    for path in unlisted:
        if path.parent.name == Table.RUNS.title and path.suffix == ".parquet" and not _run_ids(path) <= run_ids:
            raise CorruptFile(
                f"{path} holds runs that {MANIFEST} does not list, so {MANIFEST} was removed or replaced.\n"
                f"Restore it from a copy. Nothing was changed in the folder."
            )
