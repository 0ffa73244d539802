"""What the documents of a release say in numbers, as records; ``facts`` collects them."""

from dataclasses import dataclass

from harness.dataset.release.terms import Inclusion
from harness.dataset.schema import Table
from harness.kernels import KernelKind
from harness.records import Provenance, Quality, SourceRow, Status, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class WordCount:
    """Runs that are released only under this name."""

    word: Inclusion
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceCount:
    """Runs whose numbers came about in one way."""

    provenance: Provenance
    quality: Quality | None
    source: str
    licence: str | None
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndingCount:
    """Runs of one model on one device that ended in one way."""

    model: str | None
    gpu: str
    status: Status
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """One source and what it brought; counts are rows of the tables."""

    row: SourceRow
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What one source gives on one device."""

    source: str
    licence: str | None
    provenance: Provenance
    gpu: str
    models: int
    runs: int
    phases: int
    kernels: int
    energies: int  # runs, phases and kernels with an energy
    durations: int  # the same with a time
    powers: int  # runs with a mean power


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """How large one table is."""

    table: Table
    rows: int
    files: int
    size_bytes: int
    unpacked_bytes: int  # before compression


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEnergy:
    """Energy per output token of one model on one device, over the requests made of it."""

    model: str
    gpu: str
    provenance: Provenance
    workload: Workload
    runs: int
    low_j: float
    median_j: float
    high_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCount:
    """Rows of `kernels` of one kind on one device."""

    kind: KernelKind
    gpu: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagCount:
    """Rows that bear one flag."""

    table: str
    flag: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabCount:
    """Runs that one lab contributed."""

    lab: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCount:
    """Runs whose energy was read in one way."""

    method: str
    provenance: Provenance
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The release in single numbers."""

    runs: int
    ok_runs: int
    energy_runs: int  # with an energy
    interval_runs: int  # with an energy and its interval
    ledger_runs: int
    superseded_runs: int
    models: int
    gpus: int
    most_gpus: int  # GPUs of the largest run
    first_start_utc: str | None
    last_start_utc: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """All of it."""

    totals: Totals
    words: tuple[WordCount, ...]
    provenances: tuple[ProvenanceCount, ...]
    endings: tuple[EndingCount, ...]
    sources: tuple[SourceCount, ...]
    resolutions: tuple[Resolution, ...]
    tables: tuple[TableSize, ...]
    token_energies: tuple[TokenEnergy, ...]
    kinds: tuple[KindCount, ...]
    flags: tuple[FlagCount, ...]
    labs: tuple[LabCount, ...]
    methods: tuple[MethodCount, ...]

    @property
    def included(self) -> tuple[Inclusion, ...]:
        """The words that apply to at least one run here."""
        return tuple(count.word for count in self.words)

    @property
    def licences(self) -> tuple[str | None, ...]:
        """Licences of the sources here, None where one states none."""
        found = {count.licence for count in self.provenances if count.provenance is Provenance.IMPORTED}
        return tuple(sorted(found, key=lambda licence: (licence is None, licence or "")))
