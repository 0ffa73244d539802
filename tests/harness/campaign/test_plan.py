"""A plan is one frozen dataclass, one TOML file and one identity."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.fields import RequestSpec
from harness.campaign.plan import Plan, plan_fields
from harness.errors import UsageError
from harness.records import Quality

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: not text.isspace()
)
COUNTS = st.integers(1, 1000)
SPECS = st.builds(RequestSpec, batch_size=COUNTS, prompt_tokens=COUNTS, output_tokens=COUNTS)


def lists(items: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=least, max_size=4, unique=True).map(tuple)


SAMPLINGS = st.one_of(
    st.fixed_dictionaries({"sampling": st.just("trace"), "samples": COUNTS, "trace": NAMES}),
    st.fixed_dictionaries(
        {"sampling": st.just("grid"), "prompt_tokens": lists(COUNTS, 1), "output_tokens": lists(COUNTS, 1)},
        optional={"batch_sizes": lists(COUNTS, 1)},
    ),
    st.fixed_dictionaries({"sampling": st.just("list"), "requests": lists(SPECS, 1)}),
)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "models": lists(NAMES),
        "random_weights": st.booleans(),
        "dtype": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
        "kv_cache": st.booleans(),
        "gpus": lists(COUNTS),
        "parallelism": st.sampled_from(["tensor", "layers"]),
        "collective_timeout_s": st.floats(1e-3, 8e4),
        "hardware_file": st.none() | NAMES,
        "seed": st.integers(0, 2**32 - 1),
        "quality": st.sampled_from(Quality),
        "time_budget_s": st.none() | st.floats(1e-3, 1e6),
        "trace_kernels": st.booleans(),
    },
)
PLANS = st.builds(lambda one, two: Plan(**one, **two), SAMPLINGS, OTHERS)


def usage_error(action: Callable[[], object]) -> str | None:
    """The message of the usage error that ``action`` ends in; None if it ends in none."""
    try:
        action()
    except UsageError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans") / "plan.toml"


@given(plan=PLANS)
def test_a_plan_written_as_toml_reads_back_as_the_same_plan(plan: Plan, plan_file: Path) -> None:
    plan_file.write_text(plan.to_toml(), encoding="utf-8")

    again = Plan.read(plan_file)

    assert again == plan
    assert again.campaign_id == plan.campaign_id


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_junk_is_a_usage_error_and_never_another_exception(content: bytes, plan_file: Path) -> None:
    plan_file.write_bytes(content)
    message = usage_error(lambda: Plan.read(plan_file))
    assert message is None or "plan" in message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([field.name for field in plan_fields()])


@settings(max_examples=300)
@given(table=st.dictionaries(KEYS | st.text(max_size=8), JSON_VALUES, max_size=4))
def test_keys_with_any_values_give_a_plan_or_a_usage_error(table: dict[str, object]) -> None:
    message = usage_error(lambda: Plan.from_table(table))
    assert message is None or "\n" in message, "an error says what to do on a line of its own"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"x = " + b"[" * 100_000,
        b"seed = 0x" + b"f" * 100_000,
        b"seed = " + b"9" * 100_000,
        b"samples = nan",
        b"time_budget_s = inf",
        b"time_budget_s = 1e400",
        b"seed = 1979-05-27T07:32:00Z",
        b"#" * 1_000_001,
        b"models = [" + b'"a",' * 10_001 + b"]",
        b"requests = [{batch_size = true, prompt_tokens = 1, output_tokens = 1}]",
    ],
    ids=lambda content: content[:20].decode("latin-1"),
)
def test_a_hostile_plan_file_is_a_short_usage_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Plan.read(tmp_path / "plan.toml")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("path", ["missing.toml", ".", "null\0byte", "x" * 5000])
def test_a_plan_that_cannot_be_read_is_a_usage_error(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Plan.read(Path(path))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch_sizes": (0,)}, "batch_sizes.*0 is out of range"),
        ({"batch_sizes": (-3,)}, "-3 is out of range"),
        ({"batch_sizes": ()}, "batch_sizes.*empty"),
        ({"batch_sizes": (4, 4)}, "4 is there twice"),
        ({"samples": 0}, "samples.*out of range"),
        ({"samples": True}, "samples.*True is not a whole number"),
        ({"samples": 8.0}, "not a whole number"),
        ({"samples": 1 << 40_000}, "a number of 40001 bits"),
        ({"gpus": (0,)}, "gpus.*out of range"),
        ({"parallelism": "layers", "device": "cpu"}, "splits a model over GPUs"),
        ({"parallelism": "pipeline"}, "parallelism.*tensor"),
        ({"nodes": 0}, "nodes.*out of range"),
        ({"nodes": 2}, "cannot be spread evenly"),
        ({"nodes": 2, "gpus": (4, 3)}, "3 .--gpus. cannot be spread evenly"),
        ({"nodes": 2, "gpus": (2,), "parallelism": "layers"}, "one process"),
        ({"collective_timeout_s": 0}, "collective_timeout_s.*out of range"),
        ({"device": "gpu"}, "device.*cpu"),
        ({"quality": "fast"}, "quality.*standard"),
        ({"dtype": "bfloat"}, "Did you mean bfloat16"),
        ({"kv_cache": "yes"}, "neither true nor false"),
        ({"models": "one"}, "not a list"),
        ({"models": ("",)}, "models"),
        ({"models": ("a\nb",)}, "characters that no name may have"),
        ({"models": ("a\udc80",)}, "characters that no name may have"),
        ({"models": ("a", "b"), "revision": "main"}, "one repository"),
        ({"device": "cpu", "attention": "flash_attention_2"}, "needs a GPU"),
        ({"sampling": "grid"}, "prompt_tokens.*needs it"),
        ({"sampling": "grid", "prompt_tokens": (1,)}, "output_tokens.*needs it"),
        ({"sampling": "grid", "prompt_tokens": (1,), "output_tokens": (1,), "samples": 3}, "samples.*does nothing"),
        ({"sampling": "list"}, "requests.*needs it"),
        ({"sampling": "list", "requests": ("1x2",)}, "batch x prompt x output"),
        ({"sampling": "list", "requests": ("1x2x0",)}, "0 is out of range"),
        ({"sampling": "list", "requests": ("1x2x3", "1x2x3")}, "1x2x3 is there twice"),
        ({"sampling": "list", "requests": ({"batch_size": 1, "prompt": 2},)}, "Did you mean prompt_tokens"),
        ({"sampling": "list", "requests": ({"batch_size": 1},)}, "lacks prompt_tokens"),
        ({"requests": (RequestSpec(batch_size=1, prompt_tokens=2, output_tokens=3),)}, "requests.*does nothing"),
        ({"time_budget_s": 0}, "out of range"),
        ({"time_budget_s": "5 parsecs"}, "5min"),
        ({"seed": -1}, "seed.*out of range"),
    ],
)
def test_an_impossible_value_is_an_error_that_says_what_would_be_right(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        Plan(**values)


def test_a_grid_of_too_many_requests_is_refused() -> None:
    with pytest.raises(UsageError, match="1,000,000 requests"):
        Plan(
            sampling="grid",
            batch_sizes=tuple(range(1, 101)),
            prompt_tokens=tuple(range(1, 101)),
            output_tokens=tuple(range(1, 101)),
        )


@pytest.mark.parametrize(
    ("key", "meant"),
    [("modles", "models"), ("batch-sizes", "batch_sizes"), ("GPUS", "gpus"), ("time_budget", "time_b")],
)
def test_a_misspelt_key_names_the_right_one(key: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"{key}.*\nDid you mean .*{meant}"):
        Plan.from_table({key: 1})


def test_the_sampling_follows_from_what_is_given() -> None:
    assert Plan.from_table({"requests": ["2x16x8"]}).sampling == "list"
    assert Plan.from_table({"prompt_tokens": [16], "output_tokens": [8]}).sampling == "grid"
    assert Plan.from_table({}) == Plan()


def test_a_time_budget_may_be_written_as_people_say_it() -> None:
    assert Plan.from_table({"time_budget_s": "1.5h"}) == Plan(time_budget_s=5400)


def test_every_field_changes_the_campaign_id() -> None:
    grid = Plan(sampling="grid", prompt_tokens=(8,), output_tokens=(8,))
    changed = [
        replace(Plan(), models=("a",)),
        replace(Plan(), revision="main"),
        replace(Plan(), random_weights=True),
        replace(Plan(), trust_remote_code=True),
        replace(Plan(), dtype="float32"),
        replace(Plan(), attention="eager"),
        replace(Plan(), kv_cache=False),
        replace(Plan(), device="cpu"),
        replace(Plan(), gpus=(1,)),
        replace(Plan(), parallelism="layers"),
        replace(Plan(), gpus=(2,), nodes=2),
        replace(Plan(), collective_timeout_s=60.0),
        replace(Plan(), cpu_threads=1),
        replace(Plan(), hardware_file="x.toml"),
        replace(Plan(), samples=9),
        replace(Plan(), trace="azure-2023-code"),
        replace(Plan(), batch_sizes=(1,)),
        replace(Plan(), seed=1),
        replace(Plan(), quality=Quality.QUICK),
        replace(Plan(), time_budget_s=60.0),
        replace(Plan(), trace_kernels=False),
        grid,
        replace(grid, prompt_tokens=(9,)),
        replace(grid, output_tokens=(9,)),
        Plan(sampling="list", requests=("1x8x8",)),  # type: ignore[arg-type]
        Plan(),
    ]
    assert len({plan.campaign_id for plan in changed}) == len(changed)


def test_the_id_of_the_default_plan_is_the_same_everywhere_and_always() -> None:
    assert Plan().campaign_id == "19a0f9d6761fd597"


def test_the_configuration_is_canonical_json_of_every_field() -> None:
    configuration = json.loads(Plan().configuration)
    assert sorted(configuration) == list(configuration) == sorted(field.name for field in plan_fields())
    assert Plan().configuration == json.dumps(configuration, sort_keys=True, separators=(",", ":"))


def test_the_default_folder_is_named_after_the_model_and_the_plan() -> None:
    plan = Plan(models=("HuggingFaceTB/SmolLM2-1.7B", "b"))
    assert str(plan.default_folder) == f"campaigns/smollm2-1-7b-and-1-more-{plan.campaign_id[:8]}"
    assert Plan(models=("my/folder/config.json",)).default_folder.name.startswith("folder-")
    assert Plan().default_folder.name.startswith("default-model-")


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Plan().samples = 3  # type: ignore[misc]
