"""The shipped graphs are those of the shipped configurations, and a damaged file is told from a good one."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CorruptFile
from harness.kernels import Phase
from harness.models.checkpoint import config_sha256, read_config
from harness.models.shipped import shipped_config, shipped_ids
from predictor.templates import model_source
from predictor.templates_basis import Basis, Curve
from predictor.templates_capture import capture_eager, capture_served
from predictor.templates_fit import pass_sizes
from predictor.templates_json import phase_from, phase_json, served_from, served_json
from predictor.templates_store import (
    SHIPPED,
    VERSION,
    StoredServed,
    eager_member,
    members,
    served_member,
    served_text,
    stored_eager,
    stored_served,
)
from predictor.templates_write import captured, distinct_models

SMALL = "HuggingFaceTB/SmolLM2-135M"
NO_EAGER = {"databricks/dbrx-instruct"}  # transformers runs its experts one by one, as many as tokens reach


def sha256(model: str) -> str:
    return config_sha256(read_config(model_source(model).config_path))


@pytest.mark.parametrize("model", shipped_ids())
def test_every_shipped_configuration_has_its_graphs(model: str) -> None:
    found = {name for name in members() if name.startswith(sha256(model)[:20])}

    assert served_member(sha256(model)) in found, "python -m predictor.templates --write"
    assert len(found) >= 2 or model in NO_EAGER


def test_no_graphs_are_left_of_configurations_that_are_gone() -> None:
    known = {sha256(model)[:20] for model in shipped_ids()}

    assert {name.split("/")[0] for name in members()} == known


@pytest.mark.parametrize("model", [SMALL, "Qwen/Qwen3-8B", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V2-Lite"])
def test_a_shipped_model_is_what_lowering_it_again_gives(model: str) -> None:
    stored = stored_served(sha256(model))
    sizes, served = capture_served(model_source(model))

    assert stored == StoredServed(sizes=sizes, served=served), "python -m predictor.templates --write"


@pytest.mark.parametrize(("model", "degree"), [(SMALL, 1), ("openai-community/gpt2", 2), ("Qwen/Qwen3-30B-A3B", 4)])
def test_shipped_graphs_are_what_capturing_them_again_gives(model: str, degree: int) -> None:
    stored = stored_eager(sha256(model), "sdpa", degree)
    again = capture_eager(
        model_source(model), attention="sdpa", dtype="bfloat16", tensor_parallel=degree, kv_cache=True
    )

    assert stored is not None
    assert again.decode is not None
    assert phase_json(stored.prefill) == phase_json(again.prefill), "python -m predictor.templates --write"
    assert phase_json(stored.decode) == phase_json(again.decode)


def test_the_file_is_small_and_opened_at_once() -> None:
    assert SHIPPED.stat().st_size < 3 * 1024**2

    start = time.perf_counter()
    with zipfile.ZipFile(SHIPPED) as archive:
        archive.read(eager_member(sha256("meta-llama/Llama-3.1-70B"), "sdpa", 4))
    assert time.perf_counter() - start < 0.5


def test_shipped_graphs_need_no_torch() -> None:
    script = (
        "import sys\n"
        "from predictor.templates import template\n"
        f"for kind in ('served', 'eager'): template({SMALL!r}, runtime_class=kind, dtype='bfloat16').decode([1], [9])\n"
        "sys.exit(int('torch' in sys.modules or 'transformers' in sys.modules))\n"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_one_model_gives_its_members_and_says_what_it_lacks() -> None:
    written = captured(SMALL)

    names = {name for name, _ in written.members}
    assert names == {served_member(sha256(SMALL)), eager_member(sha256(SMALL), "sdpa", 1)}  # nine heads
    assert written.problems == ()
    assert all(json.loads(text)["version"] == VERSION for _, text in written.members)


def test_models_of_the_same_configuration_are_captured_once() -> None:
    models = distinct_models()

    assert len({sha256(model) for model in models}) == len(models) < len(shipped_ids())


def test_graphs_come_back_from_json_as_they_were() -> None:
    stored = stored_eager(sha256("google/gemma-3-1b-it"), "sdpa", 1)
    assert stored is not None

    again = phase_from(json.loads(json.dumps(phase_json(stored.decode))))

    at = pass_sizes(Phase.DECODE, [2, 2], [100, 5000])
    one, other = stored.decode.expand(at), again.expand(at)
    for name in ("kind", "dtype", "flop", "read_bytes", "sizes", "edges"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def packed(path: Path, name: str, text: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, text)
    return path


def test_a_file_that_is_not_there_has_no_graphs(tmp_path: Path) -> None:
    assert stored_served("0" * 64, tmp_path / "none.zip") is None


def test_graphs_of_another_version_are_not_read(tmp_path: Path) -> None:
    stored = stored_served(sha256(SMALL))
    assert stored is not None
    text = served_text(stored).replace(f'"version":{VERSION}', '"version":999')

    assert stored_served(sha256(SMALL), packed(tmp_path / "new.zip", served_member(sha256(SMALL)), text)) is None


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"version":1}', '{"version":1,"sizes":{},"served":{}}', b"\xff\xfe", "[" * 100_000],
)
def test_a_damaged_member_is_told_from_a_good_one(tmp_path: Path, text: str | bytes) -> None:
    path = packed(tmp_path / "bad.zip", served_member("0" * 64), text)

    with pytest.raises(CorruptFile, match="damaged"):
        stored_served("0" * 64, path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    path.write_bytes(b"PK\x03\x04 and then nothing")

    with pytest.raises(CorruptFile, match="damaged"):
        stored_served("0" * 64, path)


def test_a_member_that_unpacks_to_more_than_a_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(served_member("0" * 64), " " * 5 * 1024**2)

    with pytest.raises(CorruptFile, match="too large"):
        stored_served("0" * 64, path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=True) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_anything_else_is_damaged_and_nothing_worse(value: object) -> None:
    for read in (phase_from, served_from):
        with pytest.raises(CorruptFile):
            read(value)  # type: ignore[arg-type]


@given(st.data())
def test_a_graph_with_one_value_changed_is_read_or_refused(data: st.DataObject) -> None:
    path = shipped_config(SMALL)
    assert path is not None
    stored = stored_eager(config_sha256(read_config(path)), "sdpa", 1)
    assert stored is not None
    value = json.loads(json.dumps(phase_json(stored.prefill)))
    key = data.draw(st.sampled_from(sorted(value[0])))
    value[0][key] = data.draw(JSON)

    try:
        graph = phase_from(value)
    except CorruptFile:
        return
    assert graph.regions[0].graph.rows > 0


def test_operators_come_back_as_they_were() -> None:
    stored = stored_served(sha256("deepseek-ai/DeepSeek-V3"))
    assert stored is not None

    assert served_from(json.loads(json.dumps(served_json(stored.served)))) == stored.served


@pytest.mark.parametrize(
    "basis",
    [Basis(), Basis(b=1, q=2), Basis(c=1, curve=Curve.SEEN, parameters=(4096,)), Basis(t=1)],
)
def test_a_basis_comes_back_as_it_was(basis: Basis) -> None:
    assert Basis.from_json(json.loads(json.dumps(basis.to_json()))) == basis


@pytest.mark.parametrize(
    "values", [[], [1, 2], [9, 0, 0, 0], [0, 0, 0, 0, "seen", [], 1], [0, 0, 0, 0, "other", [1], 1], [0, 0, 0, True]]
)
def test_what_is_no_basis_is_refused(values: list[object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Basis.from_json(values)
