"""Where a campaign runs: the devices of this machine, what they can do, and what can be measured on them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.campaign.estimate import Machine
from harness.campaign.plan import Plan
from harness.errors import UsageError
from harness.hardware import Hardware, find, known, read_hardware_file
from harness.measuring.attribution import Ceilings
from harness.measuring.ceilings import probe_cpu
from harness.meters.host import host_facts
from harness.meters.selection import GpuSearch, MeterBank, describe, find_gpus, meters_for
from harness.models.memory import available_memory_bytes
from harness.records import Provenance

_IDLE_SHARE = 0.17  # of board power with a context resident, on public A100 and H100 measurements
_HOST_S_PER_LAYER = 3e-4  # launching a transformer layer's eager operators, about twenty of 15 µs
_PROBE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One machine as a campaign sees it."""

    device: str  # cuda or cpu
    gpu: str  # name in the hardware table; "cpu: <model name>" for the CPU
    gpu_counts: tuple[int, ...]  # GPUs per run; (0,) on the CPU
    gpu_uuids: tuple[str, ...]  # of the GPUs that may be used, as CUDA addresses them
    dtype: str
    ceilings: Ceilings  # of one device, for ``dtype``
    memory_bytes: int  # of one device
    idle_power_w: float  # of one device; for estimates only
    load_power_w: float
    provenance: Provenance
    meter: str
    why_meter: str

    def machine(self, layers: int, n_gpus: int) -> Machine:
        """What estimates need to know of ``n_gpus`` devices that run a model of ``layers`` layers."""
        count = max(1, n_gpus)
        if self.ceilings.flop_per_s is None or self.ceilings.bytes_per_s is None:
            raise UsageError(
                f"{self.gpu}: peak {self.dtype} FLOP/s or bandwidth is not known, so nothing can be estimated.\n"
                "Give the device's figures with --hardware FILE.toml."
            )
        return Machine(
            peak_flop_per_s=self.ceilings.flop_per_s * count,
            peak_bytes_per_s=self.ceilings.bytes_per_s * count,
            memory_bytes=self.memory_bytes * count,
            idle_power_w=self.idle_power_w * count,
            load_power_w=self.load_power_w * count,
            host_s_per_pass=_HOST_S_PER_LAYER * layers,
        )


def find_site(plan: Plan, *, to_run: bool = True) -> Site:
    """Look at this machine; raises ``UsageError`` or ``MeterError`` where the plan cannot run on it.

    ``to_run=False`` is for planning only: the GPUs need not be usable by torch.
    """
    table = hardware_table(plan)  # read whatever the device: a file that is named must be there and right
    search = find_gpus()
    device = plan.device if plan.device != "auto" else ("cuda" if search.gpus or plan.gpus else "cpu")
    if device == "cpu":
        return _cpu_site(plan)
    site = _gpu_site(plan, search, table)
    if to_run and not torch.cuda.is_available():
        raise UsageError(
            f"The driver lists {site.gpu}, and torch {torch.__version__} cannot use it: it is built for "
            f"{f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU only'}.\n"
            "Install a torch build for this driver, or run on the CPU with `--device cpu`."
        )
    return site


def _cpu_site(plan: Plan) -> Site:
    if plan.gpus:
        raise UsageError("--gpus counts GPUs, and --device cpu uses none.\nLeave one of the two out.")
    dtype = "float32" if plan.dtype == "auto" else plan.dtype
    bank = meters_for("cpu")
    try:
        idle_power_w = _power_w(bank, lambda: time.sleep(_PROBE_S))
        found: list[Ceilings] = []
        load_power_w = _power_w(bank, lambda: found.append(probe_cpu(dtype, plan.cpu_threads)))
    finally:
        bank.close()
    return Site(
        device="cpu",
        gpu=f"cpu: {host_facts().cpu}",
        gpu_counts=(0,),
        gpu_uuids=(),
        dtype=dtype,
        ceilings=found[0],
        memory_bytes=available_memory_bytes(torch.device("cpu")),
        idle_power_w=idle_power_w,
        load_power_w=max(load_power_w, idle_power_w),
        provenance=bank.provenance,
        meter=describe(bank),
        why_meter=bank.why,
    )


def _power_w(bank: MeterBank, work: Callable[[], object]) -> float:
    start = bank.read_start()[0]
    work()
    end = bank.read_end()[0]
    return (end.energy_j - start.energy_j) / (end.at_s - start.at_s)


def _gpu_site(plan: Plan, search: GpuSearch, table: Sequence[Hardware]) -> Site:
    counts = plan.gpus or (1,)
    if not search.gpus:
        raise UsageError(
            f"This plan asks for GPUs, and there are none: {search.why_none}\n"
            "Run on the CPU with `--device cpu`, or see `python -m harness.doctor` for what is missing."
        )
    if max(counts) > len(search.gpus):
        raise UsageError(
            f"This plan asks for {max(counts)} GPUs per run, and {len(search.gpus)} can be seen here.\n"
            f"Ask for at most --gpus {len(search.gpus)}, or make more visible with CUDA_VISIBLE_DEVICES."
        )
    _refuse_several_ranks(counts)
    hardware = find(search.gpus[0].name, table)
    dtype = plan.dtype
    if dtype == "auto":  # GPUs before Ampere have no bfloat16
        dtype = "bfloat16" if hardware.supports("bfloat16") else "float16"
    bank = meters_for("cuda", gpu_indices=range(max(counts)))
    try:
        meter, why, provenance = describe(bank), bank.why, bank.provenance
    finally:
        bank.close()
    if hardware.board_power_w is None or hardware.memory_bytes is None:
        raise UsageError(
            f"{hardware.name}: board power or memory is not in the hardware table.\n"
            "Give both with --hardware FILE.toml."
        )
    return Site(
        device="cuda",
        gpu=hardware.name,
        gpu_counts=counts,
        gpu_uuids=tuple(gpu.uuid for gpu in search.gpus),
        dtype=dtype,
        ceilings=ceilings_of(hardware, dtype),
        memory_bytes=hardware.memory_bytes,
        idle_power_w=_IDLE_SHARE * hardware.board_power_w,
        load_power_w=hardware.board_power_w,
        provenance=provenance,
        meter=meter,
        why_meter=why,
    )


def _refuse_several_ranks(counts: Sequence[int]) -> None:
    if max(counts) > 1:
        raise UsageError(
            f"This plan asks for {max(counts)} GPUs per run, and this version runs a model on one GPU only.\n"
            "Leave --gpus out or ask for --gpus 1."
        )


def ceilings_of(hardware: Hardware, dtype: str) -> Ceilings:
    """Peak FLOP/s and bandwidth of a device in the hardware table; raises ``UsageError`` for an unsupported dtype."""
    return Ceilings(flop_per_s=hardware.peak_flop_per_s_for(dtype), bytes_per_s=hardware.peak_bytes_per_s)


def hardware_table(plan: Plan) -> tuple[Hardware, ...]:
    """The hardware table with the plan's own file in front."""
    return known(read_hardware_file(Path(plan.hardware_file)) if plan.hardware_file else ())
