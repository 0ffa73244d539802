"""The hardware table: what each device can do at most, and the time that physics asks of a piece of work.

Figures live in ``data/hardware.toml``, each with the document it comes from. A user's own file has the same format
and wins over the built-in entries::

    find("NVIDIA H100 80GB HBM3")                           # NVML's name, or a short name that fits one device
    find("my-gpu", table=known(read_hardware_file(path)))   # --hardware FILE.toml

A device that is not in the table is an error; no device ever stands in for another.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from os import PathLike

from harness.errors import UnknownHardware, UsageError
from harness.units import BYTES_PER_GIB

EXAMPLE_FILE = """\
[[gpu]]
name = "NVIDIA Example 24GB"        # as `nvidia-smi -L` prints it
short_names = ["example"]
memory_bytes = 25_769_803_776
peak_bytes_per_s = 936e9
peak_flop_per_s = { float32 = 35.6e12, float16 = 71e12, bfloat16 = 71e12 }  # dense; leave out what it lacks
board_power_w = 350
source = "datasheet of January 2026"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Peak FLOP/s by dtype, dense. None: no native units for it, or not known."""

    float32: float | None = None  # outside tensor cores
    tf32: float | None = None
    float16: float | None = None  # 16 bit and float8: accumulated in float32
    bfloat16: float | None = None
    float8: float | None = None
    int8: float | None = None
    float4: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSource:
    """The document behind one figure, where it is not the entry's main source."""

    field: str
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One device. None means "not known", never 0."""

    name: str
    nvml_names: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()  # one that several devices share finds none of them
    architecture: str | None = None
    compute_capability: str | None = None
    process_nm: float | None = None  # as the vendor names it
    memory_bytes: int | None = None
    memory_type: str | None = None
    peak_bytes_per_s: float | None = None
    peak_flop_per_s: Peaks = Peaks()
    l2_bytes: int | None = None
    link_kind: str | None = None
    link_bytes_per_s: float | None = None  # per device, one direction
    board_power_w: float | None = None  # default limit
    sm_count: int | None = None
    base_clock_mhz: float | None = None
    boost_clock_mhz: float | None = None  # the clock the 16-bit peak refers to
    source: str
    sources: tuple[FieldSource, ...] = ()
    note: str | None = None

    def source_of(self, field: str) -> str:
        """The document behind one figure."""
        return next((entry.document for entry in self.sources if entry.field == field), self.source)

    def supports(self, dtype: str) -> bool:
        """Whether the device has native units for a dtype; raises ``UsageError`` for an unknown dtype."""
        return self._peak(dtype) is not None

    def emulates(self, dtype: str) -> bool:
        """Whether the device computes a dtype by converting to another; raises as ``supports``."""
        return not self.supports(dtype)

    def peak_flop_per_s_for(self, dtype: str) -> float:
        """Dense peak in FLOP/s; raises ``UsageError`` where the device has no native units for the dtype."""
        peak = self._peak(dtype)
        if peak is None:
            native = [field.name for field in fields(Peaks) if getattr(self.peak_flop_per_s, field.name) is not None]
            raise UsageError(
                f"{self.name} has no native units for {dtype}, so there is no peak to compare with.\n"
                f"Choose one of {', '.join(native) or 'no dtype: its peaks are not known'}; if the device does compute "
                f"{dtype}, say how fast under peak_flop_per_s in a --hardware file."
            )
        return peak

    def _peak(self, dtype: str) -> float | None:
        peak: float | None = getattr(self.peak_flop_per_s, _peak_key(dtype))
        return peak


def roofline_time_s(
    *, work_flop: float, traffic_bytes: float, hardware: Hardware, dtype: str, link_bytes: float = 0
) -> float:
    """Seconds that arithmetic, memory and links need at least; they overlap, so only the slowest one takes time.

    ``link_bytes`` is what one device sends. Raises ``UsageError`` where a peak that is needed is not known.
    Source: Williams, Waterman, Patterson, "Roofline", Communications of the ACM 52(4), 2009.

    >>> roofline_time_s(work_flop=989e12, traffic_bytes=0, hardware=find("NVIDIA H100 80GB HBM3"), dtype="bfloat16")
    1.0
    """
    compute_s = work_flop / hardware.peak_flop_per_s_for(dtype) if work_flop else 0.0
    memory_s = _transfer_time_s(traffic_bytes, hardware, "peak_bytes_per_s", hardware.peak_bytes_per_s)
    link_s = _transfer_time_s(link_bytes, hardware, "link_bytes_per_s", hardware.link_bytes_per_s)
    return max(compute_s, memory_s, link_s)


def _transfer_time_s(size_bytes: float, hardware: Hardware, field: str, rate_bytes_per_s: float | None) -> float:
    if not size_bytes:
        return 0.0
    if rate_bytes_per_s is None:
        raise UsageError(f"{hardware.name} has no {field} in the hardware table.\nAdd it in a --hardware file.")
    return size_bytes / rate_bytes_per_s


def cpu_hardware(
    model_name: str,
    peak_flop_per_s: float | None,
    peak_bytes_per_s: float | None,
    memory_bytes: int | None,
    *,
    dtype: str = "float32",
) -> Hardware:
    """Describe a CPU from what a probe of it found; ``peak_flop_per_s`` is for ``dtype``, None is not known."""
    return Hardware(
        name=f"cpu: {model_name}",
        memory_bytes=memory_bytes,
        peak_bytes_per_s=peak_bytes_per_s,
        peak_flop_per_s=replace(Peaks(), **{_peak_key(dtype): peak_flop_per_s}),
        source="probed on this machine",
    )


# ---- names ----


def known(extra: Iterable[Hardware] = ()) -> tuple[Hardware, ...]:
    """All devices of the built-in table, after those of ``extra``, which win every name they claim."""
    mine = tuple(extra)
    claimed = {name_key(name) for hardware in mine for name in _names(hardware)}
    built_in = (_without_names(hardware, claimed) for hardware in _built_in() if name_key(hardware.name) not in claimed)
    return (*mine, *built_in)


def find(name: str, table: Sequence[Hardware] | None = None) -> Hardware:
    """The device called ``name``: NVML's name or a short name.

    Case, spaces, - and _ do not matter, nor a leading NVIDIA, Tesla or GeForce. Raises
    ``UnknownHardware`` if there is none, or if several devices share the name.
    """
    devices = known() if table is None else table
    key = name_key(name)
    matches = [hardware for hardware in devices if key in map(name_key, _names(hardware))]
    exact = [hardware for hardware in matches if key == name_key(hardware.name)]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    raise UnknownHardware(_ambiguous_text(name, matches) if matches else _unknown_text(name, devices))


def _ambiguous_text(name: str, matches: Sequence[Hardware]) -> str:
    variants = "".join(f"\n  {hardware.name}" for hardware in matches)
    return f"{name!r} is the name of several devices, which differ in speed, memory or power. Say which:{variants}"


def _unknown_text(name: str, devices: Sequence[Hardware]) -> str:
    import difflib  # only on the way to an error

    owner = {name_key(alias): hardware.name for hardware in devices for alias in _names(hardware)}
    close = difflib.get_close_matches(name_key(name), owner, n=8, cutoff=0.5)
    nearest = list(dict.fromkeys(owner[alias] for alias in close))[:4]
    listed = f"Closest: {', '.join(nearest)}." if nearest else f"Known: {', '.join(sorted(set(owner.values())))}."
    return (
        f"{name[:100]!r} is not in the hardware table, and no other device stands in for it.\n{listed} "
        f"All names: python -m harness.hardware\n"
        f"To add it, describe it in a file and give that with --hardware FILE.toml:\n\n{EXAMPLE_FILE}"
    )


def _names(hardware: Hardware) -> tuple[str, ...]:
    return (hardware.name, *hardware.nvml_names, *hardware.short_names)


def name_key(name: str) -> str:
    """Reduce a name to what has to match. Drivers, and people more so, leave the maker's words out."""
    words = re.sub(r"[\s_-]+", " ", name).strip().casefold()
    return re.sub(r"^(?:(?:nvidia|tesla|geforce) )+", "", words)


