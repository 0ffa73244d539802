"""Make a calibration of one bank of meters."""

import random
from dataclasses import replace
from datetime import datetime
from typing import Final

import numpy as np

from harness import __version__
from harness.measuring.calibration import Calibration
from harness.measuring.calibration_lengths import QUICK_LENGTHS, STANDARD_LENGTHS
from harness.measuring.calibration_records import CounterTraits, DeviceCalibration, IdleTraits
from harness.measuring.calibration_stages import Stages
from harness.measuring.calibration_watch import Load
from harness.measuring.windows import PausingClock
from harness.meters.selection import MeterBank
from harness.records import Provenance

_READS: Final = 200
_ESTIMATED: Final = (
    "The energy of this machine is estimated: a model computes it, when it is read, from the load since the last read. "
    "There is no sensor to calibrate.",
    "Left out, because they would describe the model and not the machine: the counter's period, quantum, lag and "
    "sampled share, power fields, aliasing, gaps, power at rest and under load.",
    "What could be measured: how long a read takes. Windows and trials stay those of the protocol.",
    "With a counter (RAPL on the machine itself, NVML on a GPU) all of it can be measured; `python -m harness.doctor` "
    "says what is missing.",
)


def make_calibration(
    bank: MeterBank, clock: PausingClock, load: Load, *, quick: bool, rng: random.Random, now: datetime
) -> Calibration:
    """Calibrate all devices of a bank together; takes minutes of the clock's time, half a minute if ``quick``.

    Raises ``MeterFailed`` for a counter that stands still or stops answering. Where energy is estimated there is
    nothing to calibrate but the read itself, and the notes say so.
    """
    found = Calibration(
        calibrated_at_utc=now.isoformat(timespec="seconds"),
        harness=__version__,
        provenance=bank.provenance,
        method=bank.method,
        load="none",
        quick=quick,
        devices=(),
    )
    if bank.provenance is Provenance.ESTIMATED:
        return replace(found, devices=_reads_only(bank), notes=_ESTIMATED)
    lengths = QUICK_LENGTHS if quick else STANDARD_LENGTHS
    devices = Stages(bank, clock, load, lengths=lengths, rng=rng).calibrate()
    return replace(found, load=load.name, devices=devices)


def _reads_only(bank: MeterBank) -> tuple[DeviceCalibration, ...]:
    """How long reads take, and nothing else."""
    reads = [bank.read_start() for _ in range(_READS)]
    return tuple(
        _read_only(meter.name, facts.name, facts.uuid_sha256, [read[index].latency_s for read in reads])
        for index, (meter, facts) in enumerate(zip(bank.meters, bank.facts(), strict=True))
    )


def _read_only(meter: str, name: str, uuid_sha256: str | None, latencies_s: list[float]) -> DeviceCalibration:
    return DeviceCalibration(
        meter=meter,
        name=name,
        uuid_sha256=uuid_sha256,
        counter=CounterTraits(
            period_s=None,
            median_s=None,
            spread_s=None,
            jitter_s=None,
            quantum_j=None,
            read_median_s=float(np.median(latencies_s)),
            read_p99_s=float(np.percentile(latencies_s, 99)),
            lag_s=None,
            sampled_share=None,
            looks=None,
            misfit=None,
        ),
        instant=None,
        reported=None,
        average=None,
        aliasing=(),
        load_gap=None,
        idle_gap=None,
        load_w=None,
        noise_w=None,
        idle=IdleTraits(
            bare_w=None, context_w=None, settle_s=None, tail_share=None, w_per_c=None, time_constant_s=None
        ),
    )
