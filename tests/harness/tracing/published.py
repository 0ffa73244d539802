"""Published models in the terms of the closed forms; figures are those of their config.json."""

from tests.harness.tracing.closed_forms import Architecture, Classic, DeepSeek, Llama, Mixtral

LLAMA_70B = Llama(width=8192, inner=28672, layers=80, heads=64, kv_heads=8, head_dim=128, vocabulary=128256)
MISTRAL = Llama(
    model_type="mistral",
    width=4096,
    inner=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=32000,
    window=4096,
    full_layers=0,
)
GEMMA_2_9B = Llama(
    model_type="gemma2",
    width=3584,
    inner=14336,
    layers=42,
    heads=16,
    kv_heads=8,
    head_dim=256,
    vocabulary=256000,
    tied=True,
    norms=4,
    window=4096,
    full_layers=21,
)
GEMMA_3_12B = Llama(
    model_type="gemma3_text",
    width=3840,
    inner=15360,
    layers=48,
    heads=16,
    kv_heads=8,
    head_dim=256,
    vocabulary=262208,
    tied=True,
    norms=4,
    head_norms=True,
    window=1024,
    full_layers=8,
)
MIXTRAL = Mixtral(
    width=4096,
    inner=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=32000,
    experts=8,
    chosen=2,
)
DEEPSEEK_V3 = DeepSeek(
    width=7168,
    inner=18432,
    layers=61,
    dense_layers=3,
    heads=128,
    query_rank=1536,
    kv_rank=512,
    plain_dim=128,
    rope_dim=64,
    value_dim=128,
    vocabulary=129280,
    experts=256,
    chosen=8,
    shared=1,
    expert_inner=2048,
    groups=8,
    chosen_groups=4,
)
GPT2_XL = Classic(
    model_type="gpt2", width=1600, layers=48, heads=25, vocabulary=50257, positions=1024, shared_positions=True
)
OPT_6_7B = Classic(
    model_type="opt", width=4096, layers=32, heads=32, vocabulary=50272, positions=2048, shared_positions=False
)
MODELS: dict[str, Architecture] = {
    "llama-3.1-70b": LLAMA_70B,
    "qwen2.5-7b": Llama(
        model_type="qwen2",
        width=3584,
        inner=18944,
        layers=28,
        heads=28,
        kv_heads=4,
        head_dim=128,
        vocabulary=152064,
        qkv_bias=True,
    ),
    "qwen3-0.6b": Llama(
        model_type="qwen3",
        width=1024,
        inner=3072,
        layers=28,
        heads=16,
        kv_heads=8,
        head_dim=128,
        vocabulary=151936,
        head_norms=True,
        tied=True,
    ),
    "mistral-7b": MISTRAL,
    "gemma-2-9b": GEMMA_2_9B,
    "gemma-3-12b": GEMMA_3_12B,
    "gpt2-xl": GPT2_XL,
    "opt-6.7b": OPT_6_7B,
    "mixtral-8x7b": MIXTRAL,
    "deepseek-v3": DEEPSEEK_V3,
}
