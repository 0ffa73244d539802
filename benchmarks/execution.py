"""What executing the tiny model of a causal-LM type gave, and a file of such results. Loads no torch."""

import dataclasses
import enum
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BATCH_SIZE, PROMPT_TOKENS = 2, 24  # longer than every window, chunk and choice of context in a tiny config


class Status(enum.StrEnum):
    """Whether a type was executed."""

    OK = "ok"
    CANNOT_RUN = "cannot run"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFlop:
    """FLOP of one pass over a batch, by the kind of operator."""

    matmul_flop: int  # mm, addmm, bmm, baddbmm, grouped_mm; also those of attention that is not fused
    attention_flop: int  # fused attention: both products
    convolution_flop: int  # state-space and linear attention layers have short ones
    solve_flop: int  # triangular systems of the gated delta rule: no product of matrices

    @property
    def total_flop(self) -> int:
        """Matmuls and attention: what must be equal, whichever implementation attention has."""
        return self.matmul_flop + self.attention_flop


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What executing the tiny model of one type gave. Everything after ``reason`` is None where it cannot run."""

    model_type: str
    status: Status
    duration_s: float
    reason: str | None = None  # why it cannot run, with the exception
    parameters: int | None = None
    layers: int | None = None
    attention: str | None = None  # the implementation: sdpa, or eager where the type has no other
    experts: str | None = None  # the same for experts; None where transformers leaves no choice, or there are none
    kv_cache: bool | None = None  # False: the decode step recomputes the whole context
    kv_cache_problem: str | None = None  # why the step has no cache
    flop_vary: bool | None = None  # whether other weights and prompts gave other FLOP
    prefill: PhaseFlop | None = None
    decode: PhaseFlop | None = None  # one step


def write_executions(path: Path, executions: Sequence[Execution]) -> None:
    """Write results as JSON, with the request and the versions they hold for."""
    content = {
        "batch_size": BATCH_SIZE,
        "prompt_tokens": PROMPT_TOKENS,
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
        "executions": [dataclasses.asdict(execution) for execution in executions],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_executions(path: Path) -> list[Execution]:
    """Results that ``write_executions`` wrote."""
    return [_execution(item) for item in json.loads(path.read_text(encoding="utf-8"))["executions"]]


def _execution(item: dict[str, Any]) -> Execution:
    phases = {name: None if item[name] is None else PhaseFlop(**item[name]) for name in ("prefill", "decode")}
    return Execution(**item | phases | {"status": Status(item["status"])})
