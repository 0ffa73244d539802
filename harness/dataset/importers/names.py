"""Models and GPUs as sources call them, as the Hub and the hardware table call them, and what a model computes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from harness.errors import UnknownHardware
from harness.hardware import Hardware, find

# A GPU may read a little above its limit for a moment: windows of NVML counters do not begin and end with its updates.
_POWER_MARGIN: Final = 1.03


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSize:
    """Plain facts of a model's config.json, enough to count what its layers compute."""

    layers: int
    hidden: int
    kv_width: int  # KV heads × head dimension
    mlp_width: int
    mlp_matrices: int  # 2, or 3 with a gate

    @property
    def parameters(self) -> int:
        """Parameters of the matrices in the layers: no embedding, no head, no norms."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_width
        return self.layers * (attention + self.mlp_matrices * self.hidden * self.mlp_width)

    @property
    def flop_per_token(self) -> float:
        """FLOP for one token of a pass: 2 per parameter."""
        return 2.0 * self.parameters

    @property
    def flop_per_token_squared(self) -> float:
        """FLOP of attention in a pass over t tokens, divided by t²: scores and values, without the masked half."""
        return 2.0 * self.layers * self.hidden

    def forward_flop(self, batch_size: int, tokens: int) -> float:
        """FLOP of one pass over whole sequences.

        Source: Kaplan et al., "Scaling laws for neural language models", arXiv 2001.08361, table 1. It is a lower
        bound: masked halves that a kernel computes all the same, the head and all small kernels are left out.
        """
        return batch_size * (self.flop_per_token * tokens + self.flop_per_token_squared * tokens**2)

    def step_flop(self, batch_size: int, context_tokens: float) -> float:
        """FLOP of one decode step with a KV cache: 2 per parameter, and attention over the whole context."""
        return batch_size * (self.flop_per_token + 2 * self.flop_per_token_squared * context_tokens)


def _size(layers: int, hidden: int, kv_width: int, mlp_width: int, mlp_matrices: int) -> DecoderSize:
    return DecoderSize(layers=layers, hidden=hidden, kv_width=kv_width, mlp_width=mlp_width, mlp_matrices=mlp_matrices)


_SIZES: Final[Mapping[str, DecoderSize]] = {
    "google-bert/bert-base-uncased": _size(12, 768, 768, 3072, 2),
    "google-bert/bert-large-uncased": _size(24, 1024, 1024, 4096, 2),
    "openai-community/gpt2": _size(12, 768, 768, 3072, 2),
    "openai-community/gpt2-medium": _size(24, 1024, 1024, 4096, 2),
    "openai-community/gpt2-large": _size(36, 1280, 1280, 5120, 2),
    "openai-community/gpt2-xl": _size(48, 1600, 1600, 6400, 2),
    "facebook/opt-125m": _size(12, 768, 768, 3072, 2),
    "facebook/opt-1.3b": _size(24, 2048, 2048, 8192, 2),
    "facebook/opt-2.7b": _size(32, 2560, 2560, 10240, 2),
    "facebook/opt-6.7b": _size(32, 4096, 4096, 16384, 2),
    "facebook/opt-13b": _size(40, 5120, 5120, 20480, 2),
    "Qwen/Qwen2-0.5B": _size(24, 896, 128, 4864, 3),
    "Qwen/Qwen2-1.5B": _size(28, 1536, 256, 8960, 3),
    "Qwen/Qwen2-7B": _size(28, 3584, 512, 18944, 3),
    "meta-llama/Meta-Llama-3-8B": _size(32, 4096, 1024, 14336, 3),
    "meta-llama/Llama-2-7b-chat-hf": _size(32, 4096, 4096, 11008, 3),
    "meta-llama/Llama-2-13b-chat-hf": _size(40, 5120, 5120, 13824, 3),
    "meta-llama/Llama-2-70b-chat-hf": _size(80, 8192, 1024, 28672, 3),
    "meta-llama/Llama-2-70b-hf": _size(80, 8192, 1024, 28672, 3),
    "mistralai/Mistral-7B-v0.1": _size(32, 4096, 1024, 14336, 3),
    "tiiuae/falcon-7b": _size(32, 4544, 64, 18176, 2),
    "tiiuae/falcon-40b": _size(60, 8192, 512, 32768, 2),
    "bigscience/bloom": _size(70, 14336, 14336, 57344, 2),
}


def size_of(model: str) -> DecoderSize | None:
    """Sizes of a model by its Hub id; None where this table does not have it."""
    return _SIZES.get(model)


@lru_cache(maxsize=1024)  # of a table, every row names one
def gpu_named(name: str) -> Hardware | None:
    """The one device of the hardware table with this name; None if there is none, or several share it."""
    try:
        return find(name)
    except UnknownHardware:
        return None


def within_limit(gpu: Hardware, power_w: float) -> bool:
    """Whether a mean power is one that the device can have at its default limit."""
    return gpu.board_power_w is None or power_w <= gpu.board_power_w * _POWER_MARGIN


def variant_by_power(names: Iterable[str], level_w: float) -> Hardware | None:
    """Of several variants of a GPU the one whose power limit a measured level reaches, but does not exceed.

    That is the variant with the lowest limit that is not below the level; None where the level exceeds them all.
    """
    fitting = [device for device in map(find, names) if within_limit(device, level_w)]
    return min(fitting, key=lambda device: device.board_power_w or 0.0, default=None)
