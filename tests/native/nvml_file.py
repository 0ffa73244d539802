"""Writes the file in which ``nvml_stub.c`` finds its GPUs; the format is described at the top of that file.

file = NvmlFile(path)
file.set(gpus=2, step_ms=20, missing="instant")          # of all GPUs
file.set(gpu=1, name="NVIDIA L4")                        # of one
file.set(from_s=12.5, error={"nvmlDeviceGetTotalEnergyConsumption": 15})
file.segments(0, [(10.0, 100.0), (11.0, 650.0)])         # times in s, powers in W
file.write()
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What is true of a GPU from a time on; ``None`` leaves it to the keys of the file."""

    t_s: float
    power_w: float
    sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: int | None = None

    def __str__(self) -> str:
        given = [self.t_s, self.power_w]
        for value in (self.sm_clock_mhz, self.temperature_c, self.throttle_reasons):
            if value is None:
                break
            given.append(value)
        return " ".join(repr(value) for value in given)


class NvmlFile:
    """The machine that the stand-in library presents. Nothing changes for it before ``write``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, object] = {}
        self._segments: dict[int, list[Segment]] = {}
        self._serials = itertools.count(1)

    def set(
        self,
        *,
        gpu: int | None = None,
        from_s: float | None = None,
        error: Mapping[str, int] | None = None,
        hang: Iterable[str] = (),
        **keys: object,
    ) -> None:
        """Say what holds of all GPUs or one, always or from a time on. ``None`` as a value takes the key away."""
        given = {
            **keys,
            **{f"error.{function}": code for function, code in (error or {}).items()},
            **{f"hang.{function}": 1 for function in hang},
        }
        for key, value in given.items():
            self.key(key, value, gpu=gpu, from_s=from_s)

    def key(self, key: str, value: object, *, gpu: int | None = None, from_s: float | None = None) -> None:
        """The same for one key of any name, such as ``error.nvmlInit``."""
        place = key if gpu is None else f"{gpu}.{key}"
        place = place if from_s is None else f"{place}@{from_s!r}"
        if value is None:
            self._keys.pop(place, None)
        else:
            self._keys[place] = value

    def segments(self, gpu: int, segments: Iterable[Segment | tuple[float, float]]) -> None:
        """A GPU's power over time (the sensor's parameters are keys): replaces what was said of it before."""
        self._segments[gpu] = [
            each if isinstance(each, Segment) else Segment(t_s=each[0], power_w=each[1]) for each in segments
        ]

    def clear(self) -> None:
        """Forget everything that was said."""
        self._keys.clear()
        self._segments.clear()

    def write(self) -> None:
        """Let the library see it, all at once."""
        lines = [f"{key}={value}" for key, value in self._keys.items()]
        lines += [f"segment {gpu} {each}" for gpu, segments in self._segments.items() for each in segments]
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        # The library looks at the file's time: two writes within one tick of the file system's clock must differ.
        os.utime(fresh, ns=(0, next(self._serials)))
        fresh.replace(self.path)
