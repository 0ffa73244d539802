"""Series of the page: which runs may be shown as one, how they are named, coloured and pointed at."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.dataset.summary import RunSummary, Setup, Summary
from harness.records import Provenance
from harness.report.plot import Mark
from harness.report.text import device_name, model_name, parallel_name, plain, request_name

# Okabe and Ito's palette, made for all kinds of colour vision, less its yellow (unreadable on white) and black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195")
_SYMBOLS = {
    Provenance.MEASURED: "circle",
    Provenance.ESTIMATED: "diamond",
    Provenance.SIMULATED: "square",
    Provenance.IMPORTED: "triangle-up",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendEntry:
    """A series with its mark; ``series`` is what the chart's series are called, empty for a mere explanation."""

    series: str
    text: str
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A summary with the names and marks that all parts of the page share."""

    summary: Summary
    names: dict[int, str]  # by setup
    marks: dict[int, Mark]
    runs: dict[str, RunSummary]  # by run_id

    @classmethod
    def of(cls, summary: Summary) -> "Scene":
        """Name and mark every setup."""
        return cls(
            summary=summary,
            names=_names(summary.setups),
            marks={setup.setup: _mark(index, setup) for index, setup in enumerate(summary.setups)},
            runs={run.run.run_id: run for run in summary.runs},
        )

    def series(self, setup: int) -> str:
        """What the charts call a setup."""
        return f"setup {setup}"

    def legend(self, setups: Iterable[int]) -> tuple[LegendEntry, ...]:
        """Entries for the setups that a chart shows."""
        return tuple(
            LegendEntry(series=self.series(setup), text=self.names[setup], mark=self.marks[setup])
            for setup in sorted(set(setups))
        )

    def run_name(self, run: RunSummary) -> str:
        """A run as charts and tables call it: its number, the request, and the provenance where there are several."""
        several = len({setup.provenance for setup in self.summary.setups}) > 1
        provenance = f" · {run.run.provenance.value}" if several else ""
        return f"#{run.number} · {request_name(run.run)}{provenance}"

    def run_notes(self, run: RunSummary) -> tuple[str, ...]:
        """What is told of any point of a run, last."""
        detail = f"flag: {plain(run.run.status_detail)}" if run.run.status_detail else ""
        lines = (self.names[run.setup], detail, f"run {run.run.run_id[:12]}")
        return tuple(line for line in lines if line)


def size_px(batch_size: int | None) -> float:
    """Size of a point: it grows with the logarithm of the batch size; smallest where that is not known."""
    return min(24.0, 8.0 + 2.0 * (max(1, batch_size or 1).bit_length() - 1))


def provenance_mark(provenance: Provenance, mark: Mark) -> Mark:
    """The same colour with the symbol of this provenance."""
    return Mark(colour=mark.colour, symbol=_SYMBOLS[provenance])


def _mark(index: int, setup: Setup) -> Mark:
    open_symbol = "-open" if index >= len(_COLOURS) else ""
    return Mark(colour=_COLOURS[index % len(_COLOURS)], symbol=_SYMBOLS[setup.provenance] + open_symbol)


def _names(setups: tuple[Setup, ...]) -> dict[int, str]:
    """Provenance, device and how a model is spread out always; of the rest only what tells the setups apart."""
    described = [_description(setup) for setup in setups]
    differing = [len(set(column)) > 1 for column in zip(*described, strict=True)]
    return {
        setup.setup: " · ".join(
            [
                setup.provenance.value,
                device_name(setup.gpu, setup.n_gpus),
                *filter(None, (parallel_name(setup.parallelism, setup.tensor_parallel, setup.nodes),)),
                *(part for part, differs in zip(parts, differing, strict=True) if differs and part),
            ]
        )
        for setup, parts in zip(setups, described, strict=True)
    }


def _said(flag: bool | None, what: str) -> str:
    return f"{what} not known" if flag is None else what if flag else f"no {what}"


def _description(setup: Setup) -> tuple[str, ...]:
    return (
        model_name(setup.model),
        setup.weights.value if setup.weights else "unknown weights",
        plain(setup.dtype),
        plain(setup.quantization) if setup.quantization else "not quantised",
        plain(setup.runtime),
        plain(setup.attention),
        _said(setup.kv_cache, "KV cache"),
        _said(setup.cuda_graphs, "CUDA graphs"),
        plain(setup.quality),
    )
