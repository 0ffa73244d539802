"""The calibration of virtual GPUs, made when a campaign on them begins."""

import random
from contextlib import closing
from datetime import UTC, datetime

from harness.campaign.plan import VIRTUAL, Plan
from harness.campaign.virtual_load import VirtualLoad, bank_of
from harness.measuring.calibration import Calibration
from harness.measuring.calibration_making import make_calibration
from harness.virtual.gpu import read_virtual_gpu
from harness.virtual.machine import VirtualMachine


def calibration_of(plan: Plan) -> Calibration:
    """Of one GPU of the kind that a plan asks for: its sensors are alike."""
    machine = VirtualMachine(read_virtual_gpu(plan.device.removeprefix(VIRTUAL)), gpus=1, seed=plan.seed)
    with closing(bank_of(machine)) as bank:
        return make_calibration(
            bank,
            machine.clock,
            VirtualLoad(machine),
            quick=True,
            rng=random.Random(plan.seed),  # noqa: S311  a simulation
            now=datetime.now(UTC),
        )
