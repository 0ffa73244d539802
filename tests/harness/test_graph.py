"""The command, in process, on configurations that ship with the package: no network is asked."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import pytest

from harness import graph
from harness.errors import UsageError
from harness.graph import DEFAULT_GPU, parse
from harness.kernels import KernelKind, Phase
from harness.models import hub
from harness.tracing.graph import KernelGraph
from tests import commands

SMALL = "HuggingFaceTB/SmolLM2-135M"
LARGE = "meta-llama/Llama-3.1-70B"


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    refusal = hub.Refusal(where=hub.HUB, why="no usable answer", remedy="Check the network.")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "fetch_snapshot", lambda *_args, **_options: refusal)


printed, refused = partial(commands.printed, graph.main), partial(commands.refused, graph.main)


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['graph', '--help']\n"
        "try: runpy.run_module('harness.graph', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, {'torch', 'transformers', 'rich', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 set()"
    assert "--tp N" in done.stdout


def test_json_is_one_object_that_reads_back_as_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, SMALL, "--phase", "prefill", "--batch", "2", "--prompt", "64", "--json")

    values = json.loads(text)
    found = KernelGraph.from_json(text)
    assert list(values)[:3] == ["graph_id", "model", "phase"]
    assert values["graph_id"] == found.graph_id
    assert (found.model, found.phase, found.batch_size, found.query_tokens) == (SMALL, Phase.PREFILL, 2, 64)
    assert values["kernels"]
    assert values["edges"]


def test_json_of_both_phases_is_a_list_and_a_decode_follows_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    prefill, decode = json.loads(printed(capsys, SMALL, "--prompt", "64", "--json"))

    assert (prefill["phase"], prefill["context_tokens"]) == ("prefill", 64)
    assert (decode["phase"], decode["query_tokens"], decode["context_tokens"]) == ("decode", 1, 65)


def test_a_decode_without_cache_runs_over_the_whole_context(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, SMALL, "--phase", "decode", "--context", "31", "--no-kv-cache", "--json")

    assert json.loads(text)["query_tokens"] == 32


def test_unrolled_layers_are_kernels_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = KernelGraph.from_json(printed(capsys, SMALL, "--phase", "decode", "--unroll", "--json"))

    assert {f"model.layers.{layer}.mlp.up_proj" for layer in range(30)} <= {kernel.module for kernel in found.kernels}


def test_a_70b_model_over_eight_ranks_needs_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, LARGE, "--phase", "prefill", "--batch", "8", "--prompt", "512", "--tp", "8", "--json")

    found = KernelGraph.from_json(text)
    reduces = found.of_kind(KernelKind.ALL_REDUCE)
    # Twice a layer and after the embedding each rank sends 2 × 7/8 of 8 × 512 × 8192 elements of 2 bytes.
    assert sum(kernel.launches for kernel in reduces) == 161
    assert sum(kernel.link_bytes for kernel in reduces) == 161 * 2 * 7 * (8 * 512 * 8192 * 2) // 8
    assert len(found.kernels) <= 200


def test_the_table_lists_the_kernels_by_share_with_sums_below(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, LARGE, "--phase", "decode", "--batch", "8", "--top", "3")

    lines = [line for line in text.splitlines() if line.startswith("mm ")]
    assert [line.split()[2].rpartition(".")[2] for line in lines] == ["gate_proj", "up_proj", "down_proj"]
    assert all(line.split()[-2] == "26" for line in lines)
    assert f"{DEFAULT_GPU} (assumed; choose with --gpu)" in text
    assert "Times are Roofline bounds, not measurements." in text
    assert "more kernels" in text
    assert "139 GB of it weights" in text
    for title in ("Roofline time", "Bound by", "FLOP", "Memory traffic", "Launches"):
        assert f"\n{title} " in text
    assert "Link traffic" not in text


def test_all_kernels_are_shown_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, SMALL, "--phase", "decode", "--top", "0", "--gpu", "A100-SXM4-80GB")
    kernels = json.loads(printed(capsys, SMALL, "--phase", "decode", "--json"))["kernels"]

    table = text.split("\n\n")[1].splitlines()
    assert len(table) == 1 + len(kernels)
    assert "more kernel" not in text
    assert "(assumed" not in text


@pytest.mark.parametrize("columns", [80, 100, 140, 200])
def test_a_terminal_is_filled_and_not_overrun(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(columns))

    text = printed(capsys, LARGE, "--batch", "8", "--prompt", "512", "--tp", "8", "--top", "8")

    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in "".join(line for line in lines if " mm" in line)
    assert not [line for line in lines if line.startswith("launches")]


def test_piped_output_breaks_no_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    text = printed(capsys, LARGE, "--phase", "decode", "--batch", "8", "--top", "20")

    rows = text.split("\n\n")[1].splitlines()
    assert len(rows) == 1 + 20 + 1
    assert any("batch 8 query_tokens 1 context_tokens 513 heads 64 kv_heads 8 head_dim 128" in row for row in rows)
    assert "…" not in text


def test_a_page_and_a_drawing_are_written_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, drawing = tmp_path / "graph.html", tmp_path / "graph.svg"

    assert graph.main([SMALL, "--html", str(page), "--svg", str(drawing)]) == 0

    output = capsys.readouterr()
    assert output.err.splitlines() == [str(page), str(drawing)]
    assert "Roofline time" in output.out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    ElementTree.parse(drawing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.html", "graph.svg"]


def test_a_drawing_can_be_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    root = ElementTree.fromstring(printed(capsys, SMALL, "--phase", "decode", "--svg", "-"))

    assert root.tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "required: MODEL"),
        ((SMALL, "--batch", "0"), "argument --batch: 0 is too few"),
        ((SMALL, "--prompt", "many"), "'many' is not a whole number"),
        ((SMALL, "--phase", "both!"), "invalid choice"),
        ((SMALL, "--gpuu", "x"), "unrecognized arguments: --gpuu"),
        ((SMALL, "--phase", "prefill", "--context", "3"), "--context is the cache"),
        ((SMALL, "--json", "--svg", "-"), "both write to standard output"),
        ((SMALL, "--gpu", "H1000"), "'H1000' is not in the hardware table"),
        ((SMALL, "--hardware", "/no/such/file.toml"), "is not a file"),
        (
            (SMALL, "--prompt", "8192"),
            "needs a context of 8193 tokens, and that of HuggingFaceTB/SmolLM2-135M ends at 8192",
        ),
        ((SMALL, "--tp", "2"), "9 attention heads and 3 KV heads do not divide by 2"),
        (("bigscience/bloom-560m", "--attention", "sdpa"), "has no sdpa attention"),
        ((SMALL, "--gpu", "T4"), "Tesla T4 has no native units for bfloat16"),
        (
            (SMALL, "--gpu", "NVIDIA Jetson AGX Orin 64GB", "--tp", "3"),
            "no link_bytes_per_s for NVIDIA Jetson AGX Orin",
        ),
        (("someone/misspelt",), "The model someone/misspelt was not found"),
        (("meta-llama/Llama-3.1-70",), "Known offline, without weights: meta-llama/Llama-3.1-70B"),
        (("./missing",), "no such file or folder"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint in refused(capsys, *arguments)


def test_too_many_kernels_are_not_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_MOST_DRAWN", 10)

    assert "too many to draw (10 at most)" in refused(capsys, SMALL, "--svg", str(tmp_path / "graph.svg"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graph.main([SMALL, "--json", "--html", str(tmp_path / "missing" / "x.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_behind_standard_output_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code = graph.main([SMALL, "--phase", "decode", "--json"])

    assert code == 1
    assert "Not everything could be printed: No space left on device" in capsys.readouterr().err


def test_a_local_config_is_a_model_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my-gpt2"
    folder.mkdir()
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 300}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    for reference in (folder, folder / "config.json"):
        found = json.loads(printed(capsys, os.fspath(reference), "--phase", "prefill", "--prompt", "16", "--json"))
        assert found["model"] == "my-gpt2"


def test_attention_is_what_the_architecture_has(capsys: pytest.CaptureFixture[str]) -> None:
    default = json.loads(printed(capsys, "bigscience/bloom-560m", "--phase", "prefill", "--json"))
    chosen = json.loads(printed(capsys, SMALL, "--phase", "prefill", "--attention", "eager", "--json"))

    assert (default["attention"], chosen["attention"]) == ("eager", "eager")


def test_the_context_of_a_decode_is_the_prompt_unless_it_is_said() -> None:
    assert parse([SMALL, "--prompt", "7"]).context == 7
    assert parse([SMALL, "--prompt", "7", "--context", "9"]).context == 9
    assert parse([SMALL]).phases == tuple(Phase)
    with pytest.raises(UsageError, match=r"See python -m harness\.graph --help"):
        parse([])


def test_a_whole_request_is_counted_over_its_growing_context(capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--batch", "2", "--prompt", "16")
    steps = [
        json.loads(printed(capsys, SMALL, *size, "--phase", "decode", "--context", str(context), "--json"))
        for context in (16, 17, 18)
    ]
    prefill = json.loads(printed(capsys, SMALL, *size, "--phase", "prefill", "--json"))
    flop = sum(kernel["flop"] for each in (prefill, *steps) for kernel in each["kernels"])

    text = printed(capsys, SMALL, *size, "--output", "4")

    assert "4 passes" in text
    assert f"{flop / 1e9:.3g} GFLOP" in text


def test_counts_of_a_request_are_refused_where_they_would_not_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--output prints" in refused(capsys, SMALL, "--output", "4", "--json")
    assert "needs a context of" in refused(capsys, SMALL, "--output", "99999999")