def _without_names(hardware: Hardware, claimed: set[str]) -> Hardware:
    return replace(
        hardware,
        nvml_names=tuple(name for name in hardware.nvml_names if name_key(name) not in claimed),
        short_names=tuple(name for name in hardware.short_names if name_key(name) not in claimed),
    )


_DTYPES: Mapping[str, tuple[str, ...]] = {
    "float32": ("fp32", "float"),
    "tf32": (),
    "float16": ("fp16", "half"),
    "bfloat16": ("bf16",),
    "float8": ("fp8", "float8_e4m3fn", "float8_e5m2"),
    "int8": (),
    "float4": ("fp4", "float4_e2m1fn_x2"),
}


def _peak_key(dtype: str) -> str:
    wanted = dtype.removeprefix("torch.").lower()
    for key, aliases in _DTYPES.items():
        if wanted == key or wanted in aliases:
            return key
    raise UsageError(f"{dtype!r} is not a dtype of the hardware table.\nThe dtypes are: {', '.join(_DTYPES)}.")


@cache
def _built_in() -> tuple[Hardware, ...]:
    return read_hardware_file(f"{__file__.removesuffix('hardware.py')}data/hardware.toml")


def read_hardware_file(path: str | PathLike[str]) -> tuple[Hardware, ...]:
    """Read a table of devices; raises ``UsageError`` naming the entry, the key and what would be right."""
    from harness.hardware_file import parse_hardware_file  # with its TOML parser, only when a device is looked up

    return parse_hardware_file(path)


