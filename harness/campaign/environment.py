"""The machine and software of a run, as one row that equal set-ups share."""

import platform
from dataclasses import replace
from importlib import metadata

import torch

from harness import __version__
from harness.measuring.attribution import Ceilings
from harness.meters.host import HostFacts
from harness.meters.selection import MeterBank, describe, find_gpus
from harness.records import EnvironmentRow
from harness.setup_records import environment_content_id


def environment_row(
    *, bank: MeterBank, host: HostFacts, gpu: str, ceilings: Ceilings, calibration: str | None = None
) -> EnvironmentRow:
    """Describe this machine; ``gpu`` is the device's name in the hardware table."""
    facts = bank.facts()[0]
    row = EnvironmentRow(
        environment_id="",
        gpu=gpu,
        device_name=facts.name,
        n_devices=len(find_gpus({}).gpus),  # of the machine, whatever CUDA_VISIBLE_DEVICES leaves to this run
        cpu=host.cpu,
        cpu_cores=host.cpu_cores,
        memory_bytes=host.memory_bytes,
        virtual_machine=host.virtual_machine,
        driver=facts.driver,
        cuda=torch.version.cuda,
        vbios=facts.vbios,
        power_limit_w=facts.power_limit_w,
        ecc=facts.ecc,
        mig=facts.mig,
        persistence_mode=facts.persistence_mode,
        topology=facts.topology,
        os=host.os,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=metadata.version("transformers"),
        harness=__version__,
        threads=torch.get_num_threads(),
        meter=f"{describe(bank)}; {bank.why}",
        meter_step_s=round(bank.step_s, 3),
        peak_flop_per_s=ceilings.flop_per_s,
        peak_bytes_per_s=ceilings.bytes_per_s,
        calibration=calibration,
    )
    return replace(row, environment_id=environment_content_id(row))
