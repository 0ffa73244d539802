"""Units: the conversions that meters and printing need, and how quantities are written for people.

Everything inside the project is in SI units (J, s, W, bytes, FLOP) and the unit is part of each name;
other units exist only at the edges, and are converted here.
"""

import re

J_PER_MJ = 1e-3  # NVML counts millijoules
J_PER_UJ = 1e-6  # Linux powercap counts microjoules
J_PER_KWH = 3.6e6  # codecarbon counts kilowatt-hours
W_PER_MW = 1e-3  # NVML reads milliwatts
BYTES_PER_GIB = 1024**3

_SI_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL_PREFIXES = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def si(value: float, unit: str, digits: int = 3) -> str:
    """Write a quantity with an SI prefix, for people.

    >>> si(0.00321, "J"), si(999.7, "W"), si(0, "J")
    ('3.21 mJ', '1 kW', '0 J')
    """
    if value == 0:
        return f"0 {unit}"
    value = float(f"{value:.{digits}g}")  # rounded first: 999.7 is 1 k, not 1e+03
    size = abs(value)
    for factor, prefix in (*_SI_PREFIXES, *_SMALL_PREFIXES):
        if size >= factor:
            return f"{value / factor:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"


def duration(seconds: float) -> str:
    """Write a time span as people say it.

    >>> duration(0.0123), duration(75), duration(7260)
    ('12.3 ms', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return si(seconds, "s")
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def gibibytes(size_bytes: float) -> str:
    """Write a size in memory.

    >>> gibibytes(3 * 1024**3)
    '3.00 GiB'
    """
    return f"{size_bytes / BYTES_PER_GIB:.2f} GiB"


def parse_duration_s(text: str) -> float:
    """Read a time span such as ``90``, ``90s``, ``5min`` or ``1.5h``; raises ``ValueError``.

    >>> parse_duration_s("5min"), parse_duration_s("90")
    (300.0, 90.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is not a time span: write 90s, 5min or 1.5h")
    return float(match[1]) * _SECONDS[match[2]]
