"""What the hardware table knows of the devices of a dataset, as tables for DuckDB."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from harness.errors import UnknownHardware, UsageError
from harness.hardware import Hardware, find

_PREFIX = "virtual: "  # before the name of the device that a simulated one is like
_CPU = "cpu: "
MOST_NAMES = 10_000  # looking a name up that is not there takes a millisecond

_HARDWARE = pa.schema(
    [
        ("gpu", pa.string()),
        ("board_power_w", pa.float64()),
        ("device_bytes", pa.int64()),
        ("l2_bytes", pa.int64()),
        ("boost_clock_mhz", pa.float64()),
        ("peak_bytes_per_s", pa.float64()),
        ("link_bytes_per_s", pa.float64()),
    ]
)
_PEAKS = pa.schema([("gpu", pa.string()), ("dtype", pa.string()), ("flop_per_s", pa.float64())])


def hardware_table(names: Iterable[str]) -> pa.Table:
    """A row per name that is in the hardware table."""
    rows = [
        {
            "gpu": name,
            "board_power_w": device.board_power_w,
            "device_bytes": device.memory_bytes,
            "l2_bytes": device.l2_bytes,
            "boost_clock_mhz": device.boost_clock_mhz,
            "peak_bytes_per_s": device.peak_bytes_per_s,
            "link_bytes_per_s": device.link_bytes_per_s,
        }
        for name in names
        if (device := _known(name)) is not None
    ]
    return pa.Table.from_pylist(rows, _HARDWARE)


def peaks_table(names: Iterable[str], dtypes: Sequence[str]) -> pa.Table:
    """A row per device and dtype that the device has units for."""
    rows = [
        {"gpu": name, "dtype": dtype, "flop_per_s": peak}
        for name in names
        if (device := _known(name)) is not None
        for dtype in dtypes
        if (peak := _peak(device, dtype)) is not None
    ]
    return pa.Table.from_pylist(rows, _PEAKS)


def _known(name: str) -> Hardware | None:
    if name.startswith(_CPU):
        return None
    try:
        return find(name.removeprefix(_PREFIX))
    except UnknownHardware:
        return None


def _peak(device: Hardware, dtype: str) -> float | None:
    """The most that the device may do on inputs of a dtype: float32 products may run as TF32."""
    native = [_native(device, each) for each in ((dtype, "tf32") if dtype == "float32" else (dtype,))]
    return max((peak for peak in native if peak is not None), default=None)


def _native(device: Hardware, dtype: str) -> float | None:
    try:
        return device.peak_flop_per_s_for(dtype)
    except UsageError:  # no units for it, or no dtype that FLOP are counted for
        return None
