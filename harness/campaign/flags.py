"""What a reader of a run should know beside its numbers."""

import re

from harness.measuring.protocol import Protocol as WindowProtocol
from harness.measuring.results import SessionResult
from harness.records import Part

_REASONS = 3  # of rejected windows that are told
_BUSY_SHARE = 0.1  # of all cores; what an idle desktop needs stays well below


def busy_notes(before: float | None, after: float | None) -> tuple[str, ...]:
    """What to say about other work on the CPU that was measured."""
    shares = [share for share in (before, after) if share is not None and share > _BUSY_SHARE]
    if not shares:
        return ()
    return (f"others used {max(shares):.0%} of the CPU while the run rested: its energy and time include them",)


def flags(session: SessionResult, protocol: WindowProtocol) -> tuple[str, ...]:
    """What a reader of the run should know beside its numbers."""
    rejected = [taken.rejected for taken in session.windows if taken.rejected is not None]
    notes = []
    if rejected:
        reasons = list({_kind(reason): reason for reason in reversed(rejected)}.values())[::-1]
        notes.append(f"{len(rejected)} of {len(session.windows)} windows rejected: {'; '.join(reasons[:_REASONS])}")
    for part in (Part.PREFILL, Part.DECODE, Part.RUN):
        result = session.part(part)
        if result is None:
            continue
        if result.energy_j is None:
            notes.append(f"no usable window of {part}")
        elif result.energy_j.relative > protocol.half_width_target:
            notes.append(
                f"{part}: 95 % half width {result.energy_j.relative:.1%}, wanted {protocol.half_width_target:.0%}"
            )
    return tuple(notes)


def _kind(reason: str) -> str:
    """Reasons that differ in their numbers only are one."""
    return re.sub(r"[\d.]+", "", reason)
