"""Versions of a release: semantic versioning, read for data.

A patch leaves the rows as they are, a minor version adds rows, a major version changes what rows mean. Rows are never
removed. This is what the Croissant specification (1.1, "Version") recommends for data sets.
"""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Self

from harness.errors import UsageError

_PART = r"(0|[1-9]\d{0,5})"
_IDENTIFIER = r"(?:0|[1-9]\d{0,8}|\d{0,9}[A-Za-z-][0-9A-Za-z-]{0,19})"
_VERSION = re.compile(rf"{_PART}\.{_PART}\.{_PART}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER}){{0,4}}))?")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """``major.minor.patch`` with an optional pre-release part, ordered as semver.org 2.0.0 says."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``1.0.0`` or ``1.1.0-rc.1``; raises ``UsageError`` for anything else."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text[:40]!r} is no version of a release.\n"
                "Write three numbers as in 1.0.0, and a pre-release as 1.1.0-rc.1 (semantic versioning, no +build)."
            )
        major, minor, patch, pre = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(pre.split(".")) if pre else ())

    def __str__(self) -> str:
        pre = f"-{'.'.join(self.pre)}" if self.pre else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}"

    def __lt__(self, other: "Version") -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[object, ...]:
        identifiers = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return (self.major, self.minor, self.patch, not self.pre, identifiers)


def check_step(old: Version, new: Version, *, rows_added: bool) -> None:
    """Whether a release may follow another; raises ``UsageError``."""
    if new <= old:
        raise UsageError(f"Version {new} does not follow {old}, the release it continues.\nChoose a higher one.")
    if rows_added and (new.major, new.minor) == (old.major, old.minor) and not old.pre:
        raise UsageError(
            f"Version {new} adds rows to {old}, and a patch leaves the rows as they are.\n"
            f"Call it {old.major}.{old.minor + 1}.0."
        )
