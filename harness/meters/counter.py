"""Tells a counter's honest move from a fault, so that no fault becomes a plausible number.

A counter of energy that shows ``now`` at ``now_s`` after it showed ``before`` at ``before_s``:

    stood still   now = before, first seen ``STILL_S`` or longer ago: a device under power always uses energy
    jumped        now − before > most energy of the time between
    wrapped       now < before, and before + most energy reaches 2³² or 2⁶⁴ mJ, with now as much above 0 as that allows
    reset         now < before, and now is no more than a counter that began at 0 since then could show
    went back     now < before, otherwise

with *most energy* = ``IMPLAUSIBLE`` × power limit × (time between + ``STALE_S``). A wrap is not corrected: no driver
documents that its counter wraps or where, and a reset near 2³² mJ would look the same. What the counter alone cannot
show, the power readings beside it can: a jump below the limit, and a reset after which it has passed its old value.

A fault is final. What the counter shows later may be right again, but a window that spans the fault would not be.
"""

from typing import Final, NoReturn

from harness.errors import MeterCause, MeterFailed
from harness.units import J_PER_MJ

IMPLAUSIBLE: Final = 4.0  # boards exceed their limit for milliseconds, by less than this
STALE_S: Final = 0.5  # a counter moves at once by what it counted since its last move: five times the usual 0.1 s
STILL_S: Final = 5.0
UNKNOWN_LIMIT_W: Final = 3000.0  # above any GPU or module of one (GB200: 2,700 W), where the limit is not known
_WIDTHS_BITS: Final = (32, 64)
_RESTART = "Run again: finished runs are kept."


class CounterWatch:
    """Watches one counter of millijoules; the first value is taken as it is."""

    def __init__(self, label: str, first_mj: int, at_s: float, *, limit_w: float | None) -> None:
        self._label = label
        self._limit_w = limit_w or UNKNOWN_LIMIT_W
        self._last_mj = first_mj
        self._last_s = at_s
        self._moved_s = at_s  # when the last value was first seen
        self._fault: MeterFailed | None = None

    def energy_j(self, now_mj: int, now_s: float) -> float:
        """The joules the counter shows; raises ``MeterFailed`` with the cause, and then for ever."""
        if self._fault is not None:
            raise MeterFailed(str(self._fault), cause=self._fault.cause)
        most_mj = self._most_mj(now_s)
        if now_mj == self._last_mj:
            if now_s - self._moved_s > STILL_S:
                self._refuse_standstill(now_s - self._moved_s)
        elif now_mj < self._last_mj:
            self._refuse_step_back(now_mj, most_mj)
        elif now_mj - self._last_mj > most_mj:
            self._refuse_jump(now_mj, now_s)
        else:
            self._moved_s = now_s
        self._last_mj, self._last_s = now_mj, max(now_s, self._last_s)
        return now_mj * J_PER_MJ

    def _most_mj(self, now_s: float) -> float:
        return IMPLAUSIBLE * self._limit_w * (max(0.0, now_s - self._last_s) + STALE_S) / J_PER_MJ

    def _refuse_standstill(self, still_s: float) -> NoReturn:
        self._refuse(
            MeterCause.COUNTER_STOOD_STILL,
            f"has stood still for {still_s:.3g} s, which would read as 0 J.\n"
            "Check it with `python -m harness.doctor`; the GPU may need its driver reloaded.",
        )

    def _refuse_step_back(self, now_mj: int, most_mj: float) -> NoReturn:
        went = f"went back from {self._last_mj} to {now_mj} mJ"
        for bits in _WIDTHS_BITS:
            left_mj = 2**bits - self._last_mj
            if left_mj > 0 and left_mj + now_mj <= most_mj:
                self._refuse(MeterCause.COUNTER_WRAPPED, f"{went}: it came to the end of its {bits} bits.\n{_RESTART}")
        if now_mj <= most_mj:
            self._refuse(
                MeterCause.COUNTER_RESET,
                f"{went}, near zero: the driver was reloaded or the GPU reset.\n{_RESTART} Persistence mode "
                "(`sudo nvidia-smi -pm 1`) keeps the driver loaded.",
            )
        self._refuse(
            MeterCause.COUNTER_WENT_BACK,
            f"{went}, which is neither a reset nor a wrap.\nCheck the GPU and its driver before you run again.",
        )

    def _refuse_jump(self, now_mj: int, now_s: float) -> NoReturn:
        moved_j, span_s = (now_mj - self._last_mj) * J_PER_MJ, max(0.0, now_s - self._last_s)
        self._refuse(
            MeterCause.COUNTER_JUMPED,
            f"jumped by {moved_j:.6g} J within {span_s:.3g} s, more than a GPU limited to {self._limit_w:.0f} W can "
            "use.\nCheck the GPU and its driver before you run again.",
        )

    def _refuse(self, cause: MeterCause, what: str) -> NoReturn:
        self._fault = MeterFailed(f"{self._label}: the energy counter {what}", cause=cause)
        raise self._fault
