"""The table of ``benchmarks.joules``: each quantity, its bar, what was found."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.joules_case import CaseResult, Scored
from harness.records import Part

_NAIVE = {
    "counter": "counter read whenever (as Zeus)",
    "polled": "mean of the 1-s trailing average, polled",
    "difference": "decode as run less prefill",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    quantity: str
    bar: str  # empty: nothing is asked
    found: str
    met: bool | None  # null: nothing is asked

    @property
    def verdict(self) -> str:
        """In a word."""
        return "" if self.met is None else ("met" if self.met else "MISSED")


def rows_of(results: Sequence[CaseResult]) -> tuple[Row, ...]:
    """The whole table."""
    scored = [result for result in results if result.status == "ok"]
    real = [result for result in scored if not result.case.exact]
    exact = [result for result in scored if result.case.exact]
    return (
        _count(results, scored),
        _coverage("phase energy: truth inside the stated 95 % interval", real, lambda each: each.phases),
        _coverage("run energy: truth inside the stated 95 % interval", real, lambda each: (each.run,)),
        *_errors(exact),
        *_ledger(real),
        *_naive(exact),
    )


def bars_of(rows: Iterable[Row]) -> list[Row]:
    """The lines with a bar."""
    return [row for row in rows if row.met is not None]


def _count(results: Sequence[CaseResult], scored: Sequence[CaseResult]) -> Row:
    gpus = sorted({result.gpus for result in scored})
    found = f"{len(scored)} of {len(results)}"
    return Row(
        quantity=f"measurements scored ({', '.join(map(str, gpus))} GPUs per machine)",
        bar="all",
        found=found,
        met=len(scored) == len(results),
    )


def _coverage(quantity: str, results: Sequence[CaseResult], of: Callable[[CaseResult], Iterable[Scored | None]]) -> Row:
    scores = [score for result in results for score in of(result) if score is not None]
    share = sum(score.held for score in scores) / len(scores)
    return Row(quantity=quantity, bar="93–99 %", found=f"{share:.1%} of {len(scores)}", met=0.93 <= share <= 0.99)


def _errors(results: Sequence[CaseResult]) -> Iterable[Row]:
    phases = [abs(score.error) for result in results for score in result.phases]
    yield _at_most("phase energy, median absolute error (exact gain)", [(median(phases), 0.005)])
    for method, bars in (("replay", (0.02, 0.06)), ("regressed", (0.05, None)), ("apportioned", (None, None))):
        errors = [abs(score.error) for result in results for score in result.kernels if score.what == method]
        if not errors:
            continue
        place = "in situ" if method == "regressed" else "kernels of at least 1 % of their phase"
        pairs = [(median(errors), bars[0]), (_quantile(errors, 0.95), bars[1])]
        yield _at_most(f"kernel energy {method}, {place} ({len(errors)}): median, 95th percentile", pairs)


def _ledger(results: Sequence[CaseResult]) -> Iterable[Row]:
    drawn = [result for result in results if result.residual_share is not None]
    held = sum(bool(result.residual_held) for result in drawn) / max(1, len(drawn))
    shares = [abs(result.residual_share or 0.0) for result in drawn]
    yield Row(
        quantity=f"ledger residual inside its interval ({len(drawn)} ledgers of {len(results)} runs)",
        bar="≥ 95 %",
        found=f"{held:.1%}",
        met=held >= 0.95 and len(drawn) == len(results),
    )
    size = median(shares) if shares else math.nan
    yield Row(
        quantity="ledger residual, median size relative to the run; share that is exactly 0",
        bar="≤ 2 %, not all 0",
        found=f"{size:.2%}; {sum(share == 0 for share in shares) / max(1, len(shares)):.0%}",
        met=size <= 0.02 and any(shares),
    )


def _naive(results: Sequence[CaseResult]) -> Iterable[Row]:
    """Median errors of others over ours, on the phases that they read."""
    for equal_window, factor in ((False, 5.0), (True, 2.0)):
        for method, name in _NAIVE.items():
            theirs = [
                abs(reading.energy_j / truth_j - 1)
                for result in results
                for reading, truth_j in result.naive
                if reading.method == method and reading.equal_window is equal_window
            ]
            if not theirs:
                continue
            ours = [
                abs(score.error)
                for result in results
                for score, part in zip(result.phases, (Part.PREFILL, Part.DECODE), strict=False)
                if method != "difference" or part is Part.DECODE
            ]
            ratio = median(theirs) / median(ours)
            window = "at our window length" if equal_window else "at its default"
            yield Row(
                quantity=f"{name}, {window}: median error, ours, ratio",
                bar=f"≥ {factor:g} ×",
                found=f"{median(theirs):.2%}, {median(ours):.2%}, {ratio:.1f} ×",
                met=ratio >= factor,
            )


def _at_most(quantity: str, pairs: Sequence[tuple[float, float | None]]) -> Row:
    asked = [bar for _, bar in pairs if bar is not None]
    return Row(
        quantity=quantity,
        bar=", ".join(f"≤ {bar:.1%}" for bar in asked),
        found=", ".join(f"{value:.2%}" for value, _ in pairs),
        met=all(value <= bar for value, bar in pairs if bar is not None) if asked else None,
    )


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


FIRST = 4  # machines whose numbers the page shows, and a test makes again


def first_lines(results: Sequence[CaseResult]) -> list[str]:
    """The exact measurements of the first machines, to the digit, as the page has them."""
    lines = ["| machine | GPUs | errors of prefill, decode, run | replay, median | residual |", "|---|---|---|---|---|"]
    for result in results:
        if result.case.number < FIRST and result.case.exact and result.run is not None:
            errors = ", ".join(f"{score.error:+.3%}" for score in (*result.phases, result.run))
            replay = [abs(score.error) for score in result.kernels if score.what == "replay"]
            residual = "" if result.residual_share is None else f"{result.residual_share:+.3%}"
            lines.append(f"| {result.case.number} | {result.gpus} | {errors} | {median(replay):.3%} | {residual} |")
    return lines


def page_of(results: Sequence[CaseResult], rows: Sequence[Row]) -> str:
    """The page ``docs/joules.md``."""
    machines = len({result.case.number for result in results})
    gpus = sum({result.case.number: result.gpus for result in results}.values())
    hours = sum(result.virtual_s for result in results) / 3600
    lines = [
        "# How far from the truth the joules are",
        "",
        "Written by `python -m benchmarks.joules --write docs/joules.md`; a test says when it is stale. Everything on",
        "this page is **simulated**: it shows what the method does to known truth, and nothing about a real sensor.",
        "",
        f"{machines} random virtual machines with {gpus} GPUs (seed {results[0].case.seed}), each measured twice, in "
        f"{hours:,.0f} h of virtual time. Counters move every 10–200 ms, see all of the time or 25–100 % of it, with",
        "noise, drift of temperature and clocks, idle power of 30–250 W, 1 to 8 GPUs. What is random about them is in",
        "`benchmarks/joules_machines.py`, what is measured in `harness.measuring`, what is true in `harness.virtual`.",
        "",
        "| quantity | bar | found | |",
        "|---|---|---|---|",
        *(f"| {row.quantity} | {row.bar} | {row.found} | {row.verdict} |" for row in rows),
        "",
        *first_lines(results),
        "",
        "Errors are those of gross energies. The naive methods read the same machines: see",
        "`benchmarks/joules_naive.py` for what each does and at which default.",
        "",
    ]
    return "\n".join(lines)
