import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from harness.tracing.ranges import marked, module_ranges

ROOT = Path(__file__).resolve().parents[3]
LISTENER = ROOT / "tests" / "native" / "nvtx_listener.c"
# What a worker does around its passes, with a stepper that computes nothing.
CHILD = """
from types import SimpleNamespace
from harness.measuring.parts import RequestWork
from harness.requests import Request
from harness.tracing.ranges import marked

class Stepper:
    def prefill(self, prompt): return None
    def step(self, state): pass
    def synchronize(self): pass

request = Request(model="a", batch_size=1, prompt_tokens=4, output_tokens=3, dtype="float32")
with marked("run:1f3a"):
    RequestWork(Stepper(), lambda tokens: None, request).run(1)
try:
    with marked("phase:prefill"):
        raise ValueError
except ValueError:
    pass
"""


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("the NVTX listener is built with gcc on Linux, which is not here")
    library = tmp_path_factory.mktemp("nvtx") / "liblistener.so"
    flags = ["-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-pedantic"]
    subprocess.run(["gcc", *flags, "-o", library, LISTENER], check=True)
    return library


def test_nvtx_tools_see_run_phases_and_steps_nested(listener: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard.txt"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NVTX")}
    subprocess.run(
        [sys.executable, "-c", CHILD],
        check=True,
        cwd=ROOT,
        env=environ | {"NVTX_INJECTION64_PATH": str(listener), "NVTX_LISTENER_FILE": str(heard)},
    )

    lines = heard.read_text().splitlines()
    assert lines[0] == "domain joulegraph"
    names, depth = [], 0
    for line in lines[1:]:
        if line == "pop":
            depth -= 1
        else:
            names.append(f"{depth} {line.removeprefix('push ')}")
            depth += 1
    assert depth == 0
    assert names == [
        "0 run:1f3a",
        "1 phase:prefill",
        "1 phase:decode",
        "2 step:0",
        "2 step:1",
        "0 phase:prefill",
    ]


def recorded(work: Callable[[], object]) -> list[Any]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    return [event for event in profiler.events() or () if "::" not in event.name]


def test_the_profiler_sees_ranges_while_it_records_only() -> None:
    before = marked("step:0")

    def work() -> None:
        with marked("phase:decode"), marked("step:1"):
            pass
        with before:
            pass

    names = [event.name for event in recorded(work)]
    assert "phase:decode" in names
    assert "step:1" in names
    assert "step:0" not in names


class Block(torch.nn.Module):
    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)
        self.fails = fails

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise ArithmeticError("no")
        return torch.relu(self.inner(inputs))


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_every_module_has_a_range_named_after_its_path() -> None:
    model = torch.nn.Sequential(Block(), Block())

    def work() -> None:
        with module_ranges(model):
            model(torch.ones(1, 4))

    spans = {event.name: event.cpu_parent for event in recorded(work)}
    assert set(spans) == {"module:0", "module:0.inner", "module:1", "module:1.inner"}
    assert spans["module:1.inner"].name == "module:1"
    assert spans["module:1"] is None


def test_no_hook_stays_behind() -> None:
    model = torch.nn.Sequential(Block(), Block())
    with module_ranges(model):
        assert hooks(model) > 0
    assert hooks(model) == 0


def test_a_forward_that_raises_closes_its_ranges_and_leaves_no_hook() -> None:
    model = torch.nn.Sequential(Block(), Block(fails=True))

    def work() -> None:
        with module_ranges(model):
            with pytest.raises(ArithmeticError):
                model(torch.ones(1, 4))
            with marked("phase:after"):
                pass

    spans = {event.name: event.cpu_parent for event in recorded(work)}
    assert hooks(model) == 0
    assert "module:1" in spans
    assert spans["phase:after"] is None


def test_hooks_of_others_are_left_alone() -> None:
    model = torch.nn.Linear(4, 4)
    seen: list[int] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    with module_ranges(torch.nn.Sequential(model)):
        model(torch.ones(1, 4))
    model(torch.ones(1, 4))
    assert seen == [1, 1]
