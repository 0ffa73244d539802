"""How far the numbers of a page may be trusted: banners on top, and the mark that no part of a simulation lacks."""

from harness.dataset.summary import Summary
from harness.records import Provenance, Quality, Weights
from harness.report.blocks import Banner

_PROVENANCES = {
    Provenance.MEASURED: ("Measured", "Energies were read from a hardware energy counter."),
    Provenance.ESTIMATED: (
        "Estimated, not measured",
        "No energy counter was read here: energies are a power model times time. They show the method and compare "
        "runs on this machine; do not compare them with measured joules.",
    ),
    Provenance.SIMULATED: (
        "Simulated, not measured",
        "Energies come from the virtual GPU, a simulator with known truth. They test the method and say nothing "
        "about a real device.",
    ),
    Provenance.IMPORTED: (
        "Imported",
        "Energies are somebody else's measurement, taken over with its source and licence.",
    ),
}
_NOTHING = ("No energies", "No run of this dataset finished, so there is no energy to show. The reasons are below.")
_QUICK = (
    "Quick protocol: not for release",
    "Short windows and few trials, for trying out. Repeat with the standard protocol before using the numbers.",
)
_UNFINISHED = (
    "Campaign not finished",
    "Runs are missing: the page shows those that were made so far. The same command goes on with the rest.",
)
_RANDOM = (
    "Random weights",
    "The parameters of the model were random, not trained: kernels and shapes are the model's, its values are not.",
)


def mark(summary: Summary) -> str:
    """What stands over the page, every section and every printed sheet where numbers are simulated; else nothing."""
    runs = [run for run in summary.runs if run.run.provenance is Provenance.SIMULATED]
    windows = {total.provenance for total in summary.window_totals}
    if not runs and Provenance.SIMULATED not in windows:
        return ""
    if len(runs) == len(summary.runs) and windows <= {Provenance.SIMULATED}:
        return "SIMULATED: every number comes from a virtual GPU; nothing here is measured."
    return (
        f"PARTLY SIMULATED: {len(runs)} of {len(summary.runs)} runs come from a virtual GPU, and nothing about them is "
        "measured. Wherever they appear they are named simulated, and points are squares."
    )


def marked(title: str, mark_text: str) -> str:
    """A title that cannot be quoted without its mark.

    >>> marked("Energy of a model", "SIMULATED: nothing here is measured."), marked("Energy of a model", "")
    ('SIMULATED: Energy of a model', 'Energy of a model')
    """
    return f"{mark_text.split(':')[0]}: {title}" if mark_text else title


def banners(summary: Summary) -> tuple[Banner, ...]:
    """One banner per provenance, and one for each reason not to publish the numbers."""
    provenances = {run.run.provenance for run in summary.runs if run.run.energy_j is not None}
    mixed = len(provenances) > 1
    found = [
        _banner(provenance.value, _PROVENANCES[provenance], _share(summary, provenance) if mixed else "")
        for provenance in Provenance
        if provenance in provenances
    ]
    if not found:
        found.append(_banner("none", _NOTHING, ""))
    if not summary.complete:
        found.append(_banner("unfinished", _UNFINISHED, ""))
    if any(setup.quality is Quality.QUICK for setup in summary.setups):
        found.append(_banner("quick", _QUICK, ""))
    if any(setup.weights is Weights.RANDOM for setup in summary.setups):
        found.append(_banner("random", _RANDOM, ""))
    return tuple(found)


def _banner(kind: str, words: tuple[str, str], share: str) -> Banner:
    heading, text = words
    return Banner(kind=kind, title=heading, text=f"{share}{text}")


def _share(summary: Summary, provenance: Provenance) -> str:
    runs = sum(run.run.provenance is provenance for run in summary.runs)
    return f"{runs} of {len(summary.runs)} runs. "
