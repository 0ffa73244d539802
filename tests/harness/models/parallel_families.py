"""Tiny models of many families for the tests of tensor parallelism, and what one rank does with each of them.

Run as a script, ``parallel_families.py FOLDER`` saves the models into FOLDER and forks ranks that run them at degrees
2, 3 and 4; the tests read what they leave there. Imports cost more than all the models, so there is one process to fork
from. Head counts and widths divide by all degrees; the vocabulary by none.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.distributed import mixin

from harness.models import loading, parallel_loading
from harness.models.facts import ModelFacts, model_facts
from harness.models.loading import LoadedModel
from harness.models.source import ModelSource, resolve
from harness.models.steps import Stepper
from tests.forked import run_forked

VOCABULARY = 301
PROMPT_TOKENS, STEPS, BATCH = 9, 2, 2
SEED = 5
DENSE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = DENSE | {"hidden_size": 192, "num_attention_heads": 24}
GPT: dict[str, Any] = {"n_embd": 96, "n_layer": 2, "n_head": 12, "n_positions": 64, "vocab_size": VOCABULARY}
ROTARY = GPT | {"rotary_dim": 4}
SLIDING: dict[str, Any] = {"sliding_window": 4}
MLA: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
    "first_k_dense_replace": 1,
}
MOE: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
# By name: model_type where it is not the name, and what makes it tiny.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "smollm2": DENSE | {"model_type": "llama", "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "mistral": GROUPED | SLIDING,
    "gemma": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | SLIDING | {"head_dim": 8},
    "gemma3_text": GROUPED | SLIDING | {"head_dim": 8, "num_hidden_layers": 6},
    "gpt_neox": DENSE,
    "phi": DENSE,
    "phi3": DENSE,
    "olmo2": DENSE,
    "starcoder2": GROUPED,
    "mixtral": GROUPED | MOE,
    "qwen3_moe": GROUPED | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96},
    "deepseek_v2": DENSE | MLA,
    "deepseek_v3": DENSE | MLA,
    "opt": DENSE | {"ffn_dim": 96, "word_embed_proj_dim": 48},
    "bloom": {"hidden_size": 96, "n_layer": 2, "n_head": 12, "vocab_size": VOCABULARY},
    "gpt2": GPT,
    "falcon": DENSE | {"multi_query": True, "bias": True},
    "falcon-40b": GROUPED | {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 12},
    "falcon-rw": DENSE | {"model_type": "falcon", "multi_query": False, "alibi": True, "parallel_attn": False},
    "gptj": ROTARY,
    "codegen": ROTARY | {"n_embd": 384, "n_head": 48},
    "gpt_neo": {
        "hidden_size": 96,
        "num_layers": 2,
        "num_heads": 12,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "gpt_bigcode": GPT | {"multi_query": True},
    "gpt_bigcode-multihead": GPT | {"model_type": "gpt_bigcode", "multi_query": False},
    "mpt": {"d_model": 96, "n_heads": 12, "n_layers": 2, "max_seq_len": 64, "vocab_size": VOCABULARY},
    "gpt_neox_japanese": DENSE | {"intermediate_multiple_size": 1},
    "persimmon": DENSE | {"qk_layernorm": True},
    "stablelm": GROUPED | {"qk_layernorm": True},
    "gpt_oss": GROUPED | MOE | SLIDING | {"head_dim": 8},
    "xglm": {"d_model": 96, "attention_heads": 12, "num_layers": 2, "ffn_dim": 96, "vocab_size": VOCABULARY},
    "biogpt": DENSE,
}


DEGREES = (2, 3, 4)
# Not split, and yet not the same on all ranks: the norms of a rank's own heads; a bias that is in a sum once.
OWN_OF_A_RANK = ("layernorm.norms", "down_proj_bias")
# Only 3 divides the heads of the first; the plans of the others differ little from those of other families.
ONCE = ("smollm2", "gemma3_text", "olmo2", "starcoder2", "gpt_bigcode-multihead", "gpt_neox_japanese", "xglm", "biogpt")
RANDOM_FAMILIES = ("llama", "gpt2", "gemma", "falcon", "mixtral", "bloom")  # also loaded with random weights
LARGE_FAMILIES = ("llama", "gpt2", "gemma", "falcon", "mixtral", "gpt_oss")  # also as if too large to be built whole
_PROCESSES = 4
_facts: dict[tuple[str, str], ModelFacts] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one rank saw of one model."""

    shapes: dict[str, list[int]]  # of its own part of each parameter
    whole_sha256: str  # of all parameters that it has whole
    exchanges: list[list[Any]]  # kind and bytes of each collective of the prefill
    random_sha256: dict[str, str]  # of its part of each parameter, with random weights


def config_of(family: str) -> dict[str, Any]:
    """config.json of a family; weights are drawn large, so that attention is far from uniform."""
    return {"model_type": family, "initializer_range": 0.2, "init_std": 0.2} | FAMILIES[family]


def families_at(degree: int) -> tuple[str, ...]:
    """The families that run at a degree."""
    return tuple(family for family in FAMILIES if family not in ONCE or degree == 3)


def facts_of(source: ModelSource) -> ModelFacts:
    """``model_facts``, once per config."""
    key = (source.config_path.parent.name, source.weights.value)
    if key not in _facts:
        _facts[key] = model_facts(source)
    return _facts[key]


