"""Opening a bundle from a stranger: what it says is checked before anything in it is read, and it is read apart.

    1. the file's size, then the archive's form (``archive``): names, sizes and places, without reading content
    2. ``bundle.json``: at most 64 KiB, canonical; it limits what the tables may hold
    3. each table's bytes: as many as promised, with the hash that is promised
    4. the tables themselves, in a process of their own (``decoding``)

What comes out is a folder that holds a dataset written by us.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.dataset.contributions.archive import BadArchive, Member, read_content, read_members
from harness.dataset.contributions.bundle import (
    HEADER,
    MAX_BUNDLE_BYTES,
    MAX_HEADER_BYTES,
    BadHeader,
    Bundle,
    BundledFile,
    member_names,
    parse_header,
)
from harness.dataset.contributions.decoding import HEADER_COPY, Decode, Undecodable
from harness.dataset.disk import Disk, refusals
from harness.dataset.files import file_sha256
from harness.dataset.manifest import MANIFEST, ListedFile, Manifest, manifest_text
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.schema import Table
from harness.errors import CorruptFile, DatasetError
from harness.records import SCHEMA_VERSION

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBundle:
    """A bundle whose tables were read."""

    bundle: Bundle
    sha256: str  # of the whole file
    dataset: Dataset  # its rows, in files of our own


def open_bundle(path: Path, folder: Path, decode: Decode) -> OpenedBundle:
    """Read a bundle into an empty folder of ours.

    Raises ``CorruptFile`` for a file that is no bundle in every respect, ``NewerSchema``, and ``DatasetError`` where
    it may not be read.
    """
    try:
        with _opened(path) as file, refusals(Disk(), folder, 2 * MAX_BUNDLE_BYTES):
            bundle, sha256 = _unpacked(file, os.fstat(file.fileno()).st_size, folder)
        decode(folder)
        return OpenedBundle(bundle=bundle, sha256=sha256, dataset=_dataset(folder, bundle))
    except (BadArchive, BadHeader, Undecodable) as error:
        raise CorruptFile(
            f"{_shown(path)} is no bundle: {error}.\n"
            f"Nothing of it was taken. Ask for it again; `python -m harness.submit DIR` writes one."
        ) from error


def _opened(path: Path) -> BinaryIO:
    try:
        if path.exists() and not path.is_file():
            raise BadArchive("it is no regular file")  # a pipe would be waited for for ever
        return path.open("rb")
    except OSError as error:
        raise DatasetError(
            f"{_shown(path)} cannot be read: {error.strerror}.\nCheck the path and its permissions."
        ) from error


def _shown(path: Path) -> str:
    """The name of a stranger's file, which may hold what a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))


def _unpacked(file: BinaryIO, size_bytes: int, folder: Path) -> tuple[Bundle, str]:
    if size_bytes > MAX_BUNDLE_BYTES:
        raise BadArchive(f"it has {size_bytes} bytes, and a bundle has at most {MAX_BUNDLE_BYTES}")
    members = read_members(file, size_bytes, member_names())
    if not members or members[0].name != HEADER or members[0].size_bytes > MAX_HEADER_BYTES:
        raise BadArchive(f"it does not begin with a {HEADER} of at most {MAX_HEADER_BYTES} bytes")
    header = b"".join(read_content(file, members[0]))
    bundle = parse_header(header)
    if [member.name for member in members[1:]] != [listed.name for listed in bundle.files]:
        raise BadArchive(f"its tables are not those that {HEADER} lists")
    if Table.RUNS not in {listed.table for listed in bundle.files}:
        raise BadArchive("it holds no runs")
    (folder / "given").mkdir()
    (folder / HEADER_COPY).write_bytes(header)
    _copy_tables(file, members[1:], bundle.files, folder / "given")
    return bundle, _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _copy_tables(file: BinaryIO, members: Sequence[Member], listed: Sequence[BundledFile], folder: Path) -> None:
    for member, promised in zip(members, listed, strict=True):
        if member.size_bytes != promised.size_bytes:
            raise BadArchive(f"{member.name} has {member.size_bytes} bytes, {HEADER} says {promised.size_bytes}")
        digest = hashlib.sha256()
        with (folder / f"{promised.table.title}.parquet").open("xb") as copy:
            for chunk in read_content(file, member):
                digest.update(chunk)
                copy.write(chunk)
        if digest.hexdigest() != promised.sha256:
            raise BadArchive(f"{member.name} is not the file that {HEADER} lists: its sha256 differs")


def _dataset(folder: Path, bundle: Bundle) -> Dataset:
    files = [_listed(folder, each) for each in bundle.files]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        campaign_id=None,
        harness=bundle.harness,
        created_utc=bundle.created_utc,
        files=tuple(files),
    )
    (folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    return open_dataset(folder)


def _listed(folder: Path, file: BundledFile) -> ListedFile:
    place = f"data/{file.table.title}/data-00000.parquet"
    path = folder / place
    return ListedFile(
        table=file.table, path=place, sha256=file_sha256(path), size_bytes=path.stat().st_size, rows=file.rows
    )
