"""What speaks against taking a contribution."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A rule that a contribution breaks."""

    rule: str
    reason: str
    remedy: str
    overridable: bool = False  # a maintainer may take it all the same, and says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row that breaks a rule."""

    row: str  # which one, for people
    why: str


def objection(rule: str, faults: Iterable[Fault], remedy: str, *, overridable: bool = False) -> Iterator[Objection]:
    """One objection for all rows that break a rule; none where no row does."""
    found = list(faults)
    if not found:
        return
    told = "; ".join(f"{fault.row}: {fault.why}" for fault in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    yield Objection(rule=rule, reason=f"{told}{more}", remedy=remedy, overridable=overridable)
