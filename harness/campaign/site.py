"""Where a campaign runs: the devices of this machine, what they can do, and what can be measured on them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.campaign.estimate import Machine
from harness.campaign.plan import MOST_VIRTUAL, VIRTUAL, Plan
from harness.errors import UsageError
from harness.hardware import Hardware, find, known, read_hardware_file
from harness.measuring.attribution import Ceilings
from harness.measuring.ceilings import probe_cpu
from harness.meters.host import host_facts
from harness.meters.selection import GpuSearch, MeterBank, describe, find_gpus, meters_for
from harness.models.memory import available_memory_bytes
from harness.records import Provenance
from harness.requests import Deployment
from harness.virtual.gpu import read_virtual_gpu

_IDLE_SHARE = 0.17  # of board power with a context resident, on public A100 and H100 measurements
_HOST_S_PER_LAUNCH = 1.4e-5  # eager Hugging Face runs need 12 to 17 µs of the host for a kernel
_PROBE_S = 0.3
VIRTUAL_PREFIX = "virtual: "  # before the name of the hardware that a virtual GPU simulates, as ``cpu: `` for a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One machine as a campaign sees it."""

    device: str  # cuda or cpu
    gpu: str  # name in the hardware table; "cpu: <model name>" for the CPU
    gpu_counts: tuple[int, ...]  # GPUs per run; (0,) on the CPU
    rank_counts: tuple[int, ...] = (1,)  # on the CPU: ranks per run
    gpu_uuids: tuple[str, ...]  # of the GPUs that may be used, as CUDA addresses them
    dtype: str
    ceilings: Ceilings  # of one device, for ``dtype``
    memory_bytes: int  # of one device
    link_bytes_per_s: float | None = None  # of one device, one direction; None: not known, or no links
    idle_power_w: float  # of one device; for estimates only
    load_power_w: float
    provenance: Provenance
    meter: str
    why_meter: str

    def deployments(self, plan: Plan, attention: str) -> tuple[Deployment, ...]:
        """What each request of a plan runs on here, one deployment per count."""
        counts = self.rank_counts if self.device == "cpu" else self.gpu_counts
        return tuple(self._deployment(plan, attention, count) for count in counts)

    def _deployment(self, plan: Plan, attention: str, count: int) -> Deployment:
        parallelism = plan.parallelism if count > 1 else "none"
        return Deployment(
            device=self.device,
            n_gpus=0 if self.device == "cpu" else count,
            ranks=count if parallelism == "tensor" else 1,
            nodes=plan.nodes,
            parallelism=parallelism,
            attention=attention,
            kv_cache=plan.kv_cache,
        )

    def machine(self, deployment: Deployment) -> Machine:
        """What estimates need to know of the devices of a deployment.

        Ranks on a CPU share it, and GPUs that split a model by layers take turns.
        """
        count = max(1, deployment.n_gpus, deployment.nodes)
        at_work = 1 if deployment.parallelism == "layers" else count
        if self.ceilings.flop_per_s is None or self.ceilings.bytes_per_s is None:
            raise UsageError(
                f"{self.gpu}: peak {self.dtype} FLOP/s or bandwidth is not known, so nothing can be estimated.\n"
                "Give the device's figures with --hardware FILE.toml."
            )
        return Machine(
            peak_flop_per_s=self.ceilings.flop_per_s * at_work,
            peak_bytes_per_s=self.ceilings.bytes_per_s * at_work,
            memory_bytes=self.memory_bytes * count,
            idle_power_w=self.idle_power_w * count,
            load_power_w=self.load_power_w * at_work + self.idle_power_w * (count - at_work),
            ranks=deployment.ranks,
            link_bytes_per_s=self.link_bytes_per_s,
            host_s_per_launch=_HOST_S_PER_LAUNCH,
            host_is_device=self.device == "cpu",
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
    if device.startswith(VIRTUAL):
        return virtual_site(plan, table)
    site = _gpu_site(plan, search, table)
    if to_run and not torch.cuda.is_available():
        raise UsageError(
            f"The driver lists {site.gpu}, and torch {torch.__version__} cannot use it: it is built for "
            f"{f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU only'}.\n"
            "Install a torch build for this driver, or run on the CPU with `--device cpu`."
        )
    return site


def _cpu_site(plan: Plan) -> Site:
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
        rank_counts=plan.gpus or (1,),
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
    here = max(counts) // plan.nodes
    if here > len(search.gpus):
        raise UsageError(
            f"This plan asks for {here} GPUs per run on this machine, and {len(search.gpus)} can be seen here.\n"
            f"Ask for at most --gpus {len(search.gpus) * plan.nodes}, or make more visible with CUDA_VISIBLE_DEVICES."
        )
    hardware = find(search.gpus[0].name, table)
    dtype = plan.dtype
    if dtype == "auto":  # GPUs before Ampere have no bfloat16
        dtype = "bfloat16" if hardware.supports("bfloat16") else "float16"
    bank = meters_for("cuda", gpu_indices=range(here))
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
        link_bytes_per_s=hardware.link_bytes_per_s,
        idle_power_w=_IDLE_SHARE * hardware.board_power_w,
        load_power_w=hardware.board_power_w,
        provenance=provenance,
        meter=meter,
        why_meter=why,
    )


def virtual_site(plan: Plan, table: Sequence[Hardware]) -> Site:
    """A machine that does not exist; raises ``UsageError`` for a virtual GPU that cannot be what the plan asks for."""
    gpu = read_virtual_gpu(plan.device.removeprefix(VIRTUAL), hardware_table=table)
    hardware, counts = gpu.load.hardware, plan.gpus or (1,)
    if max(counts) > MOST_VIRTUAL or plan.nodes > 1:
        raise UsageError(
            f"A virtual machine has 1 to {MOST_VIRTUAL} GPUs and is one machine; this plan asks for "
            f"{max(counts)} GPUs on {plan.nodes} machine(s).\nAsk for fewer (--gpus, --nodes)."
        )
    if hardware.memory_bytes is None:
        raise UsageError(f"{hardware.name}: its memory is not known.\nGive it with --hardware FILE.toml.")
    dtype = plan.dtype
    if dtype == "auto":
        dtype = "bfloat16" if hardware.supports("bfloat16") else "float16"
    return Site(
        device=plan.device,
        gpu=f"{VIRTUAL_PREFIX}{hardware.name}",
        gpu_counts=counts,
        gpu_uuids=(),
        dtype=dtype,
        ceilings=ceilings_of(hardware, dtype),
        memory_bytes=hardware.memory_bytes,
        link_bytes_per_s=hardware.link_bytes_per_s,
        idle_power_w=gpu.load.idle_power_w,
        load_power_w=gpu.load.power_limit_w,
        provenance=Provenance.SIMULATED,
        meter=f"virtual:0 ({Provenance.SIMULATED.value})",
        why_meter="virtual GPUs: simulated, never measured",
    )


def ceilings_of(hardware: Hardware, dtype: str) -> Ceilings:
    """Peak FLOP/s and bandwidth of a device in the hardware table; raises ``UsageError`` for an unsupported dtype."""
    return Ceilings(flop_per_s=hardware.peak_flop_per_s_for(dtype), bytes_per_s=hardware.peak_bytes_per_s)


def hardware_table(plan: Plan) -> tuple[Hardware, ...]:
    """The hardware table with the plan's own file in front."""
    return known(read_hardware_file(Path(plan.hardware_file)) if plan.hardware_file else ())
