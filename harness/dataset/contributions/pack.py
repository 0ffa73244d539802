"""The reference pack: a fixed set of runs that every contributor makes, read from ``data/reference-pack.toml``.

The runs of the pack are told by what they are (model, request, protocol), not by a mark: whoever made the same runs
in a plan of their own has made the pack. Imports nothing heavy: the command line reads it.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.records import Quality, RunRow, Status, Weights

PACK_FILE = Path(__file__).parents[2] / "data" / "reference-pack.toml"
_CPU = "cpu: "  # before the name of a CPU in ``runs.gpu``
_GPU_DTYPES, _CPU_DTYPES = frozenset({"bfloat16", "float16"}), frozenset({"float32"})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PackRequest:
    """One request of the pack."""

    model: str
    batch_size: int
    prompt_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"{self.model} {self.batch_size}x{self.prompt_tokens}x{self.output_tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPart:
    """The pack for one kind of device."""

    plan: Mapping[str, object]  # keys and values as in a plan file
    requests: tuple[PackRequest, ...]
    attention: str
    dtypes: frozenset[str]  # what `dtype = "auto"` can mean on such a device
    n_gpus: int

    def has(self, run: RunRow, qualities: frozenset[Quality]) -> bool:
        """Whether a run is one of these, made to its end under the protocol of the pack."""
        return (
            run.status is Status.OK
            and run.quality in qualities
            and request_of(run) in self.requests
            and run.weights is Weights.RANDOM
            and (run.attention, run.kv_cache, run.runtime) == (self.attention, True, "hf")
            and (run.n_gpus, run.nodes, run.tensor_parallel) == (self.n_gpus, 1, 1)
            and run.dtype in self.dtypes
            and run.clipped is None
            and run.energy_j is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePack:
    """Both parts of the pack."""

    version: int
    on_gpu: PackPart
    on_cpu: PackPart

    @property
    def name(self) -> str:
        """As it is called where people read it."""
        return f"reference-pack-{self.version}"

    def part_for(self, gpu: str) -> PackPart:
        """The part that is made on a device, by its name in ``runs``."""
        return self.on_cpu if gpu.startswith(_CPU) else self.on_gpu

    def missing(
        self, runs: Iterable[RunRow], gpu: str, qualities: frozenset[Quality] = frozenset({Quality.STANDARD})
    ) -> tuple[PackRequest, ...]:
        """Requests of the pack that no run on this device answers."""
        part = self.part_for(gpu)
        made = {request_of(run) for run in runs if run.gpu == gpu and part.has(run, qualities)}
        return tuple(request for request in part.requests if request not in made)


def request_of(run: RunRow) -> PackRequest | None:
    """The request of a run; None where the run is of no single request."""
    if run.model is None or run.batch_size is None or run.prompt_tokens is None or run.output_tokens is None:
        return None
    return PackRequest(
        model=run.model,
        batch_size=run.batch_size,
        prompt_tokens=run.prompt_tokens,
        output_tokens=run.output_tokens,
    )


@cache
def reference_pack() -> ReferencePack:
    """The pack that ships with the package."""
    table = tomllib.loads(PACK_FILE.read_text(encoding="utf-8"))
    return ReferencePack(
        version=table["version"],
        on_gpu=_part(table["gpu"], dtypes=_GPU_DTYPES, n_gpus=1),
        on_cpu=_part(table["cpu"], dtypes=_CPU_DTYPES, n_gpus=0),
    )


def _part(plan: Mapping[str, Any], *, dtypes: frozenset[str], n_gpus: int) -> PackPart:
    sizes = [tuple(map(int, re.split("x", text))) for text in plan["requests"]]
    requests = tuple(
        PackRequest(model=model, batch_size=batch, prompt_tokens=prompt, output_tokens=output)
        for model in plan["models"]
        for batch, prompt, output in sizes
    )
    return PackPart(plan=plan, requests=requests, attention=plan["attention"], dtypes=dtypes, n_gpus=n_gpus)
