"""The command line is the plan."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.campaign.fields import RequestSpec
from harness.campaign.options import parse, parser
from harness.campaign.plan import Plan, plan_fields
from harness.errors import UsageError
from harness.records import Quality


def test_no_flags_give_the_default_plan() -> None:
    invocation = parse([])
    assert invocation.plan == Plan()
    assert invocation.out is None
    assert not invocation.dry_run


def test_each_field_of_the_plan_has_a_flag_with_help() -> None:
    text = parser().format_help()
    for field in plan_fields():
        assert field.flag in text
        assert field.option.text.split(";")[0][:15] in text


def test_flags_set_the_fields_they_name() -> None:
    line = (
        "--models a b --dtype float32 --attention eager --no-kv-cache --random-weights --gpus 1,2 4 --cpu-threads 2 "
        "--samples 20 --batch-sizes 1,16 --trace azure-2023-code --seed 7 --quality quick --time-budget 5min "
        "--no-trace-kernels --hardware mine.toml --trust-remote-code --out there --dry-run"
    )
    invocation = parse(line.split())
    assert invocation.plan == Plan(
        models=("a", "b"),
        dtype="float32",
        attention="eager",
        kv_cache=False,
        random_weights=True,
        gpus=(1, 2, 4),
        cpu_threads=2,
        samples=20,
        batch_sizes=(1, 16),
        trace="azure-2023-code",
        seed=7,
        quality=Quality.QUICK,
        time_budget_s=300,
        trace_kernels=False,
        hardware_file="mine.toml",
        trust_remote_code=True,
    )
    assert invocation.out == Path("there")
    assert invocation.dry_run


def test_requests_on_the_command_line_are_a_list() -> None:
    plan = parse(["--requests", "1x512x128,8x256x64", "2×4×6"]).plan
    assert plan.sampling == "list"
    assert [str(request) for request in plan.requests] == ["1x512x128", "8x256x64", "2x4x6"]


def test_lengths_on_the_command_line_are_a_grid() -> None:
    plan = parse(["--prompt-tokens", "16", "32", "--output-tokens", "8"]).plan
    assert (plan.sampling, plan.prompt_tokens, plan.output_tokens) == ("grid", (16, 32), (8,))


def test_flags_override_the_plan_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(Plan(samples=30, seed=4, quality=Quality.QUICK).to_toml())

    plan = parse(["--plan", str(file), "--seed", "5"]).plan

    assert plan == Plan(samples=30, seed=5, quality=Quality.QUICK)


def test_requests_on_the_command_line_replace_the_sizes_of_a_grid_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(Plan(sampling="grid", prompt_tokens=(8,), output_tokens=(8,), seed=3).to_toml())

    plan = parse(["--plan", str(file), "--requests", "1x2x3"]).plan

    spec = RequestSpec(batch_size=1, prompt_tokens=2, output_tokens=3)
    assert plan == Plan(sampling="list", requests=(spec,), seed=3)


def test_a_prompt_length_overrides_that_of_a_grid_in_the_file_and_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("prompt_tokens = [8]\noutput_tokens = [16]\n")
    plan = parse(["--plan", str(file), "--prompt-tokens", "32"]).plan
    assert plan == Plan(sampling="grid", prompt_tokens=(32,), output_tokens=(16,))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--bacth-sizes 1", "no flag --bacth-sizes.\nDid you mean --batch-sizes"),
        ("--model a", "Did you mean --models"),
        ("--qualty=quick", "Did you mean --quality"),
        ("--xyz", "Known: .*--seed"),
        ("--sample 3", "Did you mean --samples"),
        ("stray", "'stray' belongs to no flag"),
        ("--gpus", "--gpus: expected at least one argument"),
        ("--gpus two", "gpus .--gpus.: 'two' is not a whole number"),
        ("--gpus -1", "-1 is out of range"),
        ("--batch-sizes ,", "batch_sizes .* is empty"),
        ("--device gpu", "device .--device."),
        ("--time-budget soon", "time_budget_s .--time-budget.*5min"),
        ("--requests 1x2x3 --samples 3", "samples .* does nothing"),
        ("--plan missing.toml", "missing.toml"),
        ("--dry-run=yes", "dry-run"),
    ],
)
def test_a_bad_command_line_says_what_would_be_right(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        parse(line.split())


def test_an_empty_folder_name_is_refused() -> None:
    with pytest.raises(UsageError, match="--out"):
        parse(["--out", ""])


FLAGS = [field.flag for field in plan_fields()]


@given(st.lists(st.sampled_from([*FLAGS, "--plan", "--out", "--dry-run"]) | st.text(max_size=8), max_size=6))
def test_any_command_line_gives_an_invocation_or_a_usage_error(argv: list[str]) -> None:
    with suppress(UsageError):
        assert parse([word for word in argv if word not in {"-h", "--help", "--version"}]).plan


def test_help_exits_without_importing_torch_or_numpy() -> None:
    code = (
        "import sys\nfrom harness.campaign.options import parse\n"
        "try:\n    parse(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'numpy', 'transformers', 'sqlite3', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--time-budget" in done.stdout
