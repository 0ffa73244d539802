"""Two ranks that record and run their kernels again in step, for the tests: ``relaunch_ranks.py FOLDER``.

Each leaves what it saw in FOLDER. Forked from one process, since imports cost more than all the rest.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from harness.kernels import KernelKind, Phase
from harness.models.loading import load
from harness.models.source import resolve
from harness.models.steps import Stepper
from harness.tracing.alignment import align
from harness.tracing.relaunch import LaunchCount, Relaunch
from harness.tracing.timeline import TracedKernel, trace
from tests.forked import run_forked

RANKS = 2
MODEL_LAUNCHES = 4
LLAMA = {
    "model_type": "llama",
    "vocab_size": 301,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
COLLECTIVES = frozenset({KernelKind.ALL_REDUCE, KernelKind.ALL_GATHER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one rank saw."""

    reduced_ops: list[str]  # of the plain module: what was launched
    reduced_values: list[float]  # what five all-reduces left in the scratch copy, and what 17 did
    gathered: list[float]
    input_after: list[float]
    model_ids: list[str]  # of the tensor-parallel model: kernels that can be run, in order
    model_time: float
    model_collectives: int  # kernels among them
    model_launched: int  # collectives in one run


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names and first arguments of all operator calls."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.first: list[Any] = []  # first argument of each: what a collective writes to

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.append(func._schema.name)
        self.first.append(args[0] if args else None)
        return result


class Exchange(torch.nn.Module):
    """Adds up over the ranks in place, and gathers."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        own = given + 1
        dist.all_reduce(own)
        gathered = torch.ops._c10d_functional.all_gather_into_tensor(given, RANKS, "0")  # "0" is the group of all
        whole: torch.Tensor = torch.ops._c10d_functional.wait_tensor(gathered)
        return whole * own.sum()


def rows_of_all(model: Any, work: Callable[[], None]) -> tuple[TracedKernel, ...]:
    """This rank's kernels of a prefill, with ids that all ranks share."""
    traces: list[Any] = [None] * RANKS
    rows = trace(model, Phase.PREFILL, work, dtype="float32", device="cpu", ranks=RANKS)
    dist.all_gather_object(traces, rows)
    return align(traces)[dist.get_rank()]


def record(model: Any, work: Callable[[], None], rows: Sequence[TracedKernel]) -> Relaunch:
    return Relaunch.record(
        model, Phase.PREFILL, work, kernels=rows, dtype="float32", device="cpu", ranks=RANKS, instances=2
    )


def launched(kernels: Relaunch, ids: Sequence[str], launches: int) -> Operators:
    """Run kernels so many times each."""
    seen = Operators()
    with seen:
        kernels.run([LaunchCount(kernel_id=each, launches=launches) for each in ids])
    return seen


def see(folder: Path, rank: int) -> Seen:
    """Run both models."""
    given, exchange = torch.full((3,), float(rank)), Exchange()
    with torch.inference_mode():
        exchange(given)
        rows = rows_of_all(exchange, lambda: exchange(given))
        kernels = record(exchange, lambda: exchange(given), rows)
    (reduce_id,) = (row.kernel_id for row in rows if row.kind is KernelKind.ALL_REDUCE)
    (gather_id,) = (row.kernel_id for row in rows if row.kind is KernelKind.ALL_GATHER)
    five = launched(kernels, [reduce_id], 5)
    after_five = float(five.first[-1][0][0])
    twelve = launched(kernels, [reduce_id], 12)
    after_seventeen = float(twelve.first[-1][0][0])
    gathered = launched(kernels, [gather_id], 3).first[-1][0]
    kernels.release()
    source = resolve(str(folder / "config.json"), random_weights=True)
    loaded = load(
        source,
        dtype="float32",
        attention="sdpa",
        device="cpu",
        seed=1,
        parallelism="tensor",
    )
    stepper, prompt = Stepper(loaded), torch.arange(3, 15)[None]  # [1, 12]
    stepper.prefill(prompt)
    rows = rows_of_all(loaded.model, lambda: _ignore(stepper.prefill(prompt)))
    model = record(loaded.model, lambda: _ignore(stepper.prefill(prompt)), rows)
    exchanged = {row.kernel_id for row in rows if row.kind in COLLECTIVES}
    run = launched(model, model.kernel_ids, MODEL_LAUNCHES)
    return Seen(
        reduced_ops=five.names,
        reduced_values=[after_five, after_seventeen],
        gathered=gathered.tolist(),
        input_after=given.tolist(),
        model_ids=list(model.kernel_ids),
        model_time=model.coverage.time,
        model_collectives=len(exchanged & set(model.kernel_ids)),
        model_launched=sum(name.startswith("c10d::") for name in run.names),
    )


def _ignore(_result: object) -> None:
    """A work returns nothing."""


def be_rank(folder: Path, rank: int) -> None:
    """One rank, from start to end."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS)
    (folder / f"{rank}.json").write_text(json.dumps(asdict(see(folder, rank))))
    dist.destroy_process_group()


def main(folder: Path) -> int:
    """Fork the ranks and wait for them; not 0 where one of them failed."""
    torch.set_num_threads(1)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return run_forked(be_rank, [(folder, rank) for rank in range(RANKS)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
