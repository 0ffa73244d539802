"""Exports of Nsight Systems, made by hand in two versions of its schema. Times are nanoseconds, as in the file.

``RECENT`` is schema 3.16.1, as nsys 2024.6 writes it, with every column of the tables that matter here. ``EARLY`` is
that of 2020.1, after NVIDIA's "SQLite Export Schema Reference" of that time: plain INT columns, no graph nodes, no
event classes, no payloads and no table of versions.
"""

import sqlite3
from pathlib import Path
from typing import Any

from harness.tracing.kineto_records import DeviceKernel
from harness.tracing.nsys_export import NsysExport, read_export

PID, TID = 4711, 4711
PUSH_POP, START_END, MARK, DOMAIN_CREATE = 59, 60, 34, 75
DOMAIN = 2
RECENT, EARLY = "3.16.1", "2020.1"

_GRID = (
    "registersPerThread INTEGER NOT NULL DEFAULT 32, gridX INTEGER NOT NULL DEFAULT 8,"
    " gridY INTEGER NOT NULL DEFAULT 1,"
    " gridZ INTEGER NOT NULL DEFAULT 1, blockX INTEGER NOT NULL DEFAULT 128, blockY INTEGER NOT NULL DEFAULT 1,"
    " blockZ INTEGER NOT NULL DEFAULT 1, staticSharedMemory INTEGER NOT NULL DEFAULT 0,"
    " dynamicSharedMemory INTEGER NOT NULL DEFAULT 0, localMemoryPerThread INTEGER NOT NULL DEFAULT 0,"
    " localMemoryTotal INTEGER NOT NULL DEFAULT 0, gridId INTEGER NOT NULL DEFAULT 1, sharedMemoryExecuted INTEGER"
)
_DEVICE = (
    "start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL DEFAULT 1,"
    " greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER"
)
_RECENT = {
    "StringIds": "id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL",
    "META_DATA_EXPORT": "name TEXT NOT NULL, value TEXT",
    "PROCESSES": "globalPid INTEGER, pid INTEGER, name TEXT",
    "TARGET_INFO_GPU": "vmId INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT, busLocation TEXT, uuid TEXT,"
    " cuDevice INTEGER",
    "CUPTI_ACTIVITY_KIND_KERNEL": f"{_DEVICE}, demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL DEFAULT 0,"
    f" mangledName INTEGER, launchType INTEGER, cacheConfig INTEGER, {_GRID}, graphNodeId INTEGER,"
    " sharedMemoryLimitConfig INTEGER",
    "CUPTI_ACTIVITY_KIND_MEMCPY": f"{_DEVICE}, bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL,"
    " deprecatedSrcId INTEGER, srcKind INTEGER, dstKind INTEGER, srcDeviceId INTEGER, srcContextId INTEGER,"
    " dstDeviceId INTEGER, dstContextId INTEGER, migrationCause INTEGER, graphNodeId INTEGER, virtualAddress INTEGER",
    "CUPTI_ACTIVITY_KIND_MEMSET": f"{_DEVICE}, value INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL,"
    " graphNodeId INTEGER, memKind INTEGER",
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": f"{_DEVICE}, graphId INTEGER NOT NULL, graphExecId INTEGER NOT NULL DEFAULT 1",
    "CUPTI_ACTIVITY_KIND_RUNTIME": "start INTEGER NOT NULL, end INTEGER NOT NULL,"
    " eventClass INTEGER NOT NULL DEFAULT 0, globalTid INTEGER,"
    " correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL DEFAULT 0,"
    " callchainId INTEGER",
    "CUDA_GRAPH_NODE_EVENTS": "start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL DEFAULT 77,"
    " globalTid INTEGER, nameId INTEGER NOT NULL DEFAULT 0, graphNodeId INTEGER NOT NULL, originalGraphNodeId INTEGER",
    "NVTX_EVENTS": "start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER, category INTEGER,"
    " color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER, domainId INTEGER,"
    " uint64Value INTEGER, int64Value INTEGER, doubleValue REAL, uint32Value INTEGER, int32Value INTEGER,"
    " floatValue REAL, jsonTextId INTEGER, jsonText TEXT, binaryData TEXT",
}
_EARLY_DEVICE = (
    "start INT NOT NULL, end INT NOT NULL, deviceId INT NOT NULL, contextId INT NOT NULL DEFAULT 1,"
    " streamId INT NOT NULL, correlationId INT, globalPid INT"
)
_EARLY = {
    "StringIds": "id INTEGER PRIMARY KEY, value TEXT NOT NULL",
    "TARGET_INFO_GPU": "id INT NOT NULL, name TEXT NOT NULL, busLocation TEXT NOT NULL",
    "CUPTI_ACTIVITY_KIND_KERNEL": f"{_EARLY_DEVICE}, demangledName INT NOT NULL, shortName INT NOT NULL DEFAULT 0,"
    f" launchType INT, cacheConfig INT, {_GRID.replace('INTEGER', 'INT')}",
    "CUPTI_ACTIVITY_KIND_MEMCPY": f"{_EARLY_DEVICE}, bytes INT NOT NULL, copyKind INT NOT NULL,"
    " srcKind INT, dstKind INT",
    "CUPTI_ACTIVITY_KIND_MEMSET": f"{_EARLY_DEVICE}, value INT NOT NULL DEFAULT 0, bytes INT NOT NULL, memKind INT",
    "CUPTI_ACTIVITY_KIND_RUNTIME": "start INT NOT NULL, end INT NOT NULL, globalTid INT, correlationId INT,"
    " nameId INT NOT NULL, returnValue INT NOT NULL DEFAULT 0",
    "NVTX_EVENTS": "start INT NOT NULL, end INT, eventType INT NOT NULL, rangeId INT, category INT, color INT,"
    " text TEXT, globalTid INT, endGlobalTid INT, textId INT, domainId INT",
}
_SCHEMAS = {RECENT: _RECENT, EARLY: _EARLY}


