"""What the data can and cannot show, in one place: the card, the datasheet and Croissant say the same."""

from harness.dataset.release.fact_records import ReleaseFacts
from harness.dataset.release.markdown import percentage
from harness.dataset.release.terms import Inclusion
from harness.records import Provenance, Workload

COLLECTION = (
    "Each run is one request (batch size, prompt tokens, output tokens) on one deployment. Prefill, decode and the "
    "whole request are measured in separate windows, without the profiler, from energy counters of the GPUs; kernels "
    "are traced in a pass of their own. Requests are sampled from the lengths of real request traces. Imported rows "
    "come from published measurements; the table `sources` says of each what was measured and what was derived, by "
    "which formula."
)
MISSING = (
    "Null means not known, and no column uses 0 for that. Imported sources publish fewer quantities than a campaign "
    "records: intervals, idle power, environments and phases are often null there."
)
PREPROCESSING = (
    "Rows are selected (see `release.json`), merged and sorted; no value is changed, smoothed, imputed or removed as "
    "an outlier. Suspicious rows bear the rule that found them in `flags` (runs: `status_detail`) and stay."
)
USES = (
    "Training and scoring predictors of the energy and time of LLM inference.",
    "Comparing hardware, batch sizes and lengths of requests, within one provenance and protocol.",
    "Estimating energy and, with the intensity of a grid, carbon of a deployment.",
)
PERSONAL = (
    "None. The tables describe machines and programs. Host names, user names, paths and serial numbers are taken out "
    "of contributions, hashed ids of devices are kept, and a release in which a row names a user's folder is refused."
)
SOCIAL_IMPACT = (
    "Energy and carbon of inference can be estimated before anything runs. The figures cover the devices named in "
    "each row, not buildings, networks or the making of hardware; read as totals they understate the impact."
)
MAINTENANCE = (
    "Versions follow semantic versioning: a patch leaves rows as they are, a minor version adds rows, a major one "
    "changes what they mean. Rows are never rewritten or removed; a correction adds a row and fills `superseded_by`."
)


def limitations(facts: ReleaseFacts) -> tuple[str, ...]:
    """What to know before a number is used; only what is true of this release."""
    totals = facts.totals
    known = [
        "The energy of a kernel is inferred, never read: a kernel lasts microseconds, a counter moves every 20 to "
        "100 ms. `kernel_energies.method` says how; different methods are not to be mixed.",
        "Energies are those of the GPUs in use (or of the processor, on a CPU), idle power included; the rest of the "
        "machine and of the building is not in them.",
        f"{percentage(totals.interval_runs, totals.energy_runs)} of the runs with an energy have an interval for it; "
        f"{totals.ledger_runs:,} have a ledger that tests the energy of kernels against that of the run.",
    ]
    provenances = {count.provenance for count in facts.provenances}
    if len(provenances) > 1:
        known.append(f"Rows of {len(provenances)} provenances lie side by side; they are not to be pooled.")
    if Provenance.IMPORTED in provenances:
        known.append("Imported rows were measured by others, by protocols of their own, most without uncertainty.")
    if any(point.workload is Workload.SERVER for point in facts.token_energies):
        known.append("Rows of workload `server` mix prefill and decode of many requests; `energy_j` is per sequence.")
    if Inclusion.ESTIMATED in facts.included:
        known.append("Estimated energies are a power model times time: good for trying out code, not for conclusions.")
    if Inclusion.SIMULATED in facts.included:
        known.append("Simulated rows are of virtual GPUs and say nothing about real ones.")
    return tuple(known)


def biases(facts: ReleaseFacts) -> tuple[str, ...]:
    """What is over-represented."""
    totals = facts.totals
    runs_of_gpu: dict[str, int] = {}
    for count in facts.endings:
        runs_of_gpu[count.gpu] = runs_of_gpu.get(count.gpu, 0) + count.runs
    gpu, runs = max(runs_of_gpu.items(), key=lambda item: item[1])
    return (
        f"Hardware: {totals.gpus:,} devices, of which {gpu} alone has {percentage(runs, totals.runs)} of the runs.",
        "Models: openly available language models; none behind an interface only.",
        "Software: the runtimes and versions of the time of measuring; later ones use less energy for the same work.",
    )