# ---- the page docs/hardware.md ----

_PAGE_HEAD = f"""\
# Hardware table

Written by `python -m harness.hardware > docs/hardware.md` from `harness/data/hardware.toml`; change that file.

- TFLOP/s are dense (no structured sparsity); fp32 is outside tensor cores, 16 bit and fp8 accumulate in fp32.
  A dash: no native units, or not known.
- Memory is what the driver reports as total. Link is per device and in one direction; optional bridges do not count.
- Clock is the one the 16-bit peak refers to. Power is the default limit.
- Each figure names the document that publishes it. Tests hold the peaks against SMs × FLOP per clock × clock; where a
  figure and its document still differ, the document is right and the entry wants correcting.
- Commands take the device's name, an NVML name or a short name; case, spaces, `-` and `_` do not matter, nor a leading
  NVIDIA, Tesla or GeForce. A name that several devices share is an error.

A device that is missing here needs no release: describe it in a file and pass `--hardware FILE.toml`. An entry there
wins every name it claims, so it can also correct a device of this table. All keys are those of this table's file.

```toml
{EXAMPLE_FILE}```
"""


def markdown_table() -> str:
    """The page that lists every built-in device: figures, names, sources."""
    devices = known()
    peaks = [field.name for field in fields(Peaks)]
    columns = ["GiB", "GB/s", *peaks, "L2 MiB", "link", "link GB/s", "W", "SMs", "MHz", "nm", "capability"]
    figures = _page_table(columns, {device.name: _figures(device) for device in devices})
    names = _page_table(["also called"], {device.name: [", ".join(_names(device)[1:])] for device in devices})
    sources = "\n".join(_source_line(device) for device in devices)
    return f"{_PAGE_HEAD}\n## Figures\n\n{figures}\n\n## Names\n\n{names}\n\n## Sources and notes\n\n{sources}\n"


def _page_table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [["device", *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *cells] for name, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(device: Hardware) -> list[str]:
    peaks = [getattr(device.peak_flop_per_s, field.name) for field in fields(Peaks)]
    return [
        _cell(device.memory_bytes, BYTES_PER_GIB),
        _cell(device.peak_bytes_per_s, 1e9),
        *(_cell(peak, 1e12) for peak in peaks),
        _cell(device.l2_bytes, 1024**2),
        device.link_kind or "–",
        _cell(device.link_bytes_per_s, 1e9),
        *map(_cell, (device.board_power_w, device.sm_count, device.boost_clock_mhz, device.process_nm)),
        device.compute_capability or "–",
    ]


def _cell(value: float | None, unit: float = 1) -> str:
    return "–" if value is None else f"{value / unit:.5g}"


def _source_line(device: Hardware) -> str:
    others = "".join(f"; {entry.field}: {entry.document}" for entry in device.sources)
    note = f" — {device.note}" if device.note else ""
    return f"- **{device.name}**: {device.source}{others}{note}"


if __name__ == "__main__":
    sys.stdout.write(markdown_table())
