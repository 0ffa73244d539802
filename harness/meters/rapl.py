"""The CPU's energy counters (RAPL) under Linux powercap.

Each domain is a folder with ``name``, ``energy_uj`` and ``max_energy_range_uj`` (Linux kernel documentation,
"Power Capping Framework"). Summed are all packages and the memory beside them (``dram``, which no package contains);
not the parts inside a package (``core``, ``uncore``), not ``psys`` (the whole board: it contains the packages), not
``intel-rapl-mmio`` (the same counters seen through another window).
"""

import math
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import Conditions, DeviceFacts, closed
from harness.meters.host import host_facts
from harness.records import Provenance
from harness.units import J_PER_UJ

POWERCAP: Final = Path("/sys/class/powercap")

# "Energy status registers are updated approximately every 1 ms": Intel SDM volume 3, "RAPL Interfaces".
_STEP_S: Final = 0.001
# No package or memory domain draws more; it bounds how fast a counter can come round.
_MOST_POWER_W: Final = 1000.0
# Two dies of one package that show one counter differ by what it counts between the two reads.
_MIRROR_J: Final = 1.0
_PERMIT: Final = (
    "Allow reading until the next start:\n"
    "  sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj /sys/class/powercap/intel-rapl:*:*/energy_uj\n"
    "or for good, as /etc/udev/rules.d/60-rapl.rules:\n"
    '  SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaplDomain:
    """One counter of the CPU."""

    label: str  # e.g. package-0, dram
    folder: Path
    range_j: float  # the counter starts again from 0 above this

    def read_j(self) -> float:
        """What the counter shows; raises ``MeterFailed``."""
        return _read_number(self.folder / "energy_uj", MeterFailed) * J_PER_UJ


class RaplMeter:
    """Energy of all CPU packages and their memory; raises ``MeterUnavailable`` if they cannot be read.

    A counter comes round after minutes at full power. Reads nearer together than that are put together right, and a
    background thread reads often enough (``guard_s``, half the shortest way round) that this holds in any window.
    """

    method = "rapl"
    provenance = Provenance.MEASURED

    def __init__(self, powercap: Path = POWERCAP, *, guard_s: float | None = None) -> None:
        self._domains = find_domains(powercap)
        self.name = f"rapl ({', '.join(domain.label for domain in self._domains)})"
        self.step_s = _STEP_S
        self._energy_j = 0.0
        self._shown_j = [domain.read_j() for domain in self._domains]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        shortest_j = min(domain.range_j for domain in self._domains)
        self._guard_s = shortest_j / _MOST_POWER_W / 2 if guard_s is None else guard_s
        threading.Thread(target=self._guard, name="rapl-guard", daemon=True).start()

    def read_j(self) -> float:
        """Joules since the meter was opened, over all domains."""
        if self._stop.is_set():
            raise closed(self.name)
        with self._lock:
            for i, domain in enumerate(self._domains):
                shown_j = domain.read_j()
                self._energy_j += _moved_j(self._shown_j[i], shown_j, domain)
                self._shown_j[i] = shown_j
            return self._energy_j

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()

    def conditions(self, *, powers: bool = True) -> Conditions:  # noqa: ARG002  as every meter
        """RAPL knows energy only."""
        return Conditions()

    def facts(self) -> DeviceFacts:
        """The CPU."""
        host = host_facts()
        return DeviceFacts(name=host.cpu, memory_bytes=host.memory_bytes)

    def _guard(self) -> None:
        while not self._stop.wait(self._guard_s):
            try:
                self.read_j()
            except MeterError:
                return  # whoever reads next gets the same error, with the reason


def find_domains(powercap: Path = POWERCAP) -> tuple[RaplDomain, ...]:
    """The counters to sum, packages first; raises ``MeterUnavailable`` with the remedy."""
    if not powercap.is_dir():
        raise MeterUnavailable(
            f"RAPL: {powercap} does not exist, so the kernel offers no CPU energy counter here (usual in virtual "
            "machines, in containers that hide it, and off Linux).\n"
            "On a real machine load the driver with `sudo modprobe intel_rapl_msr`; elsewhere CPU energy can only be "
            "estimated."
        )
    folders = sorted(powercap.glob("intel-rapl:*"))
    named = [(_read_text(folder / "name", MeterUnavailable), folder) for folder in folders]
    packages = [(name, folder) for name, folder in named if name.startswith("package-")]
    if not packages:
        found = ", ".join(name for name, _ in named) or "nothing"
        raise MeterUnavailable(
            f"RAPL: {powercap} lists no CPU package (found: {found}), so CPU energy cannot be summed.\n"
            "Load the driver with `sudo modprobe intel_rapl_msr` or use a machine that exposes it."
        )
    memory = [(name, folder) for name, folder in named if name == "dram"]
    return _without_mirrors([_domain(name, folder) for name, folder in packages + memory])


def _domain(name: str, folder: Path) -> RaplDomain:
    range_j = _read_number(folder / "max_energy_range_uj", MeterUnavailable) * J_PER_UJ
    _read_number(folder / "energy_uj", MeterUnavailable)  # a refusal must show now
    if range_j <= 0:
        raise MeterUnavailable(
            f"RAPL: {folder.name} gives no counter range, so it cannot be told when it starts again from 0.\n"
            "Update the kernel, or let CPU energy be estimated."
        )
    return RaplDomain(label=name, folder=folder, range_j=range_j)


def _without_mirrors(domains: list[RaplDomain]) -> tuple[RaplDomain, ...]:
    """Drop dies that repeat their package's one counter (seen on AMD CPUs with several dies)."""
    kept: dict[str, list[float]] = {}
    chosen: list[RaplDomain] = []
    for domain in domains:
        shown_j = domain.read_j()
        die = re.fullmatch(r"(package-\d+)-die-\d+", domain.label)
        siblings = kept.setdefault(die[1] if die else domain.folder.name, [])
        if any(abs(shown_j - sibling_j) <= _MIRROR_J for sibling_j in siblings):
            continue
        siblings.append(shown_j)
        chosen.append(domain)
    return tuple(chosen)


def _moved_j(before_j: float, now_j: float, domain: RaplDomain) -> float:
    """Joules between two readings of one counter, which starts again from 0 above its range."""
    if now_j >= before_j:
        return now_j - before_j
    if before_j > domain.range_j:
        raise MeterFailed(
            f"RAPL: {domain.label} went back from {before_j:.3f} J, which is above its own range of "
            f"{domain.range_j:.3f} J, so it cannot be told how far it moved.\nReload the driver or reboot."
        )
    return now_j + domain.range_j - before_j


def _read_number(file: Path, failure: type[MeterError]) -> float:
    text = _read_text(file, failure)
    if not text.isascii() or not text.isdigit() or not math.isfinite(float(text)):
        raise failure(f"RAPL: {file} holds {text!r}, which is no count of microjoules.\nReload the driver or reboot.")
    return float(text)


def _read_text(file: Path, failure: type[MeterError]) -> str:
    """The one place where the file system's errors become ours."""
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except PermissionError as error:
        raise failure(f"RAPL: {file} may be read by root only (a guard against side channels).\n{_PERMIT}") from error
    except OSError as error:
        raise failure(f"RAPL: {file} cannot be read: {error.strerror}.\nReload the driver or reboot.") from error
