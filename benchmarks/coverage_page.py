"""The page docs/coverage.md: which causal-LM types are captured, and what it says read back."""

import enum
import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from benchmarks.execution import BATCH_SIZE, PROMPT_TOKENS, Execution, Status

COMMAND = "python -m benchmarks.coverage --write docs/coverage.md"


class Verdict(enum.StrEnum):
    """What came of capturing a type."""

    CAPTURED = "captured"
    DIFFERS = "differs"  # captured, and not what was executed
    NOT_CAPTURED = "not captured"
    NOT_EXECUTED = "not executed"  # there is nothing to compare with: transformers cannot run it here


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """The graphs of one type beside its execution; counts are None where there are no graphs."""

    execution: Execution
    verdict: Verdict
    why: str | None = None  # for any verdict but captured; a remark for that
    prefill_flop: int | None = None
    decode_flop: int | None = None
    prefill_kernels: int | None = None
    decode_kernels: int | None = None

    def judged(self, unrolled_differs: str | None) -> Self:
        """The same with its verdict, once graphs are there."""
        execution = self.execution
        if execution.status is Status.CANNOT_RUN or execution.prefill is None or execution.decode is None:
            return replace(self, verdict=Verdict.NOT_EXECUTED, why=execution.reason)
        wanted = (execution.prefill.total_flop, execution.decode.total_flop)
        if (self.prefill_flop, self.decode_flop) != wanted:
            why = f"executed {wanted[0]:,} and {wanted[1]:,} FLOP"
            if execution.flop_vary:
                why += "; what is executed depends on weights and prompt"
            return replace(self, verdict=Verdict.DIFFERS, why=why)
        if unrolled_differs is not None:
            return replace(self, verdict=Verdict.DIFFERS, why=unrolled_differs)
        return replace(self, why=None if execution.kv_cache else "has no cache: a decode step is a whole pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One type as the page tells it."""

    model_type: str
    verdict: Verdict
    prefill_flop: int | None
    decode_flop: int | None


def release(package: str) -> str:
    """The installed version without what tells builds of one release apart: 2.13.0 of 2.13.0+cpu."""
    return importlib.metadata.version(package).split("+")[0]


def page(results: Sequence[Captured]) -> str:
    """The page, in the order of the types."""
    ordered = sorted(results, key=lambda result: result.execution.model_type)
    counts = {verdict: sum(result.verdict is verdict for result in ordered) for verdict in Verdict}
    head = _HEAD.format(
        command=COMMAND,
        transformers=release("transformers"),
        torch=release("torch"),
        batch=BATCH_SIZE,
        tokens=PROMPT_TOKENS,
        types=len(ordered),
        captured=counts[Verdict.CAPTURED],
        share=counts[Verdict.CAPTURED] / len(ordered),
        differs=counts[Verdict.DIFFERS],
        not_captured=counts[Verdict.NOT_CAPTURED],
        not_executed=counts[Verdict.NOT_EXECUTED],
    )
    return head + "".join(f"{_row(result)}\n" for result in ordered)


def read_page(text: str) -> tuple[Line, ...]:
    """The lines of a page."""
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \| ([\d,–]+) \| ([\d,–]+) \|", text, re.MULTILINE)
    return tuple(
        Line(
            model_type=name,
            verdict=Verdict(verdict),
            prefill_flop=_number(prefill),
            decode_flop=_number(decode),
        )
        for name, verdict, prefill, decode in rows
    )


def _row(result: Captured) -> str:
    execution = result.execution
    kernels = "–" if result.prefill_kernels is None else f"{result.prefill_kernels} / {result.decode_kernels}"
    experts = execution.experts if execution.experts and "expert" not in execution.experts else None
    how = ", ".join(filter(None, (execution.attention, experts))) or "–"
    cells = (
        f"`{execution.model_type}`",
        result.verdict.value,
        _count(result.prefill_flop),
        _count(result.decode_flop),
        kernels,
        how,
        _plain(result.why or ""),
    )
    return f"| {' | '.join(cells)} |"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _number(text: str) -> int | None:
    return None if text == "–" else int(text.replace(",", ""))


def _plain(text: str) -> str:
    """Text of somebody else's error in a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")[:240]


_HEAD = """# Kernel graphs by architecture

Written by `{command}` with transformers {transformers} and torch {torch}; do not edit.

Of the {types} causal-LM types that this transformers registers, **{captured} ({share:.1%}) are captured** without a
line of code for any of them. Of the others {differs} differ from what is executed, {not_captured} are not captured, and
{not_executed} cannot be executed here, so that there is nothing to compare with.

*Captured* means: the FLOP of matrix products and attention in the graphs of a tiny model of the type (a prefill of
{batch} × {tokens} tokens, and the decode step after it) are equal to those of executing it on the CPU, where every
operator either has a formula or is known to multiply no matrices; and counting each kind of layer once gives the same
as running all layers of the type's default config (of the tiny one where the default describes no decoder).

| type | verdict | prefill FLOP | decode FLOP | kernels | attention, experts | remark |
|---|---|---|---|---|---|---|
"""
