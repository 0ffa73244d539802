"""What can go wrong with a virtual GPU or its sensor, each at a stated time."""

import math
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What goes wrong, and what ``Fault.value`` means for it."""

    STANDS_STILL = "stands_still"  # the counter keeps what it showed
    JUMPS = "jumps"  # the counter shows value joules more
    GOES_BACK = "goes_back"  # the counter restarts at value joules (default 0)
    LOST = "lost"  # the GPU answers no call
    HANGS = "hangs"  # each call takes value seconds (default 10) and fails
    NO_PERMISSION = "no_permission"  # the counter may not be read
    NOT_SUPPORTED = "not_supported"  # the driver says that there is no counter
    FOREIGN_PROCESS = "foreign_process"  # somebody else's process, drawing value watts (default 60)
    POWER_LIMIT = "power_limit"  # the limit is value watts
    THROTTLE = "throttle"  # too hot: the clock is at most this share (default 0.6) of the full one


_DEFAULTS = {
    FaultKind.GOES_BACK: 0.0,
    FaultKind.HANGS: 10.0,
    FaultKind.FOREIGN_PROCESS: 60.0,
    FaultKind.THROTTLE: 0.6,
}
_VALUELESS = frozenset({FaultKind.STANDS_STILL, FaultKind.LOST, FaultKind.NO_PERMISSION, FaultKind.NOT_SUPPORTED})
OF_THE_GPU = frozenset({FaultKind.FOREIGN_PROCESS, FaultKind.POWER_LIMIT, FaultKind.THROTTLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one GPU from ``at_s`` of the virtual clock on, until ``until_s``.

    Raises ``ValueError`` for an unknown kind, times that are out of order, and a value that is missing or impossible.
    """

    kind: FaultKind
    gpu: int
    at_s: float
    until_s: float = math.inf
    value: float | None = None  # see FaultKind

    def __post_init__(self) -> None:
        kind = FaultKind(self.kind)
        object.__setattr__(self, "kind", kind)  # a plain string is welcome
        if self.gpu < 0 or not 0 <= self.at_s < self.until_s:
            raise ValueError(f"{kind}: a fault has a GPU from 0 and lasts from at_s, not below 0, to a later until_s")
        if self.value is None and kind in (FaultKind.JUMPS, FaultKind.POWER_LIMIT):
            raise ValueError(f"{kind}: this fault needs a value")
        if self.value is not None and (kind in _VALUELESS or not math.isfinite(self.value)):
            raise ValueError(f"{kind}: this fault takes no value, or it is not finite")
        if self.amount <= 0 and kind in (*OF_THE_GPU, FaultKind.HANGS):
            raise ValueError(f"{kind}: the value must be above 0")
        if self.amount > 1 and kind is FaultKind.THROTTLE:
            raise ValueError(f"{kind}: the value is a share of the full clock")

    @property
    def amount(self) -> float:
        """The value, or what the kind has by default."""
        return self.value if self.value is not None else _DEFAULTS.get(self.kind, 0.0)

    def active(self, now_s: float) -> bool:
        """Whether it is going on."""
        return self.at_s <= now_s < self.until_s


def only(faults: tuple[Fault, ...], kind: FaultKind, now_s: float) -> Fault | None:
    """The last-named fault of a kind that is going on."""
    return next((fault for fault in reversed(faults) if fault.kind is kind and fault.active(now_s)), None)