def global_pid(pid: int = PID) -> int:
    """The process, as a file has it: hardware 1, virtual machine 0."""
    return (1 << 56) | (pid << 24)


def global_tid(pid: int = PID, tid: int = TID) -> int:
    return global_pid(pid) | tid


class HandMade:
    """An export in the making: rows by table, with only the columns that differ from their defaults."""

    def __init__(self, schema: str = RECENT, domain: str | None = "joulegraph") -> None:
        self.tables = dict(_SCHEMAS[schema])
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.strings: dict[str, int] = {}
        if domain is not None:
            self.domain(domain)
        if "META_DATA_EXPORT" in self.tables:
            self.row("META_DATA_EXPORT", name="EXPORT_PRODUCT_VERSION", value="2024.6.2.225")
            self.row("META_DATA_EXPORT", name="EXPORT_SCHEMA_VERSION", value=schema)

    def row(self, table: str, **values: Any) -> None:
        self.rows.append((table, values))

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings) + 1)

    def domain(self, name: str, number: int = DOMAIN, pid: int = PID) -> None:
        """The row that names a domain of NVTX."""
        self.row("NVTX_EVENTS", start=0, eventType=DOMAIN_CREATE, text=name, domainId=number, globalTid=global_tid(pid))

    def range(
        self,
        name: str,
        start: int,
        length: int | None,
        *,
        pid: int = PID,
        tid: int = TID,
        domain: int | None = DOMAIN,
        registered: bool = True,
        **values: Any,
    ) -> None:
        """A range, its name registered as the package nvtx does it; without a length it never ended."""
        named = {"textId": self.string(name)} if registered else {"text": name}
        end = None if length is None else start + length
        row = {"eventType": PUSH_POP, "globalTid": global_tid(pid, tid), "domainId": domain, **named, **values}
        self.row("NVTX_EVENTS", start=start, end=end, **row)

    def call(
        self,
        correlation: int | None,
        start: int,
        length: int = 2,
        *,
        pid: int = PID,
        tid: int = TID,
        name: str = "cudaLaunchKernel_v7000",
    ) -> None:
        self.row(
            "CUPTI_ACTIVITY_KIND_RUNTIME",
            start=start,
            end=start + length,
            globalTid=global_tid(pid, tid),
            correlationId=correlation,
            nameId=self.string(name),
        )

    def kernel(
        self, name: str, start: int, length: int, correlation: int | None = None, *, pid: int = PID, **values: Any
    ) -> None:
        self.device("KERNEL", start, length, correlation, pid=pid, demangledName=self.string(name), **values)

    def device(
        self, table: str, start: int, length: int, correlation: int | None, *, pid: int = PID, **values: Any
    ) -> None:
        """Work of a device, in one of the tables CUPTI_ACTIVITY_KIND_…."""
        row = {"deviceId": 0, "streamId": 7, "globalPid": global_pid(pid), **values}
        self.row(f"CUPTI_ACTIVITY_KIND_{table}", start=start, end=start + length, correlationId=correlation, **row)

    def launched(
        self, name: str, correlation: int, call_at: int, start: int, length: int, *, tid: int = TID, **values: Any
    ) -> None:
        """A kernel and the call that launched it."""
        self.call(correlation, call_at, pid=values.get("pid", PID), tid=tid)
        self.kernel(name, start, length, correlation, **values)

    def write(self, path: Path) -> Path:
        """Write the file; tables without rows are there, too."""
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")
        for name, columns in self.tables.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
        self.rows += [("StringIds", {"id": number, "value": text}) for text, number in self.strings.items()]
        for table, values in self.rows:
            places = ", ".join("?" * len(values))
            listed = ", ".join(f'"{column}"' for column in values)
            connection.execute(f"INSERT INTO {table} ({listed}) VALUES ({places})", list(values.values()))
        connection.execute("COMMIT")
        connection.close()
        return path

    def read(self, folder: Path) -> NsysExport:
        return read_export(self.write(folder / "run.sqlite"))

    def kernels(self, folder: Path) -> tuple[DeviceKernel, ...]:
        """Those of the one process."""
        (process,) = self.read(folder).processes
        return process.trace.kernels


def ns(time_s: float | None) -> float | None:
    """Nanoseconds, to the thousandth."""
    return None if time_s is None else round(time_s * 1e9, 3)
