"""The container of a bundle: the one way in which a few files may lie in a ZIP.

A ZIP can hold the same files in endless ways, and readers disagree about many of them: names that leave the folder,
entries that overlap, are there twice, are encrypted, or inflate to a thousand times their size. So there is one form
here, and a file that is in any other is refused before anything in it is looked at::

    local header, content        once per member, in order, each right after the one before
    central directory            the same members in the same order
    end record                   the last 22 bytes

Members are stored, not compressed (Parquet is compressed already), names are ASCII, and there are no flags, extra
fields, comments and times. Any ZIP tool reads it. Layout of the records: APPNOTE.TXT 6.3.10, PKWARE.
"""

import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

MAX_ARCHIVE_BYTES = 1 << 30  # below 4 GiB, so there are no 64-bit records
_MAX_MEMBERS = 32
_MAX_NAME_BYTES = 64
_CHUNK_BYTES = 1 << 20
_VERSION, _UNIX = 20, 3 << 8
_DATE = 0x21  # 1 January 1980, the earliest there is
_MODE = 0o100644 << 16
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")


class BadArchive(ValueError):
    """A file that is no archive of the one form; its text says where it differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file to be put into an archive, opened anew each time it is read."""

    name: str
    open: Callable[[], AbstractContextManager[BinaryIO]]

    @classmethod
    def of_file(cls, name: str, path: Path) -> "Content":
        """The content of a file."""
        return cls(name=name, open=lambda: path.open("rb"))

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "Content":
        """These bytes."""
        return cls(name=name, open=lambda: BytesIO(content))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in an archive: where its content lies."""

    name: str
    crc32: int
    size_bytes: int
    offset: int  # of its local header

    @property
    def start(self) -> int:
        """Where its content begins."""
        return self.offset + len(_local_record(self))

    @property
    def end(self) -> int:
        """Where its content ends."""
        return self.start + self.size_bytes


def write_archive(out: BinaryIO, contents: Sequence[Content]) -> None:
    """Write an archive; equal contents give equal bytes. Raises ``OSError``."""
    members: list[Member] = []
    for content in contents:
        member = _measured(content, offset=members[-1].end if members else 0)
        members.append(member)
        out.write(_local_record(member))
        with content.open() as file:
            out.writelines(_chunks(file, member.size_bytes))
    out.write(_directory(members))


def read_members(file: BinaryIO, size_bytes: int, names: Collection[str]) -> tuple[Member, ...]:
    """The members of an archive of the one form, all of whose names are among ``names``.

    Raises ``BadArchive``. Reads no content: at most a few kilobytes, whatever the archive claims.
    """
    if not _END.size <= size_bytes <= MAX_ARCHIVE_BYTES:
        raise BadArchive(f"it has {size_bytes} bytes, and a bundle has at most {MAX_ARCHIVE_BYTES}")
    file.seek(size_bytes - _END.size)
    end = file.read(_END.size)
    signature, _, _, _, count, directory_bytes, start, _ = _END.unpack(end)
    longest = _MAX_MEMBERS * (_CENTRAL.size + _MAX_NAME_BYTES)
    if signature != b"PK\5\6" or count > _MAX_MEMBERS or directory_bytes > longest:
        raise BadArchive("it does not end as a bundle does: cut off, or something was added to it")
    if start + directory_bytes + _END.size != size_bytes:
        raise BadArchive("its directory is not where it should be: cut off, or something was added to it")
    file.seek(start)
    directory = file.read(directory_bytes)
    members = _members(directory, count, names)
    if (members[-1].end if members else 0) != start or directory + end != _directory(members):
        raise BadArchive("its members do not lie one after the other, or have properties a bundle's do not have")
    for member in members:
        file.seek(member.offset)
        if file.read(member.start - member.offset) != _local_record(member):
            raise BadArchive(f"the header of {member.name} says something else than the directory")
    return members


def read_content(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """The content of a member, in pieces; raises ``BadArchive`` at its end where its checksum is wrong."""
    file.seek(member.start)
    crc32 = 0
    for chunk in _chunks(file, member.size_bytes):
        crc32 = zlib.crc32(chunk, crc32)
        yield chunk
    if crc32 != member.crc32:
        raise BadArchive(f"{member.name} is damaged: its checksum differs")


def _members(directory: bytes, count: int, names: Collection[str]) -> tuple[Member, ...]:
    members: list[Member] = []
    place = 0
    for _ in range(count):
        record = directory[place : place + _CENTRAL.size]
        if len(record) < _CENTRAL.size:
            raise BadArchive("its directory is cut off")
        fields = _CENTRAL.unpack(record)
        crc32, size_bytes, name_bytes = fields[7], fields[9], fields[10]
        raw = directory[place + _CENTRAL.size : place + _CENTRAL.size + name_bytes]
        name = next((name for name in names if name.encode() == raw), None)
        if name is None:
            raise BadArchive(f"it has a member called {raw[:_MAX_NAME_BYTES]!r}, which no bundle has")
        if name in {member.name for member in members}:
            raise BadArchive(f"{name} is in it twice")
        offset = members[-1].end if members else 0
        members.append(Member(name=name, crc32=crc32, size_bytes=size_bytes, offset=offset))
        place += _CENTRAL.size + name_bytes
    return tuple(members)


def _measured(content: Content, offset: int) -> Member:
    crc32 = size_bytes = 0
    with content.open() as file:
        for chunk in _chunks(file, MAX_ARCHIVE_BYTES):
            crc32 = zlib.crc32(chunk, crc32)
            size_bytes += len(chunk)
    return Member(name=content.name, crc32=crc32, size_bytes=size_bytes, offset=offset)


def _chunks(file: BinaryIO, most_bytes: int) -> Iterator[bytes]:
    while most_bytes and (chunk := file.read(min(_CHUNK_BYTES, most_bytes))):
        most_bytes -= len(chunk)
        yield chunk


def _local_record(member: Member) -> bytes:
    name = member.name.encode("ascii")
    sizes = (member.crc32, member.size_bytes, member.size_bytes)
    return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, *sizes, len(name), 0) + name


def _central_record(member: Member) -> bytes:
    name = member.name.encode("ascii")
    sizes = (member.crc32, member.size_bytes, member.size_bytes)
    head = (b"PK\1\2", _UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE, *sizes, len(name))
    return _CENTRAL.pack(*head, 0, 0, 0, 0, _MODE, member.offset) + name


def _directory(members: Sequence[Member]) -> bytes:
    return b"".join(map(_central_record, members)) + _end_record(members)


def _end_record(members: Sequence[Member]) -> bytes:
    size_bytes = sum(len(_central_record(member)) for member in members)
    start = members[-1].end if members else 0
    return _END.pack(b"PK\5\6", 0, 0, len(members), len(members), size_bytes, start, 0)
