"""Rows about where numbers come from: the machine, and who made them. See ``harness.records``."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Annotated


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRow:
    """The machine and software a run was made on; equal set-ups share one row."""

    environment_id: Annotated[str, "content hash of the columns below"]
    gpu: Annotated[str, "as in `runs`"]
    device_name: Annotated[str, "what the driver or the operating system calls the device"]
    n_devices: Annotated[int | None, "GPUs in the machine; 0 if none; null: imported, not known"]
    cpu: Annotated[str | None, "CPU model name; null: imported, not known"]
    cpu_cores: Annotated[int | None, "logical cores this process may use"]
    memory_bytes: Annotated[int | None, "memory of the machine"]
    virtual_machine: Annotated[bool | None, "null where unknown"]
    driver: Annotated[str | None, "GPU driver version"]
    cuda: Annotated[str | None, "CUDA version torch was built for"]
    vbios: Annotated[str | None, "GPU VBIOS version"]
    power_limit_w: Annotated[float | None, "enforced power limit of one GPU"]
    sm_clock_mhz: Annotated[float | None, "clock the SMs were locked to; null: not locked, or not known"] = None
    ecc: Annotated[bool | None, "ECC enabled"]
    mig: Annotated[bool | None, "MIG enabled"]
    persistence_mode: Annotated[bool | None, "persistence mode enabled"]
    topology: Annotated[str | None, "links between the GPUs in use"]
    os: Annotated[str | None, "operating system and kernel release"]
    python: Annotated[str | None, "Python version"]
    torch: Annotated[str | None, "torch version"]
    transformers: Annotated[str | None, "transformers version"]
    harness: Annotated[str | None, "harness version; null: imported"]
    threads: Annotated[int | None, "threads of torch on the CPU"]
    meter: Annotated[str, "meter and its provenance"]
    meter_step_s: Annotated[float | None, "how often the counter moves, as found on this machine"]
    peak_flop_per_s: Annotated[float | None, "peak for the run's dtype: hardware table (GPU) or probed (CPU)"]
    peak_bytes_per_s: Annotated[float | None, "memory bandwidth: hardware table (GPU) or probed (CPU)"]
    calibration: Annotated[str | None, "results of a calibration of this machine, canonical JSON; null: none was made"]


def environment_content_id(row: EnvironmentRow) -> str:
    """Hash of every column but the id itself, 16 hexadecimal digits."""
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "environment_id"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """Who made numbers, what of them was measured, and on which terms they may be used."""

    source: Annotated[str, "short name, as in `runs`"]
    title: Annotated[str, "name of the work"]
    url: Annotated[str | None, "where it is published"]
    version: Annotated[str | None, "commit or version the rows were read from; null: not known"]
    licence: Annotated[str | None, "SPDX identifier of the data's licence; null: none is stated, do not redistribute"]
    citation: Annotated[str | None, "how to cite it"]
    measured: Annotated[str, "what was measured, and how"]
    derived: Annotated[str | None, "what was computed from it, by which formula; null: nothing"]
