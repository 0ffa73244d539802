"""Runs whose numbers may leave the dataset one by one, with what has to go along with each."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.dataset.reading import Dataset
from harness.dataset.release.licences import OWN
from harness.dataset.release.selection import words_of_runs
from harness.dataset.release.terms import Inclusion
from harness.errors import DatasetError
from harness.records import EnvironmentRow, Provenance, RunRow, SourceRow, Workload

HUB = "https://huggingface.co/"
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}")
HOW = {
    Provenance.MEASURED: "measured by a hardware energy counter",
    Provenance.ESTIMATED: "estimated by a power model, not measured",
    Provenance.SIMULATED: "simulated on a virtual GPU, not measured",
    Provenance.IMPORTED: "imported, measured by others",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingRun:
    """A run with an energy, its source and its environment."""

    row: RunRow
    energy_j: float
    words: tuple[Inclusion, ...]
    source: SourceRow | None
    environment: EnvironmentRow | None

    @property
    def how(self) -> str:
        """How its numbers came about, in words that stay with them."""
        quick = ", in short windows" if Inclusion.QUICK in self.words else ""
        return f"{HOW[self.row.provenance]}{quick}"

    @property
    def licence(self) -> str | None:
        """Under which its row may be used; None where its source states none."""
        if self.row.provenance is Provenance.IMPORTED:
            return self.source.licence if self.source else None
        return OWN

    @property
    def requests(self) -> int:
        """Sequences that ``energy_j`` is the energy of."""
        return 1 if self.row.workload is Workload.SERVER else self.row.batch_size or 1

    @property
    def output_tokens(self) -> float | None:
        """Output tokens that ``energy_j`` is the energy of; None where they are not known or none."""
        row = self.row
        per_sequence = row.mean_output_tokens if row.workload is Workload.SERVER else row.output_tokens
        per_sequence = row.output_tokens if per_sequence is None else per_sequence
        return per_sequence * self.requests if per_sequence else None

    @property
    def model_url(self) -> str | None:
        """Page of the model on the Hub; None where its name is no id of the Hub."""
        model = self.row.model
        return f"{HUB}{model}" if model and _MODEL_ID.fullmatch(model) and ".." not in model else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The runs that leave, and why others stay."""

    runs: tuple[LeavingRun, ...]
    stayed: Mapping[str, int]  # reason: runs


def leaving_runs(dataset: Dataset, asked: Collection[Inclusion]) -> Leaving:
    """Runs of models with an energy that are neither superseded nor, unless asked for, of a kind that needs its name.

    Raises ``DatasetError`` where there is none.
    """
    words = words_of_runs(dataset)
    sources = {row.source: row for row in dataset.rows(SourceRow)}
    environments = {row.environment_id: row for row in dataset.rows(EnvironmentRow)}
    runs: list[LeavingRun] = []
    stayed: Counter[str] = Counter()
    for row in sorted(dataset.rows(RunRow), key=lambda row: (row.model or "", row.gpu, row.run_id)):
        reason = _reason_to_stay(row, words[row.run_id], asked)
        if reason is not None or row.energy_j is None:
            stayed[reason or "no energy"] += 1
            continue
        environment = environments.get(row.environment_id or "")
        runs.append(
            LeavingRun(
                row=row,
                energy_j=row.energy_j,
                words=words[row.run_id],
                source=sources.get(row.source),
                environment=environment,
            )
        )
    if not runs:
        raise _none_leaves(stayed)
    return Leaving(runs=tuple(runs), stayed=dict(stayed))


def _reason_to_stay(row: RunRow, words: tuple[Inclusion, ...], asked: Collection[Inclusion]) -> str | None:
    missing = [word for word in words if word not in asked]
    if missing:
        return f"needs --include {','.join(missing)}"
    if row.superseded_by is not None:
        return "superseded by another row"
    return "kernels alone" if row.model is None else None


def _none_leaves(stayed: Mapping[str, int]) -> DatasetError:
    listed = "\n".join(f"  {runs} runs: {reason}" for reason, runs in stayed.items())
    return DatasetError(f"There is no run to export.\n{listed or '  the dataset is empty'}")
