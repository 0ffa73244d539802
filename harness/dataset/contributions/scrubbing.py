"""Text without what tells whose machine it comes from.

Words of the machine (``identity``) and what has the form of a path, an address, a device id or a secret become a mark
such as ``[path]``. Everything that is replaced is counted, so that people see it before anything is published.
Scrubbing what was scrubbed changes nothing.
"""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from harness.dataset.contributions.identity import Identity, Kind, word_pattern

# Keys of a configuration whose values name files; what stays is the file's name.
_FILE_KEYS = frozenset({"calibration_file", "hardware_file", "trace", "models", "device", "plan", "out"})
_PRIVATE_KEYS: Mapping[str, Kind] = {
    "hostname": Kind.HOST,
    "host": Kind.HOST,
    "node": Kind.HOST,
    "user": Kind.USER,
    "username": Kind.USER,
    "home": Kind.PATH,
    "cwd": Kind.PATH,
    "serial": Kind.SERIAL,
    "serial_number": Kind.SERIAL,
    "uuid": Kind.DEVICE,
    "pci_bus_id": Kind.DEVICE,
    "pid": Kind.PROCESS,
    "token": Kind.SECRET,
    "password": Kind.SECRET,
    "email": Kind.EMAIL,
    "machine": Kind.HOST,
    "hosts": Kind.HOST,
    "hostnames": Kind.HOST,
}
_PRIVATE_PARTS: Mapping[str, Kind] = {  # of a key, whatever else stands in it: board_serial, gpuUUID
    "serial": Kind.SERIAL,
    "uuid": Kind.DEVICE,
    "hostname": Kind.HOST,
    "username": Kind.USER,
}
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IN_PATH = r"[^\s/\\'\"<>|;,()\[\]{}`]"
_PATTERNS: tuple[tuple[Kind, "re.Pattern[str]"], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (Kind.SECRET, r"(?i:\bbearer)\s+[\w.~+/=-]{8,}"),
        (Kind.SECRET, r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,}"),
        (Kind.SECRET, r"(?<=://)[^\s/@:]+:[^\s/@]+@"),
        (
            Kind.SECRET,
            r"(?i)(?<![a-z])(?:password|passwd|secret(?:_access)?_key|api[_-]?key|(?:access|auth)_token)"
            r"[\"']?\s*[=:]\s*(?!\[)[^\s,;\"']+",
        ),
        (Kind.EMAIL, r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"),
        (
            Kind.DEVICE,
            r"\b(?:GPU-|MIG-|MIG-GPU-)?[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b",
        ),
        (Kind.DEVICE, r"(?<![0-9a-fA-F])[0-9a-fA-F]{32}(?![0-9a-fA-F])"),  # the same without dashes
        (Kind.DEVICE, r"\b(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]\b"),
        (Kind.ADDRESS, r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b"),
        (Kind.ADDRESS, rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?::\d{{1,5}})?(?![\w.]*\.\d|\w)"),
        (Kind.PATH, r"(?:file://)(?:[^\s'\"<>|;,)\]}`]*)"),
        (Kind.PATH, r"\b(?:s3|gs|az|abfss?|wasbs?|hdfs|nfs|smb|ftp|ssh|tcp|udp)://[^\s'\"<>|;,()\[\]{}`]+"),
        (Kind.PATH, r"(?<=')(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)[^'\n]*(?=')"),
        (Kind.PATH, r'(?<=")(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)[^"\n]*(?=")'),
        (Kind.PATH, rf"\b[A-Za-z]:/(?!/){_IN_PATH}*(?:/{_IN_PATH}*)*"),
        (Kind.PATH, rf"(?<![\w/.\]])(?:~[\w.-]*/|/(?!/)|\.{{1,2}}/){_IN_PATH}+(?:/{_IN_PATH}*)*"),
        (Kind.PATH, r"(?:\b[A-Za-z]:\\|\\\\)[^\s'\"<>|;,()\[\]{}`]+"),
        (Kind.SERIAL, r"(?i)(?<![a-z])serial(?:[ _-]*(?:number|no\.?|nr\.?|#))?\s*[:=#]?\s*(?=\w*\d)\w[\w-]*"),
        (Kind.PROCESS, r"(?i)\b(?:pid|process)[ =:#]+\d+\b"),
        (Kind.SERIAL, r"(?<![\w.,-])\d{11,20}(?![\w.,]*\d|\w)"),  # a board's number has thirteen digits
    )
)
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-fA-F:]*:[0-9a-fA-F:]*(?:%\w+)?(?![\w:])")


