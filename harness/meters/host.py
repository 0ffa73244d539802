"""The CPU and the machine, for the record."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the operating system says about the machine; ``None`` where it does not say."""

    cpu: str
    cpu_cores: int  # logical cores this process may use
    memory_bytes: int
    virtual_machine: bool | None
    os: str  # operating system and kernel release


def host_facts(cpuinfo: Path = _CPUINFO) -> HostFacts:
    """Ask the operating system."""
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    return HostFacts(
        cpu=_model_name(text),
        cpu_cores=_usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        virtual_machine=_is_virtual(text),
        os=f"{platform.system()} {platform.release()}",
    )


def cpu_busy_share(span_s: float) -> float:
    """Share of all cores that was busy over the next ``span_s`` seconds, in which the caller sleeps."""
    return float(psutil.cpu_percent(interval=span_s)) / 100


def _model_name(cpuinfo: str) -> str:
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine() or "unknown CPU"


def _is_virtual(cpuinfo: str) -> bool | None:
    """x86 says so itself: CPUID leaf 1, ECX bit 31, which Linux lists as the flag ``hypervisor``."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return "hypervisor" in match[1].split() if match else None


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
