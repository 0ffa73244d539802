"""``python -m predictor.train``: train a predictor on datasets of measurements."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import Parser, count, whole_number
from harness.errors import UsageError
from harness.streams import answer
from harness.words import Provenance

if TYPE_CHECKING:
    from predictor.checkpoint import Checkpoint
    from predictor.training import TrainSettings

_ALLOWABLE = (Provenance.SIMULATED, Provenance.ESTIMATED)
_EPILOG = """A stranger's training set, without cloning anything (extra `reference-data`):
  python -m harness.convert reference-data --out reference-data
  python -m predictor.train --data reference-data --out mine.safetensors"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    data: tuple[Path, ...]
    out: Path
    start: Path | None
    allow: tuple[str, ...]
    allow_unlicensed: bool
    epochs: int
    most_kernels_per_gpu: int
    seed: int
    threads: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(
        lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)),
        interrupted="interrupted: the same command goes on after the last whole epoch",
    )


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    import argparse

    parser = Parser(
        prog="python -m predictor.train",
        description="Train a predictor on datasets of measurements.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", required=True, type=Path, metavar="DIR", help="dataset folders")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="checkpoint to write (.safetensors)")
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="keep the kernels of this checkpoint, and train on whole runs only"
    )
    parser.add_argument(
        "--allow", default="", metavar="WORDS", help="train on rows nobody measured: simulated, estimated"
    )
    parser.add_argument(
        "--allow-unlicensed", action="store_true", help="train on sources without an open licence; keep the result"
    )
    parser.add_argument(
        "--epochs", type=count(digits=4), default=16, metavar="N", help="at most, over kernels (default: 16)"
    )
    parser.add_argument(
        "--kernels-per-gpu", type=count(digits=9), default=500_000, metavar="N", help="at most (default: 500,000)"
    )
    parser.add_argument("--seed", type=whole_number(digits=9), default=0, metavar="N", help="default: 0")
    parser.add_argument("--threads", type=count(digits=3), default=1, metavar="N", help="of torch (default: 1)")
    given = parser.parse_args(arguments)
    if given.out.suffix != ".safetensors":
        raise UsageError(f"{given.out} does not end in .safetensors.\nThe card is written beside it, as .json.")
    return Options(
        data=tuple(given.data),
        out=given.out,
        start=given.start,
        allow=_allowed(given.allow),
        allow_unlicensed=given.allow_unlicensed,
        epochs=given.epochs,
        most_kernels_per_gpu=given.kernels_per_gpu,
        seed=given.seed,
        threads=given.threads,
    )


def _allowed(text: str) -> tuple[str, ...]:
    words = tuple(word for word in text.replace(" ", "").split(",") if word)
    for word in words:
        if word not in _ALLOWABLE:
            raise UsageError(f"--allow takes {' and '.join(_ALLOWABLE)}, not {word!r}.")
    return words


def _run(options: Options) -> int:
    import shutil

    import torch

    from predictor.checkpoint import read_checkpoint, write_checkpoint
    from predictor.training import gather, train

    torch.set_num_threads(options.threads)
    start = None if options.start is None else read_checkpoint(options.start)
    settings = _settings(options)
    began = time.monotonic()

    def told(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)  # noqa: T201

    state = options.out.with_suffix(".partial")
    lessons = gather(options.data, settings, told, keep_kernels=start is not None)
    checkpoint = train(lessons, settings, told=told, state=state, start=start, commit=_commit())
    write_checkpoint(checkpoint, options.out)
    shutil.rmtree(state, ignore_errors=True)
    print(_summary(checkpoint, options.out))  # noqa: T201
    return 0


def _settings(options: Options) -> "TrainSettings":
    from predictor.kernel_training import KernelSettings
    from predictor.pass_training import PassSettings
    from predictor.training import TrainSettings

    return TrainSettings(
        kernels=KernelSettings(epochs=options.epochs, seed=options.seed),
        passes=PassSettings(seed=options.seed),
        most_kernels_per_gpu=options.most_kernels_per_gpu,
        allow=options.allow,
        allow_unlicensed=options.allow_unlicensed,
        seed=options.seed,
    )


def _summary(checkpoint: "Checkpoint", out: Path) -> str:
    card = checkpoint.card
    lines = [f"{out} and {out.with_suffix('.json')}"]
    lines += [
        f"  {entry.source}: {entry.kernels:,} kernels, {entry.runs:,} runs ({entry.provenance}; {entry.licence})"
        for entry in card.learned_from
    ]
    lines += [
        f"  90 % interval, {spread.runtime_class} {spread.part} {spread.quantity}: "
        f"× or ÷ {2.718281828**spread.half_width:.2f} ({spread.residuals:,} held-out labels)"
        for spread in card.spreads
    ]
    return "\n".join(lines)


def _commit() -> str | None:
    """Commit of the code, where it is a clone."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return done.stdout.strip() or None if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
