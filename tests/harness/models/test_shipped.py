"""The shipped configurations describe the models they are named after: parameters computed from them are the published.

Published counts are those of the model's card or of its page on the Hub, which adds up the stored tensors. Where a page
counts an output layer twice that shares the embedding's weights, the second copy is taken off. Of models that also see
or hear, the language model is described and counted.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

from harness.models.checkpoint import read_config
from harness.models.facts import model_facts, unquantised_config
from harness.models.meta import meta_model
from harness.models.shipped import REVISION, closest_ids, shipped_config, shipped_ids
from harness.models.shipped_names import SAME
from harness.models.source import ModelSource, resolve

ROOT = Path(__file__).resolve().parents[3]
LLAMA_70B = 70_553_706_496
PUBLISHED = {
    "01-ai/Yi-1.5-9B": 8_829_407_232,
    "01-ai/Yi-34B": 34_388_917_248,
    "01-ai/Yi-6B": 6_061_035_520,
    "allenai/OLMo-1B-hf": 1_176_764_416,
    "allenai/OLMo-2-0325-32B": 32_234_279_936,
    "allenai/OLMo-2-1124-13B": 13_716_198_400,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "allenai/OLMo-7B-hf": 6_888_095_744,
    "allenai/OLMoE-1B-7B-0924": 6_919_161_856,
    "baidu/ERNIE-4.5-21B-A3B-PT": 21_800_000_000,
    "bigcode/starcoder": 15_517_456_384,
    "bigcode/starcoder2-15b": 15_957_889_024,
    "bigcode/starcoder2-3b": 3_030_371_328,
    "bigcode/starcoder2-7b": 7_173_923_840,
    "bigscience/bloom": 176_247_271_424,
    "bigscience/bloom-1b1": 1_065_314_304,
    "bigscience/bloom-1b7": 1_722_408_960,
    "bigscience/bloom-3b": 3_002_557_440,
    "bigscience/bloom-560m": 559_214_592,
    "bigscience/bloom-7b1": 7_069_016_064,
    "ByteDance-Seed/Seed-OSS-36B-Instruct": 36_151_104_512,
    "codellama/CodeLlama-13b-hf": 13_016_028_160,
    "codellama/CodeLlama-34b-hf": 33_743_970_304,
    "codellama/CodeLlama-70b-hf": 68_976_910_336,
    "codellama/CodeLlama-7b-hf": 6_738_546_688,
    "CohereForAI/aya-23-8B": 8_028_033_024,
    "CohereForAI/c4ai-command-r-plus": 103_810_674_688,
    "CohereForAI/c4ai-command-r-v01": 34_980_831_232,
    "databricks/dbrx-instruct": 131_596_523_520,
    "deepseek-ai/deepseek-coder-1.3b-instruct": 1_346_471_936,
    "deepseek-ai/deepseek-coder-33b-instruct": 33_342_991_360,
    "deepseek-ai/deepseek-coder-6.7b-instruct": 6_740_512_768,
    "deepseek-ai/deepseek-llm-67b-chat": 67_000_000_000,
    "deepseek-ai/deepseek-llm-7b-chat": 6_910_365_696,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-V2": 235_741_434_880,
    "deepseek-ai/DeepSeek-V2-Lite": 15_706_484_224,
    "deepseek-ai/DeepSeek-V3": 671_000_000_000,  # without the module that predicts further tokens
    "deepseek-ai/DeepSeek-V3.2": 671_000_000_000,
    "distilbert/distilgpt2": 81_912_576,
    "EleutherAI/gpt-j-6b": 6_053_381_344,
    "EleutherAI/gpt-neo-1.3B": 1_315_575_808,
    "EleutherAI/gpt-neo-125m": 125_198_592,
    "EleutherAI/gpt-neo-2.7B": 2_651_307_520,
    "EleutherAI/gpt-neox-20b": 20_554_567_680,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "EleutherAI/pythia-12b": 11_846_072_320,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "EleutherAI/pythia-410m": 405_334_016,
    "EleutherAI/pythia-6.9b": 6_857_302_016,
    "EleutherAI/pythia-70m": 70_426_624,
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-125m": 125_239_296,
    "facebook/opt-13b": 12_853_473_280,
    "facebook/opt-2.7b": 2_651_596_800,
    "facebook/opt-30b": 30_000_000_000,
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-6.7b": 6_658_473_984,
    "facebook/opt-66b": 66_000_000_000,
    "google/gemma-2-27b": 27_227_128_320,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-3-12b-it": 12_187_325_040,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-270m-it": 268_098_176,
    "google/gemma-3-27b-it": 27_432_406_640,
    "google/gemma-3-4b-it": 4_300_079_472,
    "google/gemma-7b": 8_537_680_896,
    "HuggingFaceTB/SmolLM-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM-135M": 134_515_008,
    "HuggingFaceTB/SmolLM-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "ibm-granite/granite-3.1-2b-instruct": 2_533_531_648,
    "ibm-granite/granite-3.1-8b-instruct": 8_170_848_256,
    "internlm/internlm2-chat-1_8b": 1_889_110_016,
    "LGAI-EXAONE/EXAONE-4.0-32B": 32_000_000_000,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "meta-llama/Llama-3.1-70B": LLAMA_70B,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.3-70B-Instruct": LLAMA_70B,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 400_000_000_000,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 108_000_000_000,
    "meta-llama/Meta-Llama-3-70B": LLAMA_70B,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "microsoft/phi-1_5": 1_418_270_720,
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/Phi-3-medium-4k-instruct": 13_960_238_080,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "microsoft/Phi-3.5-MoE-instruct": 41_873_153_344,
    "microsoft/phi-4": 14_659_507_200,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "MiniMaxAI/MiniMax-M2.5": 229_000_000_000,
    "mistralai/Ministral-8B-Instruct-2410": 8_019_808_256,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Mistral-Large-Instruct-2407": 122_610_069_504,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23_572_403_200,
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506": 23_572_403_200,
    "mistralai/Mistral-Small-Instruct-2409": 22_247_282_688,
    "mistralai/Mixtral-8x22B-Instruct-v0.1": 140_630_071_296,
    "mistralai/Mixtral-8x22B-v0.1": 140_620_634_112,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "moonshotai/Kimi-K2-Instruct": 1_026_000_000_000,
    "moonshotai/Kimi-K2.5": 1_026_000_000_000,
    "mosaicml/mpt-30b": 30_000_000_000,
    "mosaicml/mpt-7b": 6_649_286_656,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31_577_937_344,
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": 12_310_001_152,
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": 8_888_227_328,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-xl": 1_557_611_200,
    "openai/gpt-oss-120b": 116_829_156_672,
    "openai/gpt-oss-20b": 20_914_757_184,
    "Qwen/Qwen1.5-0.5B": 463_987_712,
    "Qwen/Qwen1.5-1.8B": 1_836_828_672,
    "Qwen/Qwen1.5-110B": 111_209_914_368,
    "Qwen/Qwen1.5-14B": 14_167_290_880,
    "Qwen/Qwen1.5-32B": 32_512_218_112,
    "Qwen/Qwen1.5-4B": 3_950_369_280,
    "Qwen/Qwen1.5-72B": 72_287_920_128,
    "Qwen/Qwen1.5-7B": 7_721_324_544,
    "Qwen/Qwen1.5-MoE-A2.7B": 14_315_784_192,
    "Qwen/Qwen2-0.5B": 494_032_768,
    "Qwen/Qwen2-1.5B": 1_543_714_304,
    "Qwen/Qwen2-57B-A14B": 57_000_000_000,
    "Qwen/Qwen2-72B": 72_706_203_648,
    "Qwen/Qwen2-7B": 7_615_616_512,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 751_632_384 - 151_936 * 1024,
    "Qwen/Qwen3-1.7B": 2_031_739_904 - 151_936 * 2048,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "Qwen/Qwen3-235B-A22B-Instruct-2507": 235_093_634_560,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 30_532_122_624,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480_154_875_392,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 80_000_000_000,
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": 30_532_646_912,  # of the part that thinks in text
    "Qwen/Qwen3-VL-2B-Instruct": 2_031_739_904 - 151_936 * 2048,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": 30_532_122_624,
    "Qwen/Qwen3-VL-32B-Instruct": 32_762_123_264,
    "Qwen/Qwen3-VL-8B-Instruct": 8_190_735_360,
    "Qwen/Qwen3.5-122B-A10B": 122_000_000_000,
    "Qwen/Qwen3.5-27B": 27_000_000_000,
    "Qwen/Qwen3.5-35B-A3B": 35_000_000_000,
    "Qwen/Qwen3.5-397B-A17B": 397_000_000_000,
    "stabilityai/stablelm-2-1_6b": 1_644_515_328,
    "state-spaces/mamba-2.8b-hf": 2_768_345_600,
    "tiiuae/falcon-180B": 179_522_565_120 - 65_024 * 14_848,
    "tiiuae/falcon-40b": 41_835_970_560 - 65_024 * 8192,
    "tiiuae/falcon-7b": 7_217_189_760 - 65_024 * 4544,
    "tiiuae/Falcon3-10B-Instruct": 10_305_653_760,
    "tiiuae/Falcon3-7B-Instruct": 7_455_550_464,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "upstage/SOLAR-10.7B-Instruct-v1.0": 10_731_524_096,
    "zai-org/GLM-4-32B-0414": 32_600_000_000,
    "zai-org/GLM-4-9B-0414": 9_400_279_040,
    "zai-org/glm-4-9b-chat-hf": 9_399_951_360,
    "zai-org/GLM-4.5": 355_000_000_000,
    "zai-org/GLM-4.5-Air": 106_000_000_000,
    "zai-org/GLM-4.6": 355_000_000_000,
    "zai-org/GLM-5": 744_000_000_000,  # without the module that predicts further tokens
}
COUNTED_OTHERWISE = {"EleutherAI/gpt-j-6b"}  # its card differs from its own sizes by 0.04 %
# Tuned models whose configuration is that of another one, in all that sets sizes.
TUNED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "HuggingFaceTB/SmolLM2-360M",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "HuggingFaceTB/SmolLM2-1.7B",
    "deepseek-ai/DeepSeek-R1": "deepseek-ai/DeepSeek-V3",
    "google/gemma-3-1b-pt": "google/gemma-3-1b-it",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistralai/Mistral-7B-v0.3",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mistralai/Mixtral-8x7B-v0.1",
    **{f"google/gemma-2-{size}-it": f"google/gemma-2-{size}" for size in ("2b", "9b", "27b")},
    **{f"meta-llama/Llama-2-{size}-chat-hf": f"meta-llama/Llama-2-{size}-hf" for size in ("7b", "13b", "70b")},
    **{f"meta-llama/Meta-Llama-3-{size}-Instruct": f"meta-llama/Meta-Llama-3-{size}" for size in ("8B", "70B")},
    **{f"meta-llama/Llama-3.1-{size}-Instruct": f"meta-llama/Llama-3.1-{size}" for size in ("8B", "70B", "405B")},
    **{f"meta-llama/Llama-3.2-{size}-Instruct": f"meta-llama/Llama-3.2-{size}" for size in ("1B", "3B")},
    **{f"Qwen/Qwen2-{size}-Instruct": f"Qwen/Qwen2-{size}" for size in ("0.5B", "1.5B", "7B", "72B")},
    **{
        f"Qwen/Qwen2.5-{size}-Instruct": f"Qwen/Qwen2.5-{size}"
        for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")
    },
}
_NOT_SIZES = {"max_position_embeddings"}  # of a few tuned Qwen models, shorter than of what they were tuned from


def source_of(model_id: str) -> ModelSource:
    path = shipped_config(model_id)
    assert path is not None
    return resolve(str(path), random_weights=True, download=False)


@pytest.mark.parametrize("model_id", PUBLISHED)
def test_a_shipped_configuration_has_the_published_number_of_parameters(model_id: str) -> None:
    model = meta_model(unquantised_config(source_of(model_id)), dtype=torch.bfloat16).model
    rounded = PUBLISHED[model_id] % 100_000_000 == 0 or model_id in COUNTED_OTHERWISE

    parameters = sum(weight.numel() for weight in model.parameters())

    assert parameters == pytest.approx(PUBLISHED[model_id], rel=0.01 if rounded else 0)


def test_no_configuration_ships_unchecked() -> None:
    assert set(shipped_ids()) == PUBLISHED.keys() | TUNED.keys()
    assert not PUBLISHED.keys() & TUNED.keys()


@pytest.mark.parametrize("model_id", TUNED)
def test_a_tuned_model_has_the_sizes_of_what_it_was_tuned_from(model_id: str) -> None:
    own, other = shipped_config(model_id), shipped_config(TUNED[model_id])
    assert own is not None
    assert other is not None
    values, others = read_config(own), read_config(other)

    assert {key for key in values.keys() | others.keys() if values.get(key) != others.get(key)} <= _NOT_SIZES


@pytest.mark.parametrize("model_id", shipped_ids())
def test_a_configuration_is_small_plain_and_needs_no_code_of_its_own(model_id: str) -> None:
    path = shipped_config(model_id)
    assert path is not None
    values = json.loads(path.read_text(encoding="utf-8"))

    assert path.stat().st_size < 4096
    assert re.fullmatch(r"[\w.-]+--[\w.-]+\.json", path.name)
    assert {"model_type", "architectures"} <= values.keys()
    assert not {"auto_map", "_name_or_path", "transformers_version", "torch_dtype"} & values.keys()


@pytest.mark.parametrize(
    ("model_id", "heads", "kv_heads", "head_dim", "context_tokens", "kv_elements"),
    [
        ("Qwen/Qwen3-0.6B", 16, 8, 128, 40_960, 2 * 28 * 8 * 128),
        ("HuggingFaceTB/SmolLM2-135M", 9, 3, 64, 8192, 2 * 30 * 3 * 64),
        ("openai-community/gpt2", 12, 12, 64, 1024, 2 * 12 * 12 * 64),
        ("google/gemma-2b", 8, 1, 256, 8192, 2 * 18 * 256),
    ],
)
def test_heads_and_cache_are_those_of_the_model(
    model_id: str, heads: int, kv_heads: int, head_dim: int, context_tokens: int, kv_elements: int
) -> None:
    facts = model_facts(source_of(model_id))

    assert (facts.heads, facts.kv_heads, facts.head_dim) == (heads, kv_heads, head_dim)
    assert (facts.context_tokens, facts.kv_elements_per_token) == (context_tokens, kv_elements)


def test_an_older_id_finds_the_model_it_was_renamed_to() -> None:
    assert shipped_config("gpt2") == shipped_config("openai-community/gpt2")
    assert shipped_config("meta-llama/Meta-Llama-3.1-70B") == shipped_config("meta-llama/Llama-3.1-70B")


@pytest.mark.parametrize(
    ("reference", "described_by"),
    [
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-V3"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-32B"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-7B-Instruct"),
        ("nvidia/Qwen3-32B-NVFP4", "Qwen/Qwen3-32B"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "meta-llama/Llama-3.1-8B-Instruct"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8-dynamic", "meta-llama/Llama-3.1-70B-Instruct"),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16", "nvidia/NVIDIA-Nemotron-Nano-12B-v2"),
    ],
)
def test_a_tuned_or_quantised_model_is_described_by_the_one_it_was_made_from(reference: str, described_by: str) -> None:
    assert shipped_config(reference) == shipped_config(described_by) is not None


@pytest.mark.parametrize("reference", ["nobody/Qwen3-32B-FP8", "Qwen/Qwen3-33B-FP8", "nvidia/-FP8", "-FP8", "nvidia/"])
def test_a_name_that_is_merely_close_is_nobody_elses(reference: str) -> None:
    assert shipped_config(reference) is None


def test_every_id_of_another_model_leads_to_one_that_ships() -> None:
    assert set(SAME.values()) <= set(shipped_ids())
    assert not SAME.keys() & set(shipped_ids())


@pytest.mark.parametrize(
    "reference", ["someone/else", "", "../configs/openai-community--gpt2", "OPENAI-COMMUNITY/GPT2"]
)
def test_what_is_not_among_them_is_not_found(reference: str) -> None:
    assert shipped_config(reference) is None


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("Llama-3.1-70B", "meta-llama/Llama-3.1-70B"),
        ("meta-llama/LLama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("qwen3-8b", "Qwen/Qwen3-8B"),
        ("mistralai/Mistral-7B-v0.11", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_the_closest_ids_are_what_was_meant(reference: str, meant: str) -> None:
    assert closest_ids(reference)[0] == meant


def test_nothing_is_close_to_nonsense() -> None:
    assert closest_ids("zzzzzzzz") == ()


def test_the_revision_names_the_package_and_its_version() -> None:
    assert re.fullmatch(r"joulegraph \d+\.\d+\.\d+\S* config", REVISION)


def test_the_configurations_are_part_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert "data/configs/*" in project["tool"]["setuptools"]["package-data"]["harness"]
