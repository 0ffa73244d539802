"""Where the ranks of a run, on whatever machine, report why they end; machine 0's agent says why the run did.

The first rank to fail takes the others with it: their connections close, or they wait in vain. So what counts is the
first report that is a reason of its own, and of those who waited in vain the ranks that did not report at all.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum

from torch._C._distributed_c10d import TCPStore

from harness.campaign.ranks import RanksSilent
from harness.errors import CannotWrite, HarnessError, MeterFailed, MeterUnavailable, MissingExtra, OutOfMemory

_COUNT = "reports"
_PATIENCE = timedelta(seconds=30)
_START = timedelta(minutes=5)
_LOST = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|socket(timeout)? .*(clos|fail)|connect.* failed"
    r"|remote (process|peer)|heartbeat|NCCL.*(remote|aborted)",
    re.IGNORECASE,
)
_LATE = re.compile(r"time(d)?[ -]?out|failed to pass monitoredBarrier|failed to respond", re.IGNORECASE)


class Ending(StrEnum):
    """Why a rank ended."""

    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"
    MACHINE = "machine"  # a meter or a package, not the run
    DISK = "disk"  # the measurement could not be written
    DIED = "died"  # a signal, or an exit without a report
    LATE = "late"  # another rank kept it waiting for too long
    LOST = "lost"  # the connection to another rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one rank, or its agent on its behalf, says of its end."""

    rank: int
    ending: Ending
    reason: str
    silent: tuple[int, ...] = ()  # ranks it waited for in vain, where it knows


class Board:
    """Reports of all ranks in the order they came in; the first agent of a run holds it."""

    def __init__(self, store: TCPStore) -> None:
        self._store = store

    @classmethod
    def opened(cls, host: str = "localhost", port: int = 0) -> "Board":
        """A new board; port 0 takes any that is free."""
        return cls(TCPStore(host, port, is_master=True, wait_for_workers=False, timeout=_PATIENCE))

    @classmethod
    def at(cls, address: str) -> "Board":
        """A board that another process holds."""
        host, _, port = address.rpartition(":")
        return cls(TCPStore(host.strip("[]"), int(port), is_master=False, timeout=_PATIENCE))

    @property
    def address(self) -> str:
        """Where ``at`` finds it."""
        return f"{self._store.host}:{self._store.port}"

    def arrive(self, ranks: int) -> None:
        """Wait until all ranks have started; raises ``RuntimeError`` where one does not come.

        Starting (imports from a cold disk) may take ranks unequally long, more so than a collective may.
        """
        if self._store.add("arrived", 1) == ranks:
            self._store.set("complete", "")
        self._store.wait(["complete"], _START)

    def report(self, report: Report) -> None:
        """Add a report."""
        number = self._store.add(_COUNT, 1)
        self._store.set(f"report/{number}", json.dumps(asdict(report)))

    def reports(self) -> tuple[Report, ...]:
        """All reports so far."""
        numbers = range(1, self._store.add(_COUNT, 0) + 1)
        found = [json.loads(self._store.get(f"report/{number}")) for number in numbers]
        return tuple(
            Report(**values | {"ending": Ending(values["ending"]), "silent": tuple(values["silent"])})
            for values in found
        )


def report_of(rank: int, error: BaseException) -> Report:
    """What a rank says of an error that ends it."""
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, OutOfMemory):
        ending = Ending.OUT_OF_MEMORY
    elif isinstance(error, MeterFailed) and error.passing:
        ending = Ending.DIED
    elif isinstance(error, MissingExtra | MeterUnavailable | MeterFailed):
        ending = Ending.MACHINE
    elif isinstance(error, RanksSilent):
        return Report(rank=rank, ending=Ending.LATE, reason=reason, silent=error.ranks)
    elif isinstance(error, CannotWrite):
        ending = Ending.DISK
    elif isinstance(error, HarnessError):
        ending = Ending.FAILED
    else:
        lost, late = _LOST.search(reason), _LATE.search(reason)
        foreign = isinstance(error, RuntimeError)  # that is what torch.distributed raises
        ending = Ending.LATE if foreign and late else Ending.LOST if foreign and lost else Ending.FAILED
        reason = f"{type(error).__name__}: {reason}"
    return Report(rank=rank, ending=ending, reason=reason)


def verdict(reports: Sequence[Report], ranks: int, timeout_s: float) -> Report | None:
    """Why the run ended, out of why its ranks did; None where nobody says."""
    own = [report for report in reports if report.ending not in {Ending.LATE, Ending.LOST}]
    if own:
        return own[0]
    late = [report for report in reports if report.ending is Ending.LATE]
    if late:
        named = next((report.silent for report in late if report.silent), None)
        silent = named or tuple(sorted(set(range(ranks)) - {report.rank for report in reports}))
        rank = silent[0] if silent else late[0].rank
        return Report(rank=rank, ending=Ending.LATE, reason=_late(late, silent, timeout_s))
    return reports[0] if reports else None


def _late(late: Sequence[Report], silent: Sequence[int], timeout_s: float) -> str:
    waited = _named([report.rank for report in late])
    best = next((report for report in late if report.silent), late[0])
    quoted = f"{waited} waited {timeout_s:g} s in vain: {best.reason.splitlines()[0]}"
    return f"no sign of {_named(silent)} while {quoted}" if silent else quoted


def _named(ranks: Sequence[int]) -> str:
    """Ranks by their numbers.

    >>> _named([2]), _named([0, 1])
    ('rank 2', 'ranks 0, 1')
    """
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"
