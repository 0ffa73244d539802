from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from harness.tracing.ranges import marked, module_ranges
from tests.harness.tracing.nvtx_heard import build, ranges_of, read_heard, run_python

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
    return build(tmp_path_factory.mktemp("nvtx"))


def test_nvtx_tools_see_run_phases_and_steps_nested(listener: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard.txt"
    run_python(CHILD, listener, heard)

    lines = read_heard(heard)
    run, failed = ranges_of(lines)
    assert (lines[0].what, lines[0].domain) == ("domain", "joulegraph")
    assert {each.domain for each in run.walk()} == {"joulegraph"}
    assert (run.name, run.names) == ("run:1f3a", ["phase:prefill", "phase:decode"])
    assert (run.inner[0].names, run.inner[1].names) == ([], ["step:0", "step:1"])
    assert (failed.name, failed.names) == ("phase:prefill", []), "closed although it raised"


# Two threads and a child at once, names that a line could not hold, marks and ranges of another domain.
ODD = """
import os, threading
import nvtx
from harness.tracing.ranges import marked

def work(name):
    barrier.wait()
    for turn in range(200):
        with marked(f"step:{name}"), marked(f"module:{name}.{turn}"):
            pass

nvtx.mark("a\\tb\\nc\\\\d é", domain="other")
nvtx.end_range(nvtx.start_range("span", domain="other"))
barrier = threading.Barrier(2)
threads = [threading.Thread(target=work, args=(name,)) for name in (1, 2)]
for thread in threads:
    thread.start()
child = os.fork()
if child == 0:
    with marked("run:child"):
        os._exit(0)
os.waitpid(child, 0)
for thread in threads:
    thread.join()
"""


def test_threads_processes_and_odd_names_are_told_apart(listener: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard.txt"
    run_python(ODD, listener, heard)

    lines = read_heard(heard)
    (child,) = {each.process for each in lines if each.name == "run:child"}
    steps = [each for each in ranges_of([each for each in lines if each.process != child]) if not each.is_mark]
    assert child not in {each.process for each in steps}
    assert [(each.what, each.name) for each in lines if each.domain == "other"] == [
        ("domain", ""),
        ("mark", "a\tb\nc\\d é"),
        ("start", "span"),
        ("end", ""),
    ]
    for name in ("step:1", "step:2"):
        own = [each for each in steps if each.name == name]
        assert len({each.thread for each in own}) == 1
        assert [each.names for each in own] == [[f"module:{name[-1]}.{turn}"] for turn in range(200)]
    with pytest.raises(ValueError, match=r"never popped: \['run:child'\]"):
        ranges_of(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1\t1\tpush\tjoulegraph\trun", "the last line is cut"),
        ("", "the last line is cut"),
        ("1\t1\tpush\tjoulegraph\trun:1\n1\t1\tpo1\t1\tpop\tjoulegraph\t\n", "line 2 is torn"),
        ("1\t1\tpush\tjoulegraph\trun:1\n", "never popped"),
        ("1\t1\tpop\tjoulegraph\t\n", "closes no range"),
        ("1\t1\tpush\tjoulegraph\trun:1\n1\t2\tpop\tjoulegraph\t\n", "closes no range on thread 2"),
        ("1\t1\tpush\tjoulegraph\trun:1\n1\t1\tpop\tother\t\n", "a pop in 'other' closes no range"),
    ],
)
def test_what_was_not_heard_whole_is_not_believed(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "heard.txt").write_text(text)

    with pytest.raises(ValueError, match=reason):
        ranges_of(read_heard(tmp_path / "heard.txt"))


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
