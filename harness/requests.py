"""What is asked of a model, and what it runs on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a model. Every sequence of the batch has the same lengths."""

    model: str
    batch_size: int
    prompt_tokens: int
    output_tokens: int
    dtype: str

    @property
    def decode_steps(self) -> int:
        """Forward passes after the prefill, which yields the first token itself."""
        return max(0, self.output_tokens - 1)

    @property
    def context_tokens(self) -> int:
        """Longest context a forward pass sees: the last output token is never fed back."""
        return self.prompt_tokens + self.decode_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the request runs on."""

    device: str  # cuda, cpu, or virtual:NAME, a simulated GPU
    n_gpus: int  # 0 on the CPU
    ranks: int = 1  # worker processes that compute one run together
    nodes: int = 1  # machines they are spread over, the same number on each
    parallelism: str = "none"  # tensor: each rank has a share of every layer; layers: one process, GPUs take turns
    runtime: str = "hf"
    attention: str = "sdpa"
    kv_cache: bool = True
    cuda_graphs: bool = False