def loaded(config_or_folder: Path, *, random_weights: bool = False, **options: Any) -> LoadedModel:
    """Load in float32 on the CPU with the attention that the family prefers."""
    source = resolve(str(config_or_folder), random_weights=random_weights)
    attention = facts_of(source).attentions[0]
    return loading.load(source, dtype="float32", attention=attention, device="cpu", seed=SEED, **options)


def prompt() -> torch.Tensor:
    """Tokens [BATCH, PROMPT_TOKENS + STEPS]: a prompt, and what the decode steps take."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, VOCABULARY, (BATCH, PROMPT_TOKENS + STEPS), generator=generator)


class Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Kind and bytes of the collectives that really happen."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[list[Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(each, DTensor) for each in types):
            return NotImplemented  # its parts come by again
        if func._schema.name in _KINDS:
            (given,) = args[0] if isinstance(args[0], list) else args[:1]
            self.seen.append([_KINDS[func._schema.name], given.numel() * given.element_size()])
        return func(*args, **(kwargs or {}))


_KINDS = {
    "c10d::allreduce_": "all_reduce",
    "_c10d_functional::all_reduce": "all_reduce",
    "_c10d_functional::all_gather_into_tensor": "all_gather",
}


def run(model: LoadedModel) -> tuple[torch.Tensor, list[list[Any]]]:
    """Logits [1 + STEPS, batch, vocabulary] of a prefill and of decode steps, and the collectives of the prefill."""
    stepper, tokens = Stepper(model), prompt()
    with Collectives() as collectives:
        state = stepper.prefill(tokens[:, :PROMPT_TOKENS])
    seen = [state.logits]
    for step in range(STEPS):
        state.next_token = tokens[:, PROMPT_TOKENS + step, None]
        stepper.step(state)
        seen.append(state.logits)
    return torch.stack(seen), collectives.seen


def part(parameter: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def sha256(*tensors: torch.Tensor) -> str:
    """Of all bytes, in order."""
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def save_whole(folder: Path) -> None:
    """Save a model of which every parameter counts, biases and norms too, with its shapes and logits."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(folder.name)))
    model = loaded(folder / "config.json", random_weights=True)
    generator = torch.Generator().manual_seed(3)
    for path, parameter in model.model.named_parameters():
        if parameter.dim() == 1 or path.endswith("bias"):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.model.save_pretrained(folder)
    shapes = {path: list(parameter.shape) for path, parameter in model.model.named_parameters()}
    (folder / "whole.json").write_text(json.dumps(shapes))
    torch.save(run(model)[0], folder / "whole.pt")


def see_share(folder: Path, degree: int, rank: int) -> None:
    """Load this rank's share of a saved model, run it, and leave what it saw."""
    model = loaded(folder, parallelism="tensor")
    logits, exchanges = run(model)
    parts = {path: part(parameter) for path, parameter in model.model.named_parameters()}
    random: dict[str, str] = {}
    if folder.name in RANDOM_FAMILIES:
        share = loaded(folder, random_weights=True, parallelism="tensor").model
        random = {path: sha256(part(parameter)) for path, parameter in share.named_parameters()}
    whole = json.loads((folder / "whole.json").read_text())
    seen = Seen(
        shapes={path: list(tensor.shape) for path, tensor in parts.items()},
        whole_sha256=sha256(
            *(
                tensor
                for path, tensor in parts.items()
                if list(tensor.shape) == whole[path] and not any(name in path for name in OWN_OF_A_RANK)
            )
        ),
        exchanges=exchanges,
        random_sha256=random,
    )
    if folder.name in LARGE_FAMILIES:
        with mock.patch.object(parallel_loading, "_WHOLE_BYTES", 0):
            large = run(loaded(folder, random_weights=True, parallelism="tensor"))[0]
        torch.save(large, folder / f"large-{degree}-{rank}.pt")
    (folder / f"{degree}-{rank}.json").write_text(json.dumps(asdict(seen)))
    torch.save(logits, folder / f"{degree}-{rank}.pt")


@contextmanager
def one_mesh() -> Iterator[None]:
    """Let one mesh serve all models: each opens a dozen connections."""
    fresh = mixin.initialize_distributed_mesh
    meshes: list[Any] = []

    def same(config: Any) -> Any:
        if not meshes:
            meshes.append(fresh(config))
        return meshes[0]

    mixin.initialize_distributed_mesh = same
    try:
        yield
    finally:
        mixin.initialize_distributed_mesh = fresh


def be_ranks(folder: Path, process: int) -> None:
    """One process is a rank at each degree in turn; at degree 2 two groups share the families."""
    for degree in DEGREES:
        groups = _PROCESSES // degree
        group, rank = divmod(process, degree)
        if group < groups:
            store = f"file://{folder / f'store-{degree}-{group}'}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=degree)
            with one_mesh():
                for family in families_at(degree)[group::groups]:
                    see_share(folder / family, degree, rank)
            dist.destroy_process_group()


def main(folder: Path) -> int:
    """Save all models, then fork the ranks and wait for them."""
    torch.set_num_threads(1)
    with mock.patch.object(loading, "model_facts", facts_of):
        for family in FAMILIES:
            save_whole(folder / family)
        return run_forked(be_ranks, [(folder, number) for number in range(_PROCESSES)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
