"""FLOP and bytes of well-known decoders in plain arithmetic, from their papers and config.json, never from a capture.

A multiply-add is 2 FLOP. Attention counts the full square of query and context, masked or not. Logits are those of the
last position. Elements, not bytes: multiply by the width of the dtype. ``options`` are the config.json of a model.
"""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward pass."""

    batch: int
    query: int  # tokens of each sequence that go through the model
    context: int  # tokens of each sequence that a full attention sees

    @property
    def tokens(self) -> int:
        return self.batch * self.query


def prefill(batch: int, tokens: int) -> Pass:
    return Pass(batch=batch, query=tokens, context=tokens)


def decode(batch: int, tokens: int) -> Pass:
    """A step after ``tokens`` are in the cache: it sees them and its own."""
    return Pass(batch=batch, query=1, context=tokens + 1)


class Architecture(Protocol):
    """What every closed form answers."""

    @property
    def model_type(self) -> str:
        """As transformers calls it."""

    @property
    def options(self) -> dict[str, Any]:
        """Its config.json."""

    def gemm_flop(self, run: Pass) -> int:
        """Products with weights, head left out."""

    def attention_flop(self, run: Pass) -> int:
        """Queries with keys, and scores with values."""

    def head_flop(self, run: Pass) -> int:
        """Logits."""

    def weights_read(self, run: Pass) -> float:
        """Elements of parameters that a pass reads, each once; the expected number where routing decides."""


@dataclass(frozen=True, kw_only=True)
class Llama:
    """Llama (arXiv 2307.09288), and what differs from it by a switch: Qwen2, Qwen3, Mistral, Gemma 2 and 3."""

    model_type: str = "llama"
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False  # Qwen2
    head_norms: bool = False  # Qwen3, Gemma 3: queries and keys are normalised per head
    norms: int = 2  # of a layer; Gemma has them before and after each part
    window: int | None = None  # tokens that a layer with a window sees
    full_layers: int | None = None  # layers without a window; None: all of them

    @property
    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 131072,
            **({} if self.window is None else {"sliding_window": self.window}),
        }

    @property
    def attention_weights(self) -> int:
        """Of one layer: queries, keys, values, output."""
        return self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def mlp_weights(self) -> int:
        """Of one layer: gate, up, down."""
        return 3 * self.width * self.inner

    @property
    def vectors(self) -> int:
        """Norms and biases of one layer."""
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        return self.norms * self.width + biases + (2 * self.head_dim if self.head_norms else 0)

    def gemm_flop(self, run: Pass) -> int:
        return 2 * run.tokens * self.layers * (self.attention_weights + self.mlp_weights)

    def seen(self, run: Pass) -> int:
        """Context of all layers together: in a prefill a window only masks, in a decode step it cuts the cache."""
        full = self.layers if self.full_layers is None else self.full_layers
        bounded = run.context if self.window is None or run.query > 1 else min(run.context, self.window)
        return full * run.context + (self.layers - full) * bounded

    def attention_flop(self, run: Pass) -> int:
        return 2 * 2 * run.tokens * self.seen(run) * self.heads * self.head_dim

    def head_flop(self, run: Pass) -> int:
        return 2 * run.batch * self.width * self.vocabulary

    def weights_read(self, run: Pass) -> float:
        body = self.layers * (self.attention_weights + self.mlp_weights + self.vectors) + self.width
        return body + self.vocabulary * self.width + run.tokens * self.width  # head, and rows of the table

    def cache_elements(self, run: Pass) -> int:
        """Keys and values that attention reads, all layers together."""
        return 2 * run.batch * self.seen(run) * self.kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class Mixtral(Llama):
    """Mixtral (arXiv 2401.04088): a router and ``experts`` MLPs, of which each token goes through ``chosen``."""

    model_type: str = "mixtral"
    experts: int
    chosen: int

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"num_local_experts": self.experts, "num_experts_per_tok": self.chosen}

    def gemm_flop(self, run: Pass) -> int:
        through = self.attention_weights + self.experts * self.width + self.chosen * self.mlp_weights
        return 2 * run.tokens * self.layers * through

    def weights_read(self, run: Pass) -> float:
        router = self.experts * self.width
        experts = touched(self.experts, self.chosen, run.tokens) * self.mlp_weights
        return super().weights_read(run) + self.layers * (router + experts - self.mlp_weights)


def touched(experts: int, chosen: int, tokens: int) -> float:
    """Different experts that tokens go to, expected when each chooses evenly and independently."""
    return experts * (1 - (1 - chosen / experts) ** tokens)


@dataclass(frozen=True, kw_only=True)
class Classic:
    """GPT-2 and OPT (arXiv 2205.01068): learned positions, biases everywhere, four times as wide inside, tied head."""

    model_type: str
    width: int
    layers: int
    heads: int
    vocabulary: int
    positions: int
    shared_positions: bool  # GPT-2 looks the positions up once for all sequences, OPT for each

    @property
    def options(self) -> dict[str, Any]:
        if self.model_type == "gpt2":
            return {
                "n_embd": self.width,
                "n_layer": self.layers,
                "n_head": self.heads,
                "vocab_size": self.vocabulary,
                "n_positions": self.positions,
            }
        return {
            "hidden_size": self.width,
            "ffn_dim": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "word_embed_proj_dim": self.width,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
        }

    @property
    def layer_weights(self) -> int:
        """Queries, keys, values, output: four squares; up and down: eight."""
        return (4 + 8) * self.width**2

    def gemm_flop(self, run: Pass) -> int:
        return 2 * run.tokens * self.layers * self.layer_weights

    def attention_flop(self, run: Pass) -> int:
        return 2 * 2 * run.tokens * run.context * self.width * self.layers

    def head_flop(self, run: Pass) -> int:
        return 2 * run.batch * self.width * self.vocabulary

    def weights_read(self, run: Pass) -> float:
        biases = (4 + 4 + 1) * self.width
        norms = 2 * 2 * self.width  # scale and shift
        body = self.layers * (self.layer_weights + biases + norms) + 2 * self.width
        rows = run.tokens + (run.query if self.shared_positions else run.tokens)
        return body + (self.vocabulary + rows) * self.width


@dataclass(frozen=True, kw_only=True)
class DeepSeek:
    """DeepSeek-V3 (arXiv 2412.19437), as transformers computes it.

    The cache holds the latent keys and values; every step expands those of the whole context again (W^UK and W^UV are
    not absorbed into the query and the output). The head is untied.
    """

    model_type: str = "deepseek_v3"
    width: int
    inner: int  # of the MLP in the first layers
    layers: int
    dense_layers: int
    heads: int
    query_rank: int
    kv_rank: int
    plain_dim: int  # of a head, without position
    rope_dim: int  # of a head, rotated; its key is shared by all heads
    value_dim: int
    vocabulary: int
    experts: int
    chosen: int
    shared: int
    expert_inner: int
    groups: int
    chosen_groups: int

    @property
    def options(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "moe_intermediate_size": self.expert_inner,
            "num_hidden_layers": self.layers,
            "first_k_dense_replace": self.dense_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "q_lora_rank": self.query_rank,
            "kv_lora_rank": self.kv_rank,
            "qk_nope_head_dim": self.plain_dim,
            "qk_rope_head_dim": self.rope_dim,
            "v_head_dim": self.value_dim,
            "vocab_size": self.vocabulary,
            "n_routed_experts": self.experts,
            "num_experts_per_tok": self.chosen,
            "n_shared_experts": self.shared,
            "n_group": self.groups,
            "topk_group": self.chosen_groups,
        }

    @property
    def by_token(self) -> int:
        """Attention's weights of one layer that each new token goes through."""
        query = self.width * self.query_rank + self.query_rank * self.heads * (self.plain_dim + self.rope_dim)
        latent = self.width * (self.kv_rank + self.rope_dim)
        return query + latent + self.heads * self.value_dim * self.width

    @property
    def by_context(self) -> int:
        """Those that each token of the context goes through: latents to keys and values."""
        return self.kv_rank * self.heads * (self.plain_dim + self.value_dim)

    @property
    def expert_weights(self) -> int:
        return 3 * self.width * self.expert_inner

    def gemm_flop(self, run: Pass) -> int:
        sparse = self.experts * self.width + (self.chosen + self.shared) * self.expert_weights
        mlps = self.dense_layers * 3 * self.width * self.inner + (self.layers - self.dense_layers) * sparse
        attention = self.layers * (run.tokens * self.by_token + run.batch * run.context * self.by_context)
        return 2 * (run.tokens * mlps + attention)

    def attention_flop(self, run: Pass) -> int:
        widths = self.plain_dim + self.rope_dim + self.value_dim
        return 2 * run.tokens * run.context * self.heads * widths * self.layers

    def head_flop(self, run: Pass) -> int:
        return 2 * run.batch * self.width * self.vocabulary

    def weights_read(self, run: Pass) -> float:
        norms = 2 * self.width + self.query_rank + self.kv_rank
        routed = touched(self.experts, self.chosen, run.tokens)
        sparse = self.experts * self.width + (routed + self.shared) * self.expert_weights
        mlps = self.dense_layers * 3 * self.width * self.inner + (self.layers - self.dense_layers) * sparse
        body = self.layers * (self.by_token + self.by_context + norms) + self.width
        return body + mlps + self.vocabulary * self.width + run.tokens * self.width
