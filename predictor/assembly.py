"""From requests to forward passes: which passes a request is made of, how often each runs, and what they run on.

A request is its prefill and ``output_tokens − 1`` decode steps. A step's cost is a polynomial of its context of at most
the second degree between the places where a roof changes, so that the sum over all steps is taken at three contexts
(Gauss–Legendre, exact to the fifth degree). A served batch whose cache does not fit runs in waves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError, UsageError
from predictor.deployments import Deployment
from predictor.kernel_table import Floats
from predictor.requests import Parallelism, PredictionRequest, Refusal
from predictor.templates import GraphTemplate, checkpoint_dtype, template

SERVED = frozenset({"vllm", "trtllm", "sglang", "tgi", "lmdeploy"})
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(3)
_HOST_LINK_BYTES_PER_S = 12e9  # of a pageable copy over PCIe 3 or 4: offloaded weights come in at every pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """One request as passes: Q of them."""

    request: PredictionRequest
    graphs: GraphTemplate
    deployment: Deployment
    batch: Floats  # [Q] sequences of one pass
    query: Floats  # [Q] new tokens of each; of a decode pass without a cache the whole context
    context: Floats  # [Q] tokens before a decode step; of a prefill its own
    decode: Floats  # [Q] 1: a decode step
    times: Floats  # [Q] how often the pass runs in the request
    offloaded_s: float  # seconds of every pass in which weights come from the host
    warnings: tuple[str, ...]


def assemble(request: PredictionRequest) -> Assembled | Refusal:
    """The passes of one request, or why there are none."""
    try:
        return _assembled(request)
    except HarnessError as error:
        return Refusal(reason=str(error))


def is_served(runtime: str) -> bool:
    """Whether a runtime is a server rather than transformers' own code."""
    return runtime in SERVED


def _assembled(request: PredictionRequest) -> Assembled:
    served = is_served(request.runtime)
    graphs = _graphs(request, served)
    sequences, waves, offloaded_s, warnings = _memory(request, graphs, served)
    batch, query, context, decode, times = _passes(request, sequences)
    return Assembled(
        request=request,
        graphs=graphs,
        deployment=Deployment(
            hardware=request.hardware,
            runtime=request.runtime,
            sm_clock_mhz=request.sm_clock_mhz,
            power_limit_w=request.power_limit_w,
        ),
        batch=batch,
        query=query,
        context=context,
        decode=decode,
        times=times * waves,
        offloaded_s=offloaded_s,
        warnings=warnings,
    )


def _graphs(request: PredictionRequest, served: bool) -> GraphTemplate:
    tensor = request.parallelism is Parallelism.TENSOR
    spread = request.expert_parallel if tensor else None
    degree = request.n_gpus // (request.data_parallel or 1) if tensor else 1
    return template(
        request.model,
        runtime_class="served" if served else "eager",
        dtype=checkpoint_dtype(request.model, request.dtype) if served else request.dtype,
        attention=None if served else request.attention,
        tensor_parallel=degree,
        expert_parallel=spread,
        kv_cache=request.kv_cache,
    )


def _passes(request: PredictionRequest, sequences: float) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    steps = max(0, request.output_tokens - 1)
    prompt = float(request.prompt_tokens)
    contexts, times = _contexts(prompt, steps)
    context = np.concatenate(([prompt], contexts))
    decode = np.concatenate(([0.0], np.ones(len(contexts))))
    query = np.where(decode > 0, 1.0 if request.kv_cache else context + 1, prompt)
    batch, times = np.full(len(context), sequences), np.concatenate(([1.0], times))
    if request.server:  # each sequence comes with a prefill of its own, between the steps of the others
        batch[0], times[0] = 1.0, sequences
    return batch, query, context, decode, times


def _contexts(prompt: float, steps: int) -> tuple[Floats, Floats]:
    """Contexts of decode steps and how many steps each stands for."""
    if steps <= len(_POINTS):
        return prompt + np.arange(steps, dtype=np.float64), np.ones(steps)
    middle, half = prompt + (steps - 1) / 2, steps / 2
    return np.maximum(1.0, np.rint(middle + half * _POINTS)), steps * _WEIGHTS / 2


def _memory(
    request: PredictionRequest, graphs: GraphTemplate, served: bool
) -> tuple[float, float, float, tuple[str, ...]]:
    """Sequences at once, waves, seconds of offloading in every pass, warnings."""
    layers = request.parallelism is Parallelism.LAYERS
    fit = graphs.memory(
        request.hardware,
        batch_size=request.batch_size,
        context_tokens=request.prompt_tokens + max(0, request.output_tokens - 1),
        n_gpus=request.n_gpus if layers else None,
    )
    batch = float(request.batch_size)
    if fit.usable_bytes is None:
        return batch, 1.0, 0.0, ()
    gib = 1024**3
    if not fit.weights_fit:
        text = (
            f"The weights of {request.model} need {fit.weight_bytes / gib:.0f} GiB on each of {request.n_gpus} × "
            f"{request.hardware.name}, which has {fit.usable_bytes / gib:.0f} GiB for them."
        )
        if served:
            raise UsageError(f"{text}\nUse more GPUs, or a dtype of fewer bits.")
        excess = fit.weight_bytes - 0.9 * fit.usable_bytes
        return batch, 1.0, excess / _HOST_LINK_BYTES_PER_S, (f"{text} The rest is read from the host in every pass.",)
    if fit.sequences >= fit.batch_size or not request.kv_cache:
        return batch, 1.0, 0.0, ()
    text = (
        f"The KV cache of {request.batch_size} sequences needs "
        f"{fit.batch_size * fit.sequence_bytes / gib:.0f} GiB on each GPU beside {fit.weight_bytes / gib:.0f} GiB of "
        f"weights, and {request.hardware.name} has {fit.usable_bytes / gib:.0f} GiB; {fit.sequences} sequences fit."
    )
    if not served or fit.waves is None:
        raise UsageError(f"{text}\nUse a smaller batch, shorter sequences, more GPUs, or a serving runtime.")
    if request.server:
        return batch * fit.sequences / fit.batch_size, 1.0, 0.0, (f"{text} The others wait.",)
    return batch / fit.waves, float(fit.waves), 0.0, (f"{text} They run in {fit.waves} waves.",)


def regrouped(assembled: Sequence[Assembled]) -> dict[int, list[int]]:
    """Places of requests whose passes are expanded together: those of one graph template."""
    groups: dict[int, list[int]] = {}
    for place, entry in enumerate(assembled):
        groups.setdefault(id(entry.graphs), []).append(place)
    return groups