class Scrubber:
    """Removes what tells whose machine a text comes from, and counts what it removed.

    ``names`` are those of public models, which look like relative paths and are none. ``hashed`` replaces the hash of a
    device's id, so that a device is not followed from one lab to another.
    """

    def __init__(
        self, identity: Identity, *, names: Collection[str] = (), hashed: Callable[[str], str] = lambda text: text
    ) -> None:
        # A home with a space in it comes before the form of a path, which ends at a space.
        first = [each for each in identity.words if each.kind is Kind.HIDDEN or " " in each.word]
        self._first = [(each.kind, word_pattern(each)) for each in first]
        self._words = [(each.kind, word_pattern(each)) for each in identity.words if each not in first]
        self._names = frozenset(names)
        self._hashed = hashed
        self.removed: Counter[Kind] = Counter()

    def text(self, text: str) -> str:
        """Plain text, or a name."""
        if text in self._names:
            return text
        for kind, pattern in (*self._first, *_PATTERNS, *self._words):
            text = self._replaced(kind, pattern, text)
        return _IPV6.sub(self._address, text)

    def document(self, text: str) -> str:
        """A JSON document, canonical again where something was removed; what is no JSON is plain text."""
        try:
            value = json.loads(text)
            scrubbed = self._value(value, named_file=False)
        except (ValueError, RecursionError):
            return self.text(text)
        return text if scrubbed == value else json.dumps(scrubbed, sort_keys=True, separators=(",", ":"))

    def _value(self, value: Any, *, named_file: bool) -> Any:
        if isinstance(value, dict):
            return {self.text(key): self._entry(key, each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, named_file=named_file) for each in value]
        if not isinstance(value, str) or value in self._names:
            return value
        return self.text(self._file_name(value) if named_file else value)

    def _entry(self, key: str, value: Any) -> Any:
        kind = _kind_of(key)
        if kind is not None and value is not None:
            self.removed[kind] += 1
            return f"[{kind}]"
        if key == "uuid_sha256" and isinstance(value, str):
            return self._hashed(value)
        return self._value(value, named_file=key in _FILE_KEYS)

    def _file_name(self, value: str) -> str:
        """The last part of a path; ``virtual:FILE.toml`` keeps what says that the device is virtual."""
        head, mark, path = value.partition("virtual:")
        place = path if mark and not head else value
        name = PureWindowsPath(place).name if "\\" in place else PurePosixPath(place).name
        if name == place:
            return value
        self.removed[Kind.PATH] += 1
        return f"{mark}{name}" if place is path else name

    def _replaced(self, kind: Kind, pattern: "re.Pattern[str]", text: str) -> str:
        text, count = pattern.subn(f"[{kind}]", text)
        self.removed[kind] += count
        return text

    def _address(self, match: "re.Match[str]") -> str:
        try:
            ipaddress.ip_address(match[0].partition("%")[0])
        except ValueError:
            return match[0]
        self.removed[Kind.ADDRESS] += 1
        return f"[{Kind.ADDRESS}]"


def _kind_of(key: str) -> Kind | None:
    name = key.lower()
    if name == "uuid_sha256":
        return None
    return _PRIVATE_KEYS.get(name) or next((kind for part, kind in _PRIVATE_PARTS.items() if part in name), None)
