"""Loading a rank's share and loading layers over several GPUs, as far as one process without a GPU can tell.

What only GPUs can show: NCCL, several GPUs at once (tests/gpu), and accelerate moving tensors between them.
"""

import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import dispatch_model

from harness.errors import OutOfMemory, UnknownModel, UsageError
from harness.models import loading, parallel_adapter, parallel_layers, parallel_loading
from harness.models.loading import LoadedModel, load
from harness.models.parallel_layers import LayerSplit, Place, free_gpu_bytes, layer_split
from harness.models.parallel_random import fill_randomly
from harness.models.source import resolve
from harness.models.steps import Stepper

Build = Callable[..., Any]
HEADS_9_3: dict[str, Any] = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}
CPU: dict[str, Any] = {"dtype": "float32", "device": "cpu", "seed": 0}


@pytest.fixture
def as_rank() -> Iterator[Callable[..., None]]:
    """Make this process one of so many ranks, the others of which do not exist: collectives return at once."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def join(degree: int, rank: int = 0) -> None:
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=degree)

    yield join
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def load_random(tiny_config: Callable[..., Path]) -> Callable[..., LoadedModel]:
    def random(family: str, *, parallelism: str = "tensor", attention: str = "sdpa", **changes: Any) -> LoadedModel:
        source = resolve(str(tiny_config(family, **changes)), random_weights=True)
        return load(source, attention=attention, parallelism=parallelism, **CPU)

    return random


@pytest.fixture
def on_meta(tiny_config: Callable[..., Path]) -> Build:
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM

    def build(family: str, **changes: Any) -> Any:
        with torch.device("meta"):
            return auto.from_config(
                AutoConfig.from_pretrained(tiny_config(family, **changes).parent), dtype=torch.float32
            )

    return build


def size_bytes(model: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def test_a_rank_knows_who_it_is(load_random: Callable[..., LoadedModel], as_rank: Callable[..., None]) -> None:
    as_rank(3, rank=2)
    loaded = load_random("llama", **HEADS_9_3)
    assert (loaded.parallelism, loaded.ranks, loaded.rank) == ("tensor", 3, 2)
    assert loaded.devices == (torch.device("cpu"),)
    assert loaded.model.model.layers[0].self_attn.q_proj.weight.to_local().shape == (24, 72)


def test_a_group_of_one_loads_the_whole_model(
    load_random: Callable[..., LoadedModel], as_rank: Callable[..., None]
) -> None:
    as_rank(1)
    loaded = load_random("llama")
    assert (loaded.ranks, loaded.rank) == (1, 0)
    assert type(loaded.model.lm_head.weight) is torch.nn.Parameter


def test_heads_that_do_not_divide_are_refused_before_anything_is_loaded(
    load_random: Callable[..., LoadedModel], as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(2)
    monkeypatch.setattr(loading, "_random_model", lambda _wanted: pytest.fail("it was loaded"))
    with pytest.raises(UsageError, match=r"9 attention heads and 3 KV heads do not divide by 2\.\n--gpus 1 or 3 work"):
        load_random("llama", **HEADS_9_3)


def test_a_family_without_a_plan_is_refused_before_anything_is_loaded(
    load_random: Callable[..., LoadedModel], as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(2)
    monkeypatch.setattr(loading, "_random_model", lambda _wanted: pytest.fail("it was loaded"))
    with pytest.raises(UsageError, match="no tensor-parallel plan for mamba"):
        load_random("mamba", attention="eager")


def test_a_way_that_does_not_exist_is_a_usage_error(load_random: Callable[..., LoadedModel]) -> None:
    with pytest.raises(UsageError, match=r"'pipeline' is no way to use several GPUs\. Use one of none, tensor, layers"):
        load_random("llama", parallelism="pipeline")


def test_without_a_process_group_the_caller_is_told(load_random: Callable[..., LoadedModel]) -> None:
    with pytest.raises(ValueError, match="init_process_group"):
        load_random("llama")


@pytest.fixture
def half_the_memory(tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of which half would fit, and so the share of one rank of two, but not the whole."""
    whole = (tiny_llama_folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(loading, "available_memory_bytes", lambda _device: round(0.6 * whole))
    return tiny_llama_folder


def test_memory_is_checked_against_the_share(
    half_the_memory: Path, as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve(str(half_the_memory))
    with pytest.raises(OutOfMemory, match="weights alone need"):
        load(source, attention="sdpa", **CPU)
    as_rank(2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # each rank on a machine of its own
    assert load(source, attention="sdpa", parallelism="tensor", **CPU).ranks == 2


def test_ranks_of_one_machine_share_its_memory(half_the_memory: Path, as_rank: Callable[..., None]) -> None:
    as_rank(2)
    with pytest.raises(OutOfMemory, match=r"Rank 0 of 2 needs .* and 2 ranks share this memory; cpu has"):
        load(resolve(str(half_the_memory)), attention="sdpa", parallelism="tensor", **CPU)


def test_random_weights_built_whole_need_memory_for_the_whole(
    half_the_memory: Path, as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    source = resolve(str(half_the_memory), random_weights=True)
    with pytest.raises(OutOfMemory, match="Rank 0 of 2"):
        load(source, attention="sdpa", parallelism="tensor", **CPU)
    monkeypatch.setattr(parallel_loading, "_WHOLE_BYTES", 0)
    assert load(source, attention="sdpa", parallelism="tensor", **CPU).ranks == 2


def test_ranks_on_the_cpu_work_on_a_machine_with_gpus(
    load_random: Callable[..., LoadedModel], as_rank: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(2)
    monkeypatch.setattr(torch._C, "_get_accelerator", lambda *_args: torch.device("cuda"))
    monkeypatch.setenv("LOCAL_RANK", "5")

    loaded = load_random("llama")

    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"cpu"}
    assert os.environ["LOCAL_RANK"] == "5"
    assert torch._C._get_accelerator().type == "cuda"


def test_the_rank_is_bound_to_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with parallel_adapter.bound_to(torch.device("cuda", 3)):
        assert os.environ["LOCAL_RANK"] == "3"
        assert torch._C._get_accelerator().type == "cuda"
    assert "LOCAL_RANK" not in os.environ

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    with parallel_adapter.bound_to(torch.device("cuda")):
        assert os.environ["LOCAL_RANK"] == "2"


def test_weights_that_are_not_those_of_the_config_are_an_error_for_a_share_too(
    tiny_llama_folder: Path, as_rank: Callable[..., None], tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(tiny_llama_folder, tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    as_rank(2)
    with pytest.raises(UnknownModel, match="weights of broken cannot be loaded"):
        load(resolve(str(broken)), attention="sdpa", parallelism="tensor", **CPU)


def filled(model: Any, *, seed: int = 1) -> Any:
    fill_randomly(model, seed=seed, device_of=lambda _path: torch.device("cpu"), keep=lambda _path, tensor: tensor)
    return model.eval()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mamba2", "gemma3_text", "jamba", "qwen3_next"])
def test_weights_filled_in_module_by_module_make_a_model_that_runs(on_meta: Build, family: str) -> None:
    model = filled(on_meta(family))
    with torch.inference_mode():
        logits = model(torch.arange(10)[None], use_cache=False).logits
    assert bool(logits.isfinite().all())
    assert float(logits.std()) > 0
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_buffers_are_those_of_a_model_built_at_once(on_meta: Build, load_tiny: Callable[..., Any]) -> None:
    buffers = dict(filled(on_meta("gemma3_text")).named_buffers())
    expected = dict(load_tiny("gemma3_text").model.named_buffers())
    assert buffers.keys() == expected.keys()
    assert all(torch.equal(buffer, expected[path]) for path, buffer in buffers.items())


def test_weights_repeat_with_the_seed_differ_between_layers_and_leave_the_generator_alone(on_meta: Build) -> None:
    state = torch.random.get_rng_state()
    first, same, other = (filled(on_meta("llama"), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    layers = [layer.mlp.up_proj.weight for layer in first.model.layers]
    assert not torch.equal(layers[0], layers[1])
    assert bool((first.model.norm.weight == 1).all())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_more_than_one_module_is_ever_whole(on_meta: Build) -> None:
    model = on_meta("qwen2")  # with biases: two parameters in a module
    alive: list[weakref.ref[torch.UntypedStorage]] = []
    most = 0

    def keep(_path: str, tensor: torch.Tensor) -> torch.Tensor:
        nonlocal most
        alive.append(weakref.ref(tensor.untyped_storage()))
        most = max(most, sum(storage() is not None for storage in alive))
        return tensor[:1].clone()

    fill_randomly(model, seed=0, device_of=lambda _path: torch.device("cpu"), keep=keep)

    assert len(alive) > 20
    assert most <= 2


def test_shared_weights_stay_shared(on_meta: Build) -> None:
    model = filled(on_meta("gpt2"))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_what_a_family_forgets_to_initialise_is_not_left_to_chance() -> None:
    class Forgetful(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.empty(50, 50, device="meta"))

        def _init_weights(self, module: torch.nn.Module) -> None: ...

    model = Forgetful()
    fill_randomly(model, seed=0, device_of=lambda _path: torch.device("cpu"), keep=lambda _path, tensor: tensor)
    assert 0.015 < float(model.scale.std()) < 0.025


def split(model: Any, *free: float) -> LayerSplit:
    """Deal out over GPUs with so much memory, as multiples of the model's size."""
    whole = size_bytes(model)
    free_bytes = {gpu: round(share * whole) for gpu, share in enumerate(free)}
    return layer_split(model, free_bytes=free_bytes, weight_bytes=whole, name="the model")


def bytes_on(model: Any, dealt: LayerSplit, gpu: int) -> int:
    places = [place.path for place in dealt.places if place.gpu == gpu]
    return sum(size_bytes(model.get_submodule(path)) for path in places)


def test_layers_are_dealt_out_evenly_in_order_and_stay_whole(on_meta: Build) -> None:
    model = on_meta("llama", num_hidden_layers=12, vocab_size=100)
    dealt = split(model, 1, 1, 1)

    gpus = [place.gpu for place in dealt.places]
    assert gpus == sorted(gpus)
    assert dealt.gpus == (0, 1, 2)
    assert {f"model.layers.{layer}" for layer in range(12)} < {place.path for place in dealt.places}
    largest = max(bytes_on(model, dealt, gpu) for gpu in range(3))
    assert largest <= size_bytes(model) / 3 + size_bytes(model.model.layers[0])


def test_a_gpu_with_less_memory_gets_less(on_meta: Build) -> None:
    model = on_meta("llama", num_hidden_layers=12, vocab_size=100)
    dealt = split(model, 0.4, 1.2)
    small, large = (bytes_on(model, dealt, gpu) for gpu in (0, 1))
    assert 0.2 * large < small < 0.5 * large


def test_a_head_that_shares_the_embeddings_weights_goes_where_they_are(on_meta: Build) -> None:
    dealt = split(on_meta("gpt2"), 1, 1)
    assert dealt.gpu_of("lm_head") == dealt.gpu_of("transformer.wte") == 0
    assert dealt.gpu_of("transformer.h.1.mlp.c_fc") == 1
    assert dealt.gpu_of("") == 0


def test_layers_that_do_not_fit_are_an_error_with_the_memory_needed_and_never_go_to_the_cpu(on_meta: Build) -> None:
    model = on_meta("llama", hidden_size=1024, intermediate_size=4096, num_hidden_layers=8)
    with pytest.raises(OutOfMemory, match=r"do not fit on 2 GPUs: the weights need 0\.47 GiB.*Nothing is moved"):
        split(model, 0.5, 0.5)


def test_quantised_weights_are_dealt_out_by_their_size(on_meta: Build) -> None:
    model = on_meta("llama", num_hidden_layers=12)
    whole = size_bytes(model)
    free = {0: round(0.2 * whole), 1: round(0.2 * whole)}
    with pytest.raises(OutOfMemory):
        layer_split(model, free_bytes=free, weight_bytes=whole, name="the model")
    assert layer_split(model, free_bytes=free, weight_bytes=whole // 4, name="the model").gpus == (0, 1)


def test_layers_need_a_gpu(load_random: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="none is visible here"):
        load_random("llama", parallelism="layers")
    with pytest.raises(UsageError):
        free_gpu_bytes()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two GPUs that are the CPU, with accelerate's real hooks; the arguments that it was called with."""
    calls: list[dict[str, Any]] = []
    dispatch = dispatch_model

    def on_cpu(model: Any, **arguments: Any) -> Any:
        calls.append(arguments)
        places = dict.fromkeys(arguments.pop("device_map"), "cpu")
        return dispatch(model, device_map=places, main_device=torch.device("cpu"), force_hooks=True, **arguments)

    monkeypatch.setattr(parallel_layers, "free_gpu_bytes", lambda: {0: 10**9, 1: 10**9})
    monkeypatch.setattr(parallel_layers, "gpu_device", lambda _gpu: torch.device("cpu"))
    monkeypatch.setattr(parallel_layers, "dispatch_model", on_cpu)
    return calls


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_model_with_hooks_on_its_layers_can_be_stepped_and_rewound(
    two_gpus: list[dict[str, Any]], load_random: Callable[..., LoadedModel], on_meta: Build, family: str
) -> None:
    loaded = load_random(family, parallelism="layers")

    assert loaded.split is not None
    assert loaded.split.gpus == (0, 1)
    assert loaded.devices == (torch.device("cuda", 0), torch.device("cuda", 1))
    assert two_gpus[0]["skip_keys"] == loaded.model._skip_keys_device_placement
    whole = filled(on_meta(family), seed=0)
    tokens = torch.arange(9)[None]
    stepper = Stepper(loaded)
    state = stepper.prefill(tokens)
    mark = stepper.mark(state)
    stepper.step(state)
    logits = state.logits
    stepper.rewind(state, mark)
    stepper.step(state)
    assert torch.equal(state.logits, logits)
    with torch.inference_mode():
        expected = whole(torch.cat([tokens, mark.next_token], dim=1)).logits[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_a_checkpoint_is_loaded_with_the_map_of_its_layers(
    two_gpus: list[dict[str, Any]], tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps: list[dict[str, int]] = []

    def spied(_wanted: Any, **placement: Any) -> Any:
        maps.append(placement["device_map"])
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(loading, "_pretrained_model", spied)
    load(resolve(str(tiny_llama_folder)), attention="sdpa", parallelism="layers", **CPU)

    assert set(maps[0].values()) == {0, 1}
    assert maps[0]["model.embed_tokens"] == 0
    assert maps[0]["lm_head"] == 1


def test_the_innermost_place_decides() -> None:
    dealt = LayerSplit(places=(Place(path="a", gpu=0), Place(path="a.b", gpu=1), Place(path="ab", gpu=2)))
    assert [dealt.gpu_of(path) for path in ("a", "a.c", "a.b.c", "ab", "elsewhere")] == [0, 0, 1, 2, 0]
    assert dealt.device_map() == {"a": 0, "a.b": 1, "ab": 2}
