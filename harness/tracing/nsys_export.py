"""An export of Nsight Systems as a whole: the processes that used a device, and the timeline of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import CorruptFile, RunError
from harness.tracing.kineto_links import linked
from harness.tracing.kineto_records import DeviceTrace
from harness.tracing.nsys_events import OUR_DOMAIN, ProcessEvents, events_of
from harness.tracing.nsys_file import EXPORT_AGAIN, LARGEST_FILE_BYTES, Export, Row, opened
from harness.tracing.nsys_places import place_of
from harness.tracing.nsys_schema import CALLS, GPUS, KERNELS, PROCESSES, RANGES, STRINGS, VERSIONS, process_key

MOST_EVENTS = 2_000_000  # kernels, calls and ranges; some 2 GB of memory
RECORD_AGAIN = "Record it again: nsys profile --trace=cuda,nvtx --cuda-graph-trace=node COMMAND"


@dataclass(frozen=True, slots=True, kw_only=True)
class NsysProcess:
    """One process that used a device. Its kernels have a module only where they ran in a traced pass."""

    process_id: int
    name: str | None
    trace: DeviceTrace
    split_ranges: int  # NVTX ranges not used, because they started on one thread and ended on another
    whole_graphs: int  # launches of CUDA graphs that were recorded without their kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class NsysExport:
    """What is read of an export."""

    name: str  # of the file
    product_version: str | None  # of the nsys that exported it; None before META_DATA_EXPORT existed
    schema_version: str | None
    gpus: tuple[str, ...]  # names of the GPUs of the machine, used or not
    processes: tuple[NsysProcess, ...]


def read_export(path: Path, *, largest_bytes: int = LARGEST_FILE_BYTES, most_events: int = MOST_EVENTS) -> NsysExport:
    """Read an export; each device kernel has the ranges and the module of the call that launched it.

    Several processes of one run are ranks 0, 1 … of their machine in the order of their GPUs, as the harness starts
    them, if each used one of its own; otherwise ranks are None. Raises UsageError without such a file, CorruptFile
    where it is no whole export or larger than allowed, RunError where it has no device kernel, no call that launched
    one, or no range of the harness.
    """
    with opened(path, largest_bytes) as export:
        if not export.has(STRINGS) or not any(map(export.has, (KERNELS, CALLS, RANGES, GPUS))):
            raise CorruptFile(
                f"{path.name} is an SQLite file, but no export of Nsight Systems: it lacks the tables StringIds and "
                f"CUPTI_ACTIVITY_KIND_KERNEL.\n{EXPORT_AGAIN}"
            )
        found = events_of(export, most_events)
        _check(found, export)
        names = _process_names(export)
        versions = dict(export.read(VERSIONS, lambda row: (row.text("name"), row.text("value"))))
        gpus = tuple(export.read(GPUS, lambda row: row.text("name") or "?"))
    processes = [_process(each, names.get(each.key), path.name) for each in found]
    _check_places(processes, path.name)
    return NsysExport(
        name=path.name,
        product_version=versions.get("EXPORT_PRODUCT_VERSION"),
        schema_version=versions.get("EXPORT_SCHEMA_VERSION"),
        gpus=gpus,
        processes=_ranked(processes),
    )


def _check(found: Sequence[ProcessEvents], export: Export) -> None:
    if not any(each.events.device for each in found):
        raise RunError(
            f"{export.name} holds no device kernel: CUDA was not traced, nothing ran on a GPU, or another profiler "
            f"held the GPU's counters.\n{RECORD_AGAIN}"
        )
    if not any(each.events.calls for each in found):
        raise RunError(
            f"{export.name} holds device kernels but no call that launched one, so nothing tells which phase they "
            f"belong to.\n{RECORD_AGAIN}"
        )
    if not any(each.events.spans for each in found):
        raise RunError(
            f"{export.name} holds no NVTX range in a process that used a GPU: NVTX was not traced, or the package nvtx "
            f"is not installed where the worker ran.\n{RECORD_AGAIN}"
        )


def _check_places(processes: Sequence[NsysProcess], name: str) -> None:
    kernels = [kernel for process in processes for kernel in process.trace.kernels]
    places = map(place_of, kernels)
    if any(place.phase is not None or place.run_id is not None or place.traced for place in places):
        return
    inside = sorted({kernel.ranges[-1][:60] for kernel in kernels if kernel.ranges})[:3]
    seen = f"; they are in ranges like {', '.join(map(repr, inside))}" if inside else ""
    raise RunError(
        f"{name} holds no kernel that was launched inside a range of the harness (run:…, phase:… in the NVTX domain "
        f"{OUR_DOMAIN}){seen}.\nRecord a worker of the harness, not only a part of it that launches nothing."
    )


def _process_names(export: Export) -> dict[int, str | None]:
    def keyed(row: Row) -> tuple[int, str | None]:
        return process_key(row.maybe("globalPid") or 0), row.text("name")

    return dict(export.read(PROCESSES, keyed))


def _process(found: ProcessEvents, name: str | None, file: str) -> NsysProcess:
    return NsysProcess(
        process_id=found.process_id,
        name=name,
        trace=linked(found.events, file, remedy=RECORD_AGAIN),
        split_ranges=found.split_ranges,
        whole_graphs=found.whole_graphs,
    )


def _ranked(processes: Sequence[NsysProcess]) -> tuple[NsysProcess, ...]:
    """The processes in the order of their ranks, where these are known; only the first rank names its run."""
    kernels = [kernel for process in processes for kernel in process.trace.kernels]
    runs = {name for kernel in kernels for name in kernel.ranges if name.startswith("run:")}
    devices = [{kernel.device for kernel in process.trace.kernels} for process in processes]
    own = [each.pop() for each in devices if len(each) == 1]
    if len(processes) < 2 or len(set(own)) < len(processes) or len(runs) > 1:
        return tuple(processes)
    ordered = sorted(zip(own, range(len(own)), strict=True), key=lambda pair: (pair[0] or 0, pair[1]))
    return tuple(
        replace(processes[place], trace=replace(processes[place].trace, rank=rank))
        for rank, (_, place) in enumerate(ordered)
    )
