"""Servers at steady state as ML.ENERGY measures them: one sample each, checked against itself and against physics."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.dataset.importers.importing import content_id
from harness.dataset.importers.names import gpu_named, within_limit
from harness.dataset.importers.repeats import RunRows, environment_of, joined, reading_of, run_from, with_energy
from harness.errors import UsageError
from harness.hardware import Hardware, find
from harness.records import SourceRow
from harness.words import Part, Workload

NO_GPU: Final = "a GPU that is not in the hardware table, or a name that several share"
NOT_POSITIVE: Final = "a figure is zero or negative"
NO_BALANCE: Final = "energy per token × tokens per second and mean power differ by more than 5 %"
NO_PRODUCT: Final = "energy per request and energy per token × output length differ by more than 5 %"
TOO_MUCH_POWER: Final = "mean power above the limit of the GPUs"
HOST_BOUND: Final = "bound by the host: power below 0.55 of the limit, and a step of more than 1.8 × its Roofline"
IMAGES: Final = "prompts hold images: their tokens are not counted"
VIDEO: Final = "prompts hold video: its tokens are not counted"

_METER: Final = "Zeus: NVML energy counters of all GPUs, over a steady state"
_METHOD: Final = "nvml-counter"
_DIFFERENCE: Final = 0.05
_IDLE_SHARE: Final = 0.55
_SLOW_STEP: Final = 1.8
_MEDIA: Final[Mapping[str, str]] = {"image-chat": IMAGES, "video-chat": VIDEO}
_GPUS: Final[Mapping[str, str]] = {"H100": "NVIDIA H100 80GB HBM3", "B200": "NVIDIA B200"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Precision:
    """What a precision of weights means: the method of the checkpoint, and the peaks it may be computed at."""

    quantization: str | None
    bytes: float  # of one parameter
    peaks: tuple[str, ...]


# mxfp4: 4 bits, and a scale of 8 bits for 32 of them (OCP Microscaling Formats, 2023).
_PRECISIONS: Final[Mapping[str, _Precision]] = {
    "bfloat16": _Precision(quantization=None, bytes=2.0, peaks=("bfloat16",)),
    "fp8": _Precision(quantization="fp8", bytes=1.0, peaks=("float8", "bfloat16")),
    "mxfp4": _Precision(quantization="mxfp4", bytes=4.25 / 8, peaks=("float4", "float8", "bfloat16")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What was served, and on what; equal ones are repeats."""

    model: str
    prompts: str  # name of the task
    gpu: str  # as the source writes it
    n_gpus: int
    tensor_parallel: int
    expert_parallel: int
    data_parallel: int
    batch_size: int  # most sequences at once
    precision: str  # of the weights
    parameters: float
    active_parameters: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSample:
    """One steady state. Equal ones are one: figures of so many digits do not repeat."""

    deployment: Deployment
    energy_per_request_j: float
    energy_per_token_j: float
    mean_power_w: float  # of all GPUs
    tokens_per_s: float
    median_step_s: float  # inter-token latency
    mean_batch_size: float
    mean_output_tokens: float

    @property
    def figures(self) -> tuple[float, ...]:
        """All that has to be above zero."""
        return (
            *(self.energy_per_request_j, self.energy_per_token_j, self.mean_power_w, self.tokens_per_s),
            *(self.median_step_s, self.mean_batch_size, self.mean_output_tokens),
        )


def served_gpu(name: str) -> Hardware | None:
    """The GPU a source names; None if the hardware table has not exactly one of that name."""
    known = _GPUS.get(name)
    return find(known) if known else gpu_named(name)


