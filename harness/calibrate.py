"""``python -m harness.calibrate``: how far the energy meters of this machine can be trusted.

Measures, per device: how often the counter moves and how late, what it leaves out, what the power fields average over,
whether counter and power agree, and the power at rest; and says how long windows must be. Nothing heavy is imported
before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser, count, whole_number
from harness.campaign.plan import MOST_VIRTUAL, VIRTUAL
from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer

if TYPE_CHECKING:
    from harness.measuring.calibration import Calibration
    from harness.measuring.calibration_watch import Load
    from harness.measuring.windows import PausingClock
    from harness.meters.selection import MeterBank
    from harness.report.calibration import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    device: str  # cuda, cpu, virtual:NAME, or auto
    gpus: int | None  # None: all that are visible; 1 of a virtual GPU
    json: bool
    out: Path | None
    quick: bool
    seed: int  # of the virtual GPU, and of the order of the edges


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The meters to calibrate, the clock they are read by, and what keeps the devices busy."""

    bank: "MeterBank"
    clock: "PausingClock"
    load: "Load"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    if given.device not in {"auto", "cuda", "cpu"} and not given.device.startswith(VIRTUAL):
        raise UsageError(f"--device {given.device[:80]!r} is not known.\nChoose cuda, cpu, or virtual:NAME.")
    if given.gpus is not None and given.device == "cpu":
        raise UsageError("--gpus is for GPUs, and --device cpu has none.\nLeave it out.")
    if given.gpus is not None and given.device.startswith(VIRTUAL) and given.gpus > MOST_VIRTUAL:
        raise UsageError(f"A virtual machine has 1 to {MOST_VIRTUAL} GPUs.\nAsk for fewer with --gpus.")
    if given.out is not None and (given.out.is_dir() or not given.out.parent.is_dir()):
        raise UsageError(f"--out {given.out} is a folder, or in none.\nName a file in a folder that exists.")
    return Options(
        device=given.device, gpus=given.gpus, json=given.json, out=given.out, quick=given.quick, seed=given.seed
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.calibrate",
        description="How far the energy meters of this machine can be trusted. Nothing else should run meanwhile; "
        "takes about three minutes, half a minute with --quick.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--device",
        default="auto",
        metavar="NAME",
        help="cuda, cpu or virtual:NAME (default: GPUs if there are any)",
    )
    add("--gpus", type=count(digits=9), metavar="N", help="the first N GPUs (default: all; of a virtual GPU one)")
    add("--json", action="store_true", help="print the calibration as JSON")
    add("--out", type=Path, metavar="FILE", help="write it as JSON to a file")
    add("--quick", action="store_true", help="shorter, with wider intervals")
    add(
        "--seed",
        type=whole_number(digits=9),
        default=0,
        metavar="N",
        help="another virtual GPU of the same kind (default: 0)",
    )
    return parser


def _run(options: Options) -> int:
    bench = _bench(options)
    from harness.measuring.calibration_making import make_calibration

    with closing(bench.bank):
        calibration = make_calibration(
            bench.bank,
            bench.clock,
            bench.load,
            quick=options.quick,
            rng=random.Random(options.seed),  # noqa: S311  spreads edges, keeps no secret
            now=datetime.now(UTC),
        )
    output = Forgiving(sys.stdout)
    if options.json:
        output.write(calibration.to_json() + "\n")
    else:
        output.writelines(f"{line}\n" for line in _lines(calibration, bench.bank.why))
    if options.out is not None:
        _write(calibration, options.out)
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(f"Not everything could be printed: {output.failure.strerror}.\nFree space, or use --out.")
    return 0


def _bench(options: Options) -> Bench:
    """Open the meters; raises ``MeterUnavailable`` and ``UsageError``."""
    from harness.measuring.calibration_loads import CpuLoad, CudaLoad
    from harness.measuring.windows import SteadyClock
    from harness.meters.selection import find_gpus, meters_for

    if options.device.startswith(VIRTUAL):
        return _virtual_bench(options)
    clock = SteadyClock()
    search = find_gpus() if options.device != "cpu" else None
    if search is not None and (search.gpus or options.device == "cuda" or options.gpus is not None):
        gpus = tuple(range(options.gpus or max(1, len(search.gpus))))
        return Bench(bank=meters_for("cuda", gpu_indices=gpus, clock=clock), clock=clock, load=CudaLoad(gpus, clock))
    return Bench(bank=meters_for("cpu", clock=clock), clock=clock, load=CpuLoad(clock, clock.pause))


def _virtual_bench(options: Options) -> Bench:
    from harness.campaign.virtual_load import VirtualLoad, bank_of
    from harness.virtual.gpu import read_virtual_gpu
    from harness.virtual.machine import VirtualMachine

    gpu = read_virtual_gpu(options.device.removeprefix(VIRTUAL))
    machine = VirtualMachine(gpu, gpus=options.gpus or 1, seed=options.seed)
    return Bench(bank=bank_of(machine), clock=machine.clock, load=VirtualLoad(machine))


def _write(calibration: "Calibration", path: Path) -> None:
    try:
        path.write_text(calibration.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error.strerror}.\nName another file with --out.") from error


def _lines(calibration: "Calibration", why: str) -> Iterator[str]:
    """The calibration for people: devices, then what follows."""
    from harness.report.calibration import advice_facts, device_facts
    from harness.report.text import NOTHING

    yield f"{calibration.method} ({calibration.provenance.value}): {why}"
    yield f"load: {calibration.load}{'; quick' if calibration.quick else ''}"
    for device in calibration.devices:
        yield f"\n{device.meter}  {device.name}"
        # Where energy is estimated, most of it means nothing: the notes say so once, instead of a dash for each.
        yield from _aligned([fact for fact in device_facts(device) if fact.value != NOTHING or not calibration.notes])
        yield from (f"  note: {note}" for note in device.notes)
    if calibration.notes:
        yield ""
        yield from calibration.notes
        return
    yield "\nFor the standard protocol"
    yield from _aligned(advice_facts(calibration))


def _aligned(facts: "Sequence[Fact]") -> Iterator[str]:
    width = max(len(fact.name) for fact in facts)
    yield from (f"{'!' if fact.warning else ' '} {fact.name:<{width}}  {fact.value}" for fact in facts)


if __name__ == "__main__":
    sys.exit(main())
