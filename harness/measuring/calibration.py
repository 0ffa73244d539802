"""What a calibration found out about the meters of one machine, and what follows for measuring with them.

``python -m harness.calibrate`` makes a ``Calibration``; its JSON is stored in ``environments``, and a run takes from it

    protocol = calibration.protocol(STANDARD)                  # window lengths and numbers of trials
    precision = calibration.precision(precision_of(method))    # type B half widths that were assumptions before

None is what could not be measured, with the reason among the notes; it is never 0. How each figure is found is said
where it is computed: ``calibration_beats``, ``calibration_response``, ``calibration_steady``, ``calibration_advice``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.errors import CorruptFile
from harness.measuring.calibration_advice import Advice, Facts, advice
from harness.measuring.calibration_json import read_record, to_text
from harness.measuring.calibration_records import DeviceCalibration, Estimate
from harness.measuring.precision import Precision
from harness.measuring.protocol import Protocol
from harness.meters.base import DeviceFacts
from harness.records import Provenance, Quality

VERSION: Final = 1
GAP_FLAG: Final = 0.05  # counter and integrated power that differ by more are flagged
_LEAST_TAIL: Final = 0.01  # a tail is never claimed to be known better than this share
_SIZE_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All devices of one bank of meters, calibrated together."""

    version: int = VERSION
    calibrated_at_utc: str
    harness: str  # version that made it
    provenance: Provenance
    method: str  # of the meters
    load: str  # what the devices were given to do
    quick: bool
    devices: tuple[DeviceCalibration, ...]
    notes: tuple[str, ...] = ()  # what could not be calibrated, and why

    def to_json(self) -> str:
        """Canonical JSON: the same calibration always gives the same text."""
        return to_text(self)

    @classmethod
    def from_json(cls, text: str, name: str = "calibration") -> "Calibration":
        """Read it back; raises ``CorruptFile`` saying what is wrong with a text that is none."""
        if len(text) > _SIZE_LIMIT_BYTES:
            raise CorruptFile(f"{name} is longer than {_SIZE_LIMIT_BYTES >> 20} MiB, so it is no calibration.")
        found = read_record(cls, text, name)
        if found.version != VERSION:
            raise CorruptFile(
                f"{name} is a calibration of version {found.version}, and this harness reads version {VERSION}.\n"
                "Calibrate again: python -m harness.calibrate --out FILE."
            )
        return found

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """Read a file; raises ``CorruptFile``."""
        try:
            if path.stat().st_size > _SIZE_LIMIT_BYTES:
                raise CorruptFile(f"{path} is larger than {_SIZE_LIMIT_BYTES >> 20} MiB, so it is no calibration.")
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CorruptFile(
                f"{path} cannot be read: {error.strerror}.\nMake one: python -m harness.calibrate --out {path}."
            ) from error
        except ValueError as error:
            raise CorruptFile(f"{path} is no UTF-8 text, so it is no calibration.") from error
        return cls.from_json(text, str(path))

    def difference(self, *, provenance: Provenance, method: str, facts: Sequence[DeviceFacts]) -> str | None:
        """Why this calibration says nothing about a bank of meters; None where it does.

        Devices that were measured are told apart by their UUIDs, virtual ones by their names.
        """
        if (provenance, method) != (self.provenance, self.method):
            return f"it was made with {self.provenance.value} {self.method}, not with {provenance.value} {method}"
        known = {device.uuid_sha256 or device.name for device in self.devices}
        names = {device.name for device in self.devices}
        for one in facts:
            by_name = one.uuid_sha256 is None or provenance is Provenance.SIMULATED
            if (one.name not in names) if by_name else (one.uuid_sha256 not in known):
                return f"it does not know the device {one.name} ({(one.uuid_sha256 or 'no UUID')[:12]})"
        return None

    def protocol(self, base: Protocol) -> Protocol:
        """The protocol for these meters: windows and trials never shorter or fewer than those of ``base``.

        The formulas are those of ``calibration_advice.advice``. A quick protocol stays as it is: it promises nothing.
        """
        if base.quality is Quality.QUICK:
            return base
        found = self.advice(base)
        return replace(
            base,
            window_s=found.window_s,
            idle_s=found.idle_s,
            kernel_window_share=found.kernel_window_share,
            trials_min=found.trials_min,
            trials_max=found.trials_max,
        )

    def advice(self, base: Protocol) -> Advice:
        """What the worst of the devices asks for."""
        return advice([Facts.of(device) for device in self.devices], base)

    def precision(self, base: Precision) -> Precision:
        """What is known of the meters now: the worst of the devices, and ``base`` where nothing was measured.

        - ``tail95``: half width and size of the lingering share added up, at least 1 %.
        - ``lag_s``: lag + half width; a lag below 0 is none.
        - ``sampled_share``: 1 − (1 − s)/L for a counter that looks L times per period for the share s of it: what an
          edge can be wrong by is what is hidden between two looks.
        - ``quantum_j``: as found.
        - ``gain95``: that of ``base``, but not below a gap between counter and integrated power that is flagged: one of
          the two is wrong by that much.
        """
        tails = [abs(tail.value) + (tail.ci95 or 0.0) for device in self.devices if (tail := device.idle.tail_share)]
        counters = [device.counter for device in self.devices if device.counter is not None]
        lags_s = [max(0.0, lag.value + (lag.ci95 or 0.0)) for one in counters if (lag := one.lag_s)]
        shares = [one.edge_share for one in counters if one.edge_share is not None]
        quanta_j = [one.quantum_j for one in counters if one.quantum_j is not None]
        gaps = [abs(gap.value) for device in self.devices for gap in device.gaps_found if gap_is_flagged(gap)]
        return replace(
            base,
            tail95=_worst(tails, base.tail95, least=_LEAST_TAIL),
            lag_s=_worst(lags_s, base.lag_s),
            sampled_share=min(shares, default=base.sampled_share),
            quantum_j=_worst(quanta_j, base.quantum_j),
            gain95=max([*gaps, base.gain95 or 0.0]) if gaps else base.gain95,
            source=f"{base.source}; calibrated {self.calibrated_at_utc[:10]}" if self.devices else base.source,
        )

    @property
    def period_s(self) -> float | None:
        """The period of the slowest counter."""
        periods_s = [one.counter.period_s for one in self.devices if one.counter and one.counter.period_s is not None]
        return max(periods_s, default=None)


def gap_is_flagged(gap: Estimate | None) -> bool:
    """Whether counter and integrated power differ by more than 5 %, beyond doubt."""
    return gap is not None and abs(gap.value) - (gap.ci95 or 0.0) > GAP_FLAG


def _worst(values: Iterable[float], otherwise: float, *, least: float = 0.0) -> float:
    found = list(values)
    return max([*found, least]) if found else otherwise
