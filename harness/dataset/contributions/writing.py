"""Writing a bundle: equal runs and an equal lab give the same bytes, wherever and whenever it is written."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.dataset.contributions.archive import Content, write_archive
from harness.dataset.contributions.bundle import HEADER, MAX_BUNDLE_BYTES, Bundle, gpu_slug, header_text
from harness.dataset.contributions.choosing import Chosen
from harness.dataset.contributions.identity import Identity, Kind
from harness.dataset.contributions.publishing import Published, publish
from harness.dataset.disk import Disk, refusals, temporary
from harness.dataset.disk import publish as give_name
from harness.dataset.reading import Dataset
from harness.errors import CannotWrite


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBundle:
    """A bundle on the disk."""

    path: Path
    bundle: Bundle
    size_bytes: int
    removed: Mapping[Kind, int]  # how often something private was replaced


def write_bundle(
    datasets: Sequence[Dataset],
    chosen: Chosen,
    out: Path,
    *,
    lab: str,
    contact: str | None,
    identity: Identity,
) -> WrittenBundle:
    """Write the chosen runs as a bundle: into ``out`` if that is a folder, under a name of its own; else as ``out``.

    Raises ``CannotWrite`` and what reading the datasets raises.
    """
    with tempfile.TemporaryDirectory(prefix="joulegraph-") as folder:
        published = publish(datasets, chosen, Path(folder) / "tables", lab=lab, contact=contact, identity=identity)
        text = header_text(published.bundle)
        path = out / bundle_name(published.bundle) if out.is_dir() else out
        size_bytes = _written(path, text, published)
    return WrittenBundle(path=path, bundle=published.bundle, size_bytes=size_bytes, removed=published.removed)


def bundle_name(bundle: Bundle) -> str:
    """The name of a bundle's file; the same content has the same name."""
    digest = hashlib.sha256(header_text(bundle).encode()).hexdigest()[:12]
    return f"joulegraph-{bundle.lab}-{gpu_slug(bundle.gpu)}-{digest}.zip"


def _written(path: Path, text: str, published: Published) -> int:
    tables = [Content.of_file(file.name, published.path(file.table)) for file in published.bundle.files]
    size_bytes = len(text) + sum(file.size_bytes for file in published.bundle.files)
    if size_bytes > MAX_BUNDLE_BYTES:
        raise CannotWrite(
            f"The bundle would have {size_bytes / 1e6:.0f} MB, and at most {MAX_BUNDLE_BYTES / 1e6:.0f} are taken.\n"
            f"Split the campaign: submit the folders of several smaller ones, one after the other."
        )
    disk = Disk()
    with refusals(disk, path.parent, size_bytes):
        with disk.open_new(temporary(path)) as file:
            write_archive(file, [Content.of_bytes(HEADER, text.encode()), *tables])
        give_name(disk, path)
        return path.stat().st_size
