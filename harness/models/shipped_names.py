"""Ids of models that are described by the configuration of another id: renamed, tuned from it, or quantised.

Tuning and quantising change weights and not sizes. Only ids that are written here or that say by their ending how they
were quantised are taken for another model's; a name that is merely close to one is not.
"""

import re
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

_LLAMA_31 = ("8B", "70B", "405B")
_TUNED: Mapping[str, tuple[str, ...]] = {
    "Qwen/Qwen1.5-0.5B": ("Qwen/Qwen1.5-0.5B-Chat",),
    "Qwen/Qwen1.5-1.8B": ("Qwen/Qwen1.5-1.8B-Chat",),
    "Qwen/Qwen1.5-4B": ("Qwen/Qwen1.5-4B-Chat",),
    "Qwen/Qwen1.5-7B": ("Qwen/Qwen1.5-7B-Chat",),
    "Qwen/Qwen1.5-14B": ("Qwen/Qwen1.5-14B-Chat",),
    "Qwen/Qwen1.5-32B": ("Qwen/Qwen1.5-32B-Chat",),
    "Qwen/Qwen1.5-72B": ("Qwen/Qwen1.5-72B-Chat",),
    "Qwen/Qwen1.5-110B": ("Qwen/Qwen1.5-110B-Chat",),
    "Qwen/Qwen1.5-MoE-A2.7B": ("Qwen/Qwen1.5-MoE-A2.7B-Chat",),
    "Qwen/Qwen2.5-0.5B-Instruct": ("Qwen/Qwen2.5-Coder-0.5B-Instruct",),
    "Qwen/Qwen2.5-1.5B-Instruct": ("Qwen/Qwen2.5-Coder-1.5B-Instruct",),
    "Qwen/Qwen2.5-3B-Instruct": ("Qwen/Qwen2.5-Coder-3B-Instruct",),
    "Qwen/Qwen2.5-7B-Instruct": ("Qwen/Qwen2.5-Coder-7B-Instruct",),
    "Qwen/Qwen2.5-14B-Instruct": ("Qwen/Qwen2.5-Coder-14B-Instruct",),
    "Qwen/Qwen2.5-32B-Instruct": ("Qwen/Qwen2.5-Coder-32B-Instruct",),
    "Qwen/Qwen2.5-Math-7B": ("Qwen/Qwen2.5-Math-7B-Instruct",),
    "Qwen/Qwen2.5-7B": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",),
    "Qwen/Qwen2.5-14B": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",),
    "Qwen/Qwen2.5-32B": ("Qwen/QwQ-32B", "Qwen/QwQ-32B-Preview", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"),
    "Qwen/Qwen3-4B-Instruct-2507": ("Qwen/Qwen3-4B-Thinking-2507", "Qwen/Qwen3-VL-4B-Instruct"),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": ("Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
    "Qwen/Qwen3-235B-A22B-Instruct-2507": (
        "Qwen/Qwen3-235B-A22B-Thinking-2507",
        "Qwen/Qwen3-VL-235B-A22B-Instruct",
        "Qwen/Qwen3-VL-235B-A22B-Thinking",
    ),
    "Qwen/Qwen3-VL-8B-Instruct": ("Qwen/Qwen3-VL-8B-Thinking",),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": ("Qwen/Qwen3-VL-30B-A3B-Thinking",),
    "Qwen/Qwen3-VL-32B-Instruct": ("Qwen/Qwen3-VL-32B-Thinking",),
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": ("Qwen/Qwen3-Omni-30B-A3B-Thinking",),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": ("Qwen/Qwen3-Next-80B-A3B-Thinking",),
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": ("nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL",),
    "deepseek-ai/DeepSeek-V3": (
        "deepseek-ai/DeepSeek-R1-0528",
        "deepseek-ai/DeepSeek-V3-Base",
        "deepseek-ai/DeepSeek-V3-0324",
        "deepseek-ai/DeepSeek-V3.1",
        "deepseek-ai/DeepSeek-V3.1-Base",
        "deepseek-ai/DeepSeek-V3.1-Terminus",
    ),
    "deepseek-ai/DeepSeek-V2": ("deepseek-ai/DeepSeek-V2-Chat", "deepseek-ai/DeepSeek-V2.5"),
    "deepseek-ai/DeepSeek-V2-Lite": (
        "deepseek-ai/DeepSeek-V2-Lite-Chat",
        "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
    ),
    "deepseek-ai/DeepSeek-V3.2": ("deepseek-ai/DeepSeek-V3.2-Exp",),
    "deepseek-ai/deepseek-llm-7b-chat": ("deepseek-ai/deepseek-llm-7b-base",),
    "deepseek-ai/deepseek-llm-67b-chat": ("deepseek-ai/deepseek-llm-67b-base",),
    "deepseek-ai/deepseek-coder-1.3b-instruct": ("deepseek-ai/deepseek-coder-1.3b-base",),
    "deepseek-ai/deepseek-coder-6.7b-instruct": ("deepseek-ai/deepseek-coder-6.7b-base",),
    "deepseek-ai/deepseek-coder-33b-instruct": ("deepseek-ai/deepseek-coder-33b-base",),
    "meta-llama/Llama-3.1-8B": (
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "nvidia/Llama-3.1-Nemotron-Nano-8B-v1",
        "meta-llama/Llama-Guard-3-8B",
    ),
    "meta-llama/Llama-3.1-70B": ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF",),
    "meta-llama/Llama-3.3-70B-Instruct": ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B",),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": ("meta-llama/Llama-4-Scout-17B-16E",),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": ("meta-llama/Llama-4-Maverick-17B-128E",),
    "meta-llama/Llama-2-7b-hf": ("lmsys/vicuna-7b-v1.5",),
    "meta-llama/Llama-2-13b-hf": ("lmsys/vicuna-13b-v1.5",),
    "codellama/CodeLlama-7b-hf": ("codellama/CodeLlama-7b-Instruct-hf",),
    "codellama/CodeLlama-13b-hf": ("codellama/CodeLlama-13b-Instruct-hf",),
    "codellama/CodeLlama-34b-hf": ("codellama/CodeLlama-34b-Instruct-hf",),
    "mistralai/Mistral-7B-v0.1": ("mistralai/Mistral-7B-Instruct-v0.1", "HuggingFaceH4/zephyr-7b-beta"),
    "mistralai/Mistral-Nemo-Instruct-2407": ("mistralai/Mistral-Nemo-Base-2407",),
    "mistralai/Mistral-Small-Instruct-2409": ("mistralai/Codestral-22B-v0.1",),
    "mistralai/Mistral-Small-24B-Instruct-2501": ("mistralai/Mistral-Small-24B-Base-2501",),
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506": ("mistralai/Mistral-Small-3.1-24B-Instruct-2503",),
    "google/gemma-2b": ("google/gemma-2b-it", "google/gemma-1.1-2b-it"),
    "google/gemma-7b": ("google/gemma-7b-it", "google/gemma-1.1-7b-it"),
    "google/gemma-3-270m-it": ("google/gemma-3-270m",),
    "google/gemma-3-4b-it": ("google/gemma-3-4b-pt",),
    "google/gemma-3-12b-it": ("google/gemma-3-12b-pt",),
    "google/gemma-3-27b-it": ("google/gemma-3-27b-pt",),
    "tiiuae/falcon-7b": ("tiiuae/falcon-7b-instruct",),
    "tiiuae/falcon-40b": ("tiiuae/falcon-40b-instruct",),
    "tiiuae/falcon-180B": ("tiiuae/falcon-180B-chat",),
    "tiiuae/Falcon3-7B-Instruct": ("tiiuae/Falcon3-7B-Base",),
    "tiiuae/Falcon3-10B-Instruct": ("tiiuae/Falcon3-10B-Base",),
    "01-ai/Yi-34B": ("01-ai/Yi-34B-Chat", "01-ai/Yi-1.5-34B", "01-ai/Yi-1.5-34B-Chat"),
    "01-ai/Yi-6B": ("01-ai/Yi-6B-Chat", "01-ai/Yi-1.5-6B", "01-ai/Yi-1.5-6B-Chat"),
    "01-ai/Yi-1.5-9B": ("01-ai/Yi-1.5-9B-Chat",),
    "mosaicml/mpt-7b": ("mosaicml/mpt-7b-instruct", "mosaicml/mpt-7b-chat"),
    "mosaicml/mpt-30b": ("mosaicml/mpt-30b-instruct", "mosaicml/mpt-30b-chat"),
    "databricks/dbrx-instruct": ("databricks/dbrx-base",),
    "bigscience/bloom": ("bigscience/bloomz",),
    "bigscience/bloom-560m": ("bigscience/bloomz-560m",),
    "bigscience/bloom-1b1": ("bigscience/bloomz-1b1",),
    "bigscience/bloom-1b7": ("bigscience/bloomz-1b7",),
    "bigscience/bloom-3b": ("bigscience/bloomz-3b",),
    "bigscience/bloom-7b1": ("bigscience/bloomz-7b1",),
    "HuggingFaceTB/SmolLM-135M": ("HuggingFaceTB/SmolLM-135M-Instruct",),
    "HuggingFaceTB/SmolLM-360M": ("HuggingFaceTB/SmolLM-360M-Instruct",),
    "HuggingFaceTB/SmolLM-1.7B": ("HuggingFaceTB/SmolLM-1.7B-Instruct",),
    "allenai/OLMo-2-1124-7B": ("allenai/OLMo-2-1124-7B-Instruct",),
    "allenai/OLMo-2-1124-13B": ("allenai/OLMo-2-1124-13B-Instruct",),
    "allenai/OLMo-2-0325-32B": ("allenai/OLMo-2-0325-32B-Instruct",),
    "allenai/OLMoE-1B-7B-0924": ("allenai/OLMoE-1B-7B-0924-Instruct",),
    "ibm-granite/granite-3.1-8b-instruct": (
        "ibm-granite/granite-3.1-8b-base",
        "ibm-granite/granite-3.2-8b-instruct",
    ),
    "ibm-granite/granite-3.1-2b-instruct": (
        "ibm-granite/granite-3.1-2b-base",
        "ibm-granite/granite-3.2-2b-instruct",
    ),
    "bigcode/starcoder": ("bigcode/starcoderbase",),
}
# Older ids, which the Hub redirects.
_RENAMED: Mapping[str, str] = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
    "CohereLabs/c4ai-command-r-v01": "CohereForAI/c4ai-command-r-v01",
    "CohereLabs/c4ai-command-r-plus": "CohereForAI/c4ai-command-r-plus",
    "CohereLabs/aya-23-8B": "CohereForAI/aya-23-8B",
    "THUDM/glm-4-9b-chat-hf": "zai-org/glm-4-9b-chat-hf",
    "THUDM/GLM-4-9B-0414": "zai-org/GLM-4-9B-0414",
    "THUDM/GLM-4-32B-0414": "zai-org/GLM-4-32B-0414",
    **{f"meta-llama/Meta-Llama-3.1-{size}": f"meta-llama/Llama-3.1-{size}" for size in _LLAMA_31},
    **{f"meta-llama/Meta-Llama-3.1-{size}-Instruct": f"meta-llama/Llama-3.1-{size}-Instruct" for size in _LLAMA_31},
}
SAME: Mapping[str, str] = MappingProxyType(
    {**_RENAMED, **{tuned: base for base, all_tuned in _TUNED.items() for tuned in all_tuned}}
)
_QUANTISED = re.compile(
    r"(-(fp8|nvfp4|fp4|mxfp4|awq|gptq|bf16|int4|int8|w8a8|w4a16|quantized|dynamic|static|pertensor|bnb|4bit|8bit|\.)"
    r"([-.](fp8|nvfp4|fp4|mxfp4|awq|gptq|bf16|int4|int8|w8a8|w4a16|dynamic|static|pertensor|bnb|4bit|8bit))*)+$",
    re.IGNORECASE,
)
# Who publishes other owners' models quantised, under the models' own names.
_QUANTISERS = frozenset(
    {"nvidia", "RedHatAI", "neuralmagic", "hugging-quants", "TheBloke", "unsloth", "amd", "sgl-project", "casperhansen"}
)


def canonical_id(model_id: str, known: Iterable[str]) -> str | None:
    """The id among ``known`` whose configuration describes a model; None where there is none.

    >>> canonical_id("nvidia/Qwen3-32B-NVFP4", ["Qwen/Qwen3-32B"])
    'Qwen/Qwen3-32B'
    """
    ids = frozenset(known)
    direct = _direct(model_id, ids)
    plain = _QUANTISED.sub("", model_id)
    if direct is not None or plain == model_id:
        return direct
    return _direct(plain, ids) or _published_by_another(plain, ids)


def _direct(model_id: str, ids: Container[str]) -> str | None:
    if model_id in ids:
        return model_id
    same = SAME.get(model_id)
    return same if same in ids else None


def _published_by_another(plain: str, ids: frozenset[str]) -> str | None:
    owner, _, name = plain.partition("/")
    if owner not in _QUANTISERS or not name:
        return None
    names = {other.partition("/")[2]: SAME.get(other, other) for other in (*SAME, *sorted(ids))}
    found = names.get(name)
    return found if found in ids else None
