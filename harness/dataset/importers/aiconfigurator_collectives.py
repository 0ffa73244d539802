"""Communication among aiconfigurator's files. Counts as in ``harness.tracing.collectives``: a ring is assumed.

``message_size`` counts elements of the whole tensor: the collector divides the bytes it gives to nccl-tests by the
size of an element, and ``half`` takes twice the time of ``int8`` at the same figure. Bytes that a rank must send at
least, whatever the algorithm (a switch that adds up halves what a ring sends): (N − 1)/N of the tensor.
"""

from harness.dataset.importers.aiconfigurator_kinds import (
    Bound,
    FileKind,
    Kernel,
    Size,
    activation_bits,
)
from harness.kernels import KernelKind

_WHOLE, _PART = "message_size", "message_size // num_gpus"


def _collective(kind: KernelKind, *, op_name: str, dtype: str) -> Kernel:
    given = _PART if kind is KernelKind.ALL_GATHER else _WHOLE
    written = _PART if kind is KernelKind.REDUCE_SCATTER else _WHOLE
    adds = kind in {KernelKind.ALL_REDUCE, KernelKind.REDUCE_SCATTER}
    width = f"({activation_bits(dtype)}) / 8"
    rounds = 2 if kind is KernelKind.ALL_REDUCE else 1
    sent = f"({_WHOLE} * {width} * (num_gpus - 1) / num_gpus)"
    return Kernel(
        kind=kind,
        op="op_name",
        dtype=dtype,
        sizes=(Size(name="elements", sql=given), Size(name="ranks", sql="num_gpus")),
        flop=f"{given} * (num_gpus - 1) // num_gpus" if adds else "0",
        read_bytes=f"({given}) * {width}",
        write_bytes=f"({written}) * {width}",
        link_bytes=f"{rounds} * {sent}",
        bound=Bound(flop="0", bytes="0", link_bytes=sent),
        gpus="num_gpus",
        where=f"op_name = '{op_name}'",
    )


def _library(dtype: str, backend: str) -> FileKind:
    kinds = {
        "all_reduce": KernelKind.ALL_REDUCE,
        "all_gather": KernelKind.ALL_GATHER,
        "reduce_scatter": KernelKind.REDUCE_SCATTER,
        "alltoall": KernelKind.ALL_TO_ALL,
    }
    kernels = tuple(_collective(kind, op_name=name, dtype=dtype) for name, kind in kinds.items())
    return FileKind(kernels=kernels, backend=backend)


_NODES = Size(name="nodes", sql="node_num")


def _deepep(part: str, time_us: str, *, sms: str | None) -> Kernel:
    """DeepEP: tokens to their experts and back, over all GPUs of the machines; how many bytes it sends is not said."""
    times = [f"{name}_{what}" for name in ("dispatch", "combine") for what in ("transmit_us", "notify_us", "avg_t_us")]
    rates = ["dispatch_bandwidth_gbps", "combine_bandwidth_gbps", "dispatch_sms", "combine_sms"]
    sizes = (
        Size(name="tokens", sql="num_token"),
        Size(name="experts", sql="num_experts"),
        Size(name="top_k", sql="num_topk"),
        Size(name="hidden", sql="hidden_size"),
        _NODES,
    )
    return Kernel(
        kind=KernelKind.ALL_TO_ALL,
        op=f"'deepep_' || op_name || '_{part}'",
        dtype="NULL",  # their files do not say
        sizes=sizes if sms is None else (*sizes, Size(name="sms", sql=sms)),
        time_s=f"{time_us} / 1e6",
        link_bytes=None,
        gpus="node_num * {gpus_per_node}",
        where="TRUE" if "notify" not in time_us else f"{time_us} > 0",  # 0 stands for: not measured
        unlike=(*times, *rates),
    )


_NORMAL = tuple(
    _deepep(f"{part}{suffix}", f"{part}_{what}", sms=f"{part}_sms")
    for suffix, what in (("", "transmit_us"), ("_notify", "notify_us"))
    for part in ("dispatch", "combine")
)
_LOW_LATENCY = tuple(_deepep(part, f"{part}_avg_t_us", sms=None) for part in ("dispatch", "combine"))

_EXPERT_SIZES = (
    Size(name="tokens", sql="num_tokens"),
    Size(name="experts", sql="num_experts"),
    Size(name="top_k", sql="topk"),
    Size(name="hidden", sql="hidden_size"),
)
_MOE_A2A = Kernel(
    kind=KernelKind.ALL_TO_ALL,
    op="op_name || '_' || phase",
    dtype="comm_dtype",
    sizes=(*_EXPERT_SIZES, Size(name="ranks", sql="ep_size"), _NODES),
    time_s="transmit_us / 1e6",  # of this file, ``latency`` repeats the same microseconds
    link_bytes=None,
    gpus="ep_size",
    unlike=("notify_us", "latency"),
)
_TRTLLM_A2A = Kernel(
    kind=KernelKind.ALL_TO_ALL,
    op="op_name",
    dtype="moe_dtype",
    sizes=(*_EXPERT_SIZES, Size(name="ranks", sql="moe_ep_size")),
    link_bytes=None,
    gpus="moe_ep_size",
)

COLLECTIVES = {
    "nccl_perf": _library("nccl_dtype", "nccl"),
    "oneccl_perf": _library("nccl_dtype", "oneccl"),
    "custom_allreduce_perf": FileKind(
        kernels=(_collective(KernelKind.ALL_REDUCE, op_name="all_reduce", dtype="allreduce_dtype"),)
    ),
    "wideep_deepep_normal_perf": FileKind(kernels=_NORMAL),
    "wideep_deepep_ll_perf": FileKind(kernels=_LOW_LATENCY),
    "moe_a2a_perf": FileKind(kernels=(_MOE_A2A,)),
    "trtllm_alltoall_perf": FileKind(kernels=(_TRTLLM_A2A,)),
}
