"""Capture the kernel graph of a model from its config alone: no weights, no GPU, no process group.

    captured = GraphCapture(config, model="meta-llama/Llama-3.1-70B", tensor_parallel=8)
    graph = captured.capture(Phase.DECODE, batch_size=8, tokens=512)

The model's own code runs on the meta device, so a graph follows transformers, whatever the architecture.
"""

from functools import partial
from typing import Any

import torch

from harness.errors import CannotCapture, HarnessError, UsageError
from harness.kernels import Phase
from harness.models.attention import register_flash_stand_in
from harness.models.caches import cache_argument
from harness.models.dtypes import torch_dtype
from harness.models.meta import MetaModel, meta_model
from harness.models.quiet import quiet_transformers
from harness.models.steps import forward_options
from harness.tracing.fused import flash_attention
from harness.tracing.graph import KernelGraph
from harness.tracing.recorder import Recorder
from harness.tracing.sharding import Sharding, sharded

FLASH = "flash_attention_2"


class GraphCapture:
    """Captures graphs of one model, which is built once for a dtype, an attention implementation and a degree."""

    def __init__(
        self,
        config: Any,
        *,
        model: str,
        dtype: str = "bfloat16",
        attention: str = "sdpa",
        tensor_parallel: int = 1,
        unroll: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """``config`` is a transformers config, ``model`` the name that graphs carry.

        ``unroll`` gives a kernel for every layer instead of one for all layers of a kind. Raises ``UsageError`` for a
        degree of tensor parallelism that the model cannot run at, ``CannotCapture`` where no model can be built.
        """
        self._config, self._name = config, model
        self._dtype, self._attention = dtype, attention
        self._degree, self._unroll = tensor_parallel, unroll
        self._trust = trust_remote_code
        with self._translated("The model"):
            self._build(once=not unroll)

    def capture(self, phase: Phase, *, batch_size: int, tokens: int, kv_cache: bool = True) -> KernelGraph:
        """The graph of one forward pass on one rank.

        ``tokens`` are those of the prompt, or for decode those in the cache before the step; without a cache a decode
        step is a pass over the whole context. Raises ``CannotCapture``.
        """
        if batch_size < 1 or tokens < 1:
            raise UsageError(f"A batch of {batch_size} with {tokens} tokens is empty; both must be at least 1.")
        with self._translated(f"The {phase}"):
            try:
                return self._captured(phase, batch_size, tokens, kv_cache)
            except Exception:
                if self._meta.repeated is None:
                    raise
                self._build(once=False)  # layers that look alike and are not, or that are looked into: each is run
                return self._captured(phase, batch_size, tokens, kv_cache)

    def _build(self, *, once: bool) -> None:
        """Build the model; ``once``: each kind of layer, unless the model looks into its layers as it is built."""
        attention = register_flash_stand_in(flash_attention) if self._attention == FLASH else self._attention
        build = partial(
            meta_model,
            self._config,
            dtype=torch_dtype(self._dtype),
            attention=attention,
            trust_remote_code=self._trust,
        )
        try:
            self._meta: MetaModel = build(once=once)
        except Exception:
            if not once:
                raise
            self._meta = build(once=False)
        self._sharding: Sharding = sharded(self._meta.model, self._degree, self._name)

    def _translated(self, what: str) -> "_Translated":
        return _Translated(f"{what} of {self._name}")

    @torch.no_grad()
    def _captured(self, phase: Phase, batch_size: int, tokens: int, kv_cache: bool) -> KernelGraph:
        model = self._meta.model
        recorder = Recorder(model, self._meta.repeated, unroll=self._unroll)
        options = forward_options(model, kv_cache=kv_cache)
        query_tokens = 1 if phase is Phase.DECODE and kv_cache else tokens + (phase is Phase.DECODE)
        self._sharding.recorder = recorder
        with quiet_transformers(), torch.device("meta"):
            if phase is Phase.DECODE and kv_cache:
                options |= self._filled_cache(batch_size, tokens, options, recorder)
            prompt = torch.zeros((batch_size, query_tokens), dtype=torch.int64)  # [batch, query_tokens]
            with recorder.recording(tokens=batch_size * query_tokens):
                logits = model(prompt, **options).logits[:, -1]  # [batch, vocabulary]
                logits.argmax(dim=-1, keepdim=True)  # the next token, as a step chooses it
        recording = recorder.result()
        graph = KernelGraph(
            model=self._name,
            phase=phase,
            batch_size=batch_size,
            query_tokens=query_tokens,
            context_tokens=tokens + (phase is Phase.DECODE),
            dtype=self._dtype,
            attention=self._attention,
            tensor_parallel=self._degree,
            kernels=recording.kernels,
            edges=recording.edges,
        )
        graph.validate()
        return graph

    def _filled_cache(
        self, batch_size: int, tokens: int, options: dict[str, Any], recorder: Recorder
    ) -> dict[str, Any]:
        """The cache of a context, from a pass that is not recorded."""
        model = self._meta.model
        name = cache_argument(model)
        if name is None:
            raise UsageError(f"{self._name} takes no cache between forward passes: capture its decode without one.")
        with recorder.recording(tokens=batch_size * tokens, on=False):
            output = model(torch.zeros((batch_size, tokens), dtype=torch.int64), **options)
        cache = getattr(output, name, None)
        if cache is None:
            raise UsageError(f"{self._name} hands out no cache between forward passes: capture its decode without one.")
        return {name: cache}


class _Translated:
    """Whatever a model's code raises becomes ``CannotCapture``; errors of the harness pass."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, HarnessError):
            return
        reason = " ".join((str(error) or "no reason given").split())[:300]
        raise CannotCapture(
            f"{self._what} cannot be captured on the meta device: {type(error).__name__}: {reason}\n"
            "docs/coverage.md lists what can; `python -m harness.run` traces the kernels of any model that runs."
        ) from error
