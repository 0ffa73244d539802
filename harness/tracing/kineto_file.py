"""The bytes of a trace file: untrusted, possibly compressed, read within limits."""

import gzip
import zlib
from pathlib import Path

from harness.errors import CorruptFile, UsageError

LARGEST_JSON_BYTES = 512 * 1024**2  # unpacked: some 1.6 million events, and five times as much memory to read them
_GZIP_MAGIC = b"\x1f\x8b"
# Real traces have 19 and more bytes per value. A file of nothing but brackets would become a hundred times its size.
_FEWEST_BYTES_PER_VALUE = 6


def json_bytes(path: Path, largest_bytes: int = LARGEST_JSON_BYTES) -> bytes:
    """The JSON text of a trace, unpacked if it is gzip (by content, not by name).

    Never holds more than ``largest_bytes``, whatever the file unpacks to. Raises UsageError where there is no such file
    or it may not be read, CorruptFile where it is too large, no whole gzip file, or too dense to be a trace.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.\nName a trace that torch.profiler's export_chrome_trace wrote.")
    try:
        if path.stat().st_size > largest_bytes:
            raise _too_large(path, largest_bytes)
        with path.open("rb") as stream:
            packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        text = _unpacked(path, largest_bytes) if packed else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).\nCheck its permissions.") from error
    if text.count(b",") + text.count(b"[") + text.count(b"{") > max(1000, len(text) // _FEWEST_BYTES_PER_VALUE):
        raise CorruptFile(f"{path} is no trace: it holds hardly anything but commas and brackets.\n{RECORD_AGAIN}")
    return text


RECORD_AGAIN = "Record it again with torch.profiler and export_chrome_trace, or copy it again."


def _unpacked(path: Path, largest_bytes: int) -> bytes:
    try:
        with gzip.open(path) as stream:
            text = stream.read(largest_bytes + 1)  # unpacks no further than asked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptFile(f"{path} is a damaged gzip file ({error}).\n{RECORD_AGAIN}") from error
    if len(text) > largest_bytes:
        raise _too_large(path, largest_bytes)
    return text


def _too_large(path: Path, largest_bytes: int) -> CorruptFile:
    return CorruptFile(
        f"{path} holds more than {largest_bytes / 1024**2:.0f} MiB of JSON, more than is read without being asked to.\n"
        "Record fewer steps and no Python stacks, or allow more (--largest-mib) if you trust the file."
    )
