"""Everything in a release folder that people and machines read before the tables: written from the tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.dataset.coverage import coverage_text
from harness.dataset.disk import Disk, write_text
from harness.dataset.layout import CARD
from harness.dataset.manifest import Manifest, read_manifest
from harness.dataset.reading import open_dataset
from harness.dataset.release.citation import changelog, citation_cff
from harness.dataset.release.croissant import croissant
from harness.dataset.release.datasheet import datasheet
from harness.dataset.release.fact_records import ReleaseFacts
from harness.dataset.release.facts import collect_facts
from harness.dataset.release.figures import FOLDER, Figure, figures
from harness.dataset.release.licences import OWN, text_of
from harness.dataset.release.record import ReleaseRecord, read_record
from harness.dataset.release.release_card import card
from harness.dataset.schema import markdown
from harness.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file beside the tables; ``name`` is its path in the folder."""

    name: str
    text: str


def write_documents(folder: Path, disk: Disk | None = None) -> None:
    """Write all documents of a release again, from its tables, its manifest and its ``release.json``.

    Raises as ``read_record`` and ``open_dataset`` do, and ``OSError`` where the file system refuses.
    """
    disk = disk or Disk()
    record, manifest = read_record(folder), read_manifest(folder)
    if manifest is None:
        raise DatasetError(f"{folder} is no release: it has no manifest.json.\nRestore it from a copy.")
    facts = collect_facts(folder)
    drawn = figures(facts)
    for document in _documents(folder, record, facts, manifest, drawn):
        path = folder / document.name
        disk.make_folder(path.parent)
        write_text(disk, path, document.text)
    _remove_old_figures(disk, folder, drawn)


def _documents(
    folder: Path, record: ReleaseRecord, facts: ReleaseFacts, manifest: Manifest, drawn: tuple[Figure, ...]
) -> Iterator[Document]:
    yield from (Document(name=f"{FOLDER}/{figure.name}", text=figure.svg) for figure in drawn)
    yield Document(name="schema.md", text=markdown())
    yield Document(name="datasheet.md", text=datasheet(record, facts))
    yield Document(name="coverage.md", text=coverage_text(open_dataset(folder)))
    yield Document(name="CHANGELOG.md", text=changelog(record))
    yield Document(name="CITATION.cff", text=citation_cff(record, facts))
    yield from _licences(facts)
    yield Document(name="croissant.json", text=croissant(record, facts, manifest))
    yield Document(name=CARD, text=card(record, facts, tuple(figure.markdown for figure in drawn)))


def _licences(facts: ReleaseFacts) -> Iterator[Document]:
    """The licence of the compilation, and those of sources that ask for their text to go along."""
    for spdx in dict.fromkeys((OWN, *facts.licences)):
        text = text_of(spdx) if spdx else None
        if text is not None:
            yield Document(name="LICENSE" if spdx == OWN else f"LICENSES/{spdx}.txt", text=text)


def _remove_old_figures(disk: Disk, folder: Path, drawn: tuple[Figure, ...]) -> None:
    for path in (folder / FOLDER).glob("*.svg"):
        if path.name not in {figure.name for figure in drawn}:
            disk.remove(path)