def server_rows(
    source: SourceRow, deployment: Deployment, samples: Sequence[ServerSample], gpu: Hardware, version: str | None
) -> RunRows:
    """Rows of one deployment, from all its repeats; ``version`` is that of vLLM."""
    environment = environment_of(gpu, device_name=deployment.gpu, meter=_METER, dtype="bfloat16")
    precision = _PRECISIONS.get(deployment.precision)
    flags = tuple(dict.fromkeys(flag for sample in samples for flag in flags_of(sample, gpu)))
    spread = deployment.expert_parallel > 1 or deployment.data_parallel > 1
    run = replace(
        run_from(source),
        run_id=_run_id(source, deployment),
        environment_id=environment.environment_id,
        workload=Workload.SERVER,
        model=deployment.model,
        dtype="bfloat16" if precision else None,
        quantization=precision.quantization if precision else deployment.precision,
        runtime="vllm",
        runtime_version=version,
        kv_cache=True,
        gpu=gpu.name,
        n_gpus=deployment.n_gpus,
        parallelism="mixed" if spread else "tensor" if deployment.tensor_parallel > 1 else "none",
        tensor_parallel=deployment.tensor_parallel,
        expert_parallel=deployment.expert_parallel if deployment.expert_parallel > 1 else None,
        data_parallel=deployment.data_parallel if deployment.data_parallel > 1 else None,
        batch_size=deployment.batch_size,
        prompts=deployment.prompts,
        mean_batch_size=_median(samples, lambda sample: sample.mean_batch_size),
        mean_output_tokens=_median(samples, lambda sample: sample.mean_output_tokens),
        mean_power_w=_median(samples, lambda sample: sample.mean_power_w),
        output_tokens_per_s=_median(samples, lambda sample: sample.tokens_per_s),
        tpot_s=_median(samples, lambda sample: sample.median_step_s),
        status_detail=joined(flags),
        method=_METHOD,
    )
    return RunRows(
        run=with_energy(run, [sample.energy_per_request_j for sample in samples], []),
        readings=tuple(
            reading_of(run.run_id, Part.RUN, trial, "zeus:nvml", energy_j=sample.energy_per_request_j, duration_s=None)
            for trial, sample in enumerate(samples)
        ),
        environment=environment,
        flags=flags,
    )


def flags_of(sample: ServerSample, gpu: Hardware) -> Iterator[str]:
    """Rules by which a steady state is suspicious, or another regime."""
    deployment = sample.deployment
    if _differ(sample.energy_per_token_j * sample.tokens_per_s, sample.mean_power_w):
        yield NO_BALANCE
    if _differ(sample.energy_per_token_j * sample.mean_output_tokens, sample.energy_per_request_j):
        yield NO_PRODUCT
    if not within_limit(gpu, sample.mean_power_w / deployment.n_gpus):
        yield TOO_MUCH_POWER
    limit_w = (gpu.board_power_w or 0.0) * deployment.n_gpus
    least_s = least_step_s(sample, gpu)
    if sample.mean_power_w < _IDLE_SHARE * limit_w and least_s and sample.median_step_s > _SLOW_STEP * least_s:
        yield HOST_BOUND
    if deployment.prompts in _MEDIA:
        yield _MEDIA[deployment.prompts]


def least_step_s(sample: ServerSample, gpu: Hardware) -> float | None:
    """Roofline of one decode step over all GPUs: reading the weights it needs, or its products, whichever is slower.

    Of a mixture of experts the share that b sequences miss is (1 − active/all)^b, as if experts were drawn evenly.
    KV caches are left out, for the lengths of prompts are not published: a lower bound. None: peaks are not known.
    """
    deployment, precision = sample.deployment, _PRECISIONS.get(sample.deployment.precision)
    if precision is None or gpu.peak_bytes_per_s is None:
        return None
    share = min(1.0, deployment.active_parameters / deployment.parameters)
    idle = math.pow(1 - share, sample.mean_batch_size)  # of the parameters that one token does not need
    read = deployment.active_parameters + (deployment.parameters - deployment.active_parameters) * (1 - idle)
    memory_s = read * precision.bytes / gpu.peak_bytes_per_s
    peak = max((_peak(gpu, dtype) for dtype in precision.peaks), default=0.0)
    compute_s = 2 * deployment.active_parameters * sample.mean_batch_size / peak if peak else 0.0
    return max(memory_s, compute_s) / deployment.n_gpus


def _peak(gpu: Hardware, dtype: str) -> float:
    try:
        return gpu.peak_flop_per_s_for(dtype)
    except UsageError:  # no native units for it
        return 0.0


def _run_id(source: SourceRow, deployment: Deployment) -> str:
    return content_id(
        source.source,
        deployment.model,
        deployment.prompts,
        deployment.gpu,
        deployment.n_gpus,
        deployment.tensor_parallel,
        deployment.expert_parallel,
        deployment.data_parallel,
        deployment.batch_size,
        deployment.precision,
    )


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > _DIFFERENCE * abs(other)


def _median(samples: Sequence[ServerSample], figure: Callable[[ServerSample], float]) -> float:
    return statistics.median(map(figure, samples))
