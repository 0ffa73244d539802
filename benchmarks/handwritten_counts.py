"""FLOP of a pass as analysers have them written by hand, and term by term where that departs from the model's code.

Six numbers of the config and a formula per layer, as in LLM-Viewer (github.com/hahnyuan/LLM-Viewer, model_analyzer.py).
"""

from dataclasses import dataclass
from typing import Any

from harness.kernels import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward pass: tokens of each sequence that go through the model, and that attention sees."""

    phase: Phase
    batch: int
    query: int
    context: int

    @property
    def tokens(self) -> int:
        """Over all sequences."""
        return self.batch * self.query


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One reason why the analyser's count differs, and by how much: positive where it counts more."""

    why: str
    flop: int


def analyser_flop(config: Any, run: Pass) -> int:
    """FLOP as an analyser counts them: two per parameter and token, and attention as wide as the model.

    Heads share the width of the model, every layer is alike and sees the whole context, a token goes through so many
    experts, and the last position has logits.
    """
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    head_dim = width // heads
    kv_heads = getattr(config, "num_key_value_heads", heads)
    attention_weights = width * head_dim * (2 * heads + 2 * kv_heads)
    attention = 2 * 2 * run.tokens * run.context * heads * head_dim
    linear = 2 * run.tokens * (attention_weights + _mlp_weights(config))
    return int(layers * (linear + attention) + 2 * run.batch * width * config.vocab_size)


def _mlp_weights(config: Any) -> int:
    """Two matrices, or three with a gate, for each expert that a token goes through."""
    width = config.hidden_size
    if config.model_type == "gpt2":
        return int(2 * width * (config.n_inner or 4 * width))
    if config.model_type == "opt":
        return int(2 * width * config.ffn_dim)
    inner = getattr(config, "moe_intermediate_size", config.intermediate_size)
    experts = getattr(config, "num_experts_per_tok", 1) + getattr(config, "n_shared_experts", 0)
    return int(3 * width * inner * experts)


def gaps_of(config: Any, run: Pass) -> tuple[Gap, ...]:
    """Why an analyser's count differs from the graph's, term by term."""
    if config.model_type == "deepseek_v3":
        return (*_latent_attention(config, run), _router(config, run, config.n_routed_experts))
    gaps = _wider_heads(config, run) + _windows(config, run)
    if config.model_type == "mixtral":
        gaps += (_router(config, run, config.num_local_experts),)
    return gaps


def _router(config: Any, run: Pass, experts: int) -> Gap:
    layers = config.num_hidden_layers - getattr(config, "first_k_dense_replace", 0)
    flop = 2 * run.tokens * layers * config.hidden_size * experts
    return Gap(why="the router that chooses the experts is left out", flop=-flop)


def _wider_heads(config: Any, run: Pass) -> tuple[Gap, ...]:
    width, heads = config.hidden_size, config.num_attention_heads
    missing = (getattr(config, "head_dim", None) or width // heads) - width // heads
    if missing == 0:
        return ()
    products = 2 * run.tokens * width * missing * (2 * heads + 2 * config.num_key_value_heads)
    attention = 2 * 2 * run.tokens * run.context * heads * missing
    why = f"heads are {config.head_dim} wide, not width ÷ heads = {width // heads}"
    return (Gap(why=why, flop=-config.num_hidden_layers * (products + attention)),)


def _windows(config: Any, run: Pass) -> tuple[Gap, ...]:
    """In a prefill a window only masks, and the square is counted all the same; a step's cache is cut to it."""
    window = getattr(config, "sliding_window", None)
    if window is None or run.phase is Phase.PREFILL or run.context <= window:
        return ()
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    layers = types.count("sliding_attention")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    unseen = 2 * 2 * run.tokens * (run.context - window) * config.num_attention_heads * head_dim
    return (
        Gap(why=f"{layers} layers keep {window} tokens in their cache, not the whole context", flop=layers * unseen),
    )


def _latent_attention(config: Any, run: Pass) -> tuple[Gap, ...]:
    """Multi-head latent attention as transformers computes it: keys and values are expanded at every step."""
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    key, value = config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim
    queries = width * config.q_lora_rank + config.q_lora_rank * heads * key
    latents = width * (config.kv_lora_rank + config.qk_rope_head_dim)
    by_token = queries + latents + heads * value * width
    expansion = config.kv_lora_rank * heads * (config.qk_nope_head_dim + value)
    assumed = width // heads
    return (
        Gap(
            why="queries, keys and values go through low ranks, not through four squares of the width",
            flop=2 * run.tokens * layers * (4 * width * heads * assumed - by_token),
        ),
        Gap(
            why="keys and values of the whole context are expanded from the cached latents in every pass",
            flop=-2 * run.batch * run.context * layers * expansion,
        ),
        Gap(
            why=f"heads are {key} wide in keys and {value} in values, not width ÷ heads = {assumed}",
            flop=2 * run.tokens * run.context * heads * layers * (2 * assumed - key - value),
        ),
    )
