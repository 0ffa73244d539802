"""``python -m predictor.templates --write``: capture the graphs of all shipped configurations into the shipped file."""

import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.arguments import Parser, count
from harness.errors import CannotCapture, CannotWrite, UnknownModel, UsageError
from harness.models.checkpoint import config_sha256, read_config
from harness.models.shipped import shipped_ids
from harness.streams import answer
from predictor.lowering_ops import deployment
from predictor.templates import model_source
from predictor.templates_store import (
    SHIPPED,
    StoredEager,
    StoredServed,
    eager_member,
    eager_text,
    served_member,
    served_text,
    stored_served,
)

DEGREES = (1, 2, 4, 8)
_SAVED_AFTER = 10  # models: a long command that is stopped goes on with --missing
_WHEN = (2026, 1, 1, 0, 0, 0)  # the same content is the same file


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Members of one model, or why it has fewer."""

    model: str
    members: tuple[tuple[str, str], ...]  # name, text
    problems: tuple[str, ...]
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return answer(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    found = _kept(given.out) if given.missing else {}
    capture = partial(captured, have=frozenset(found), degrees=tuple(given.degrees))
    with ProcessPoolExecutor(given.jobs) as pool:
        for number, written in enumerate(pool.map(capture, distinct_models()), start=1):
            found.update(written.members)
            if written.members or written.problems:
                lines = (f"{len(written.members)} graphs in {written.seconds:.0f} s", *written.problems)
                print(f"{written.model}: {'; '.join(lines)}", file=sys.stderr, flush=True)  # noqa: T201  progress
            if number % _SAVED_AFTER == 0:
                _write(given.out, found)
    _write(given.out, found)
    print(f"{given.out}: {len(found)} graphs, {given.out.stat().st_size:,} bytes")  # noqa: T201  its answer
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m predictor.templates",
        description="Write the kernel graphs of all shipped configurations; takes some minutes.",
        allow_abbrev=False,
    )
    add, whole = parser.add_argument, count(digits=3)
    add("--write", action="store_true", required=True, help="capture them and write the file")
    add("--missing", action="store_true", help="keep what the file has, capture what it lacks")
    add("--degrees", type=whole, nargs="+", default=DEGREES, metavar="N", help="tensor-parallel (default: 1 2 4 8)")
    add("--out", type=Path, default=SHIPPED, metavar="FILE", help=f"default: {SHIPPED}")
    add("--jobs", type=whole, default=1, metavar="N", help="processes (default: 1)")
    return parser


def _kept(path: Path) -> dict[str, str]:
    """Members of a file that still belong to a shipped configuration."""
    if not path.is_file():
        return {}
    known = {served_member(_sha256(model)).partition("/")[0] for model in shipped_ids()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if name.partition("/")[0] in known}


def _sha256(model: str) -> str:
    return config_sha256(read_config(model_source(model).config_path))


def distinct_models() -> tuple[str, ...]:
    """One id for each shipped configuration."""
    by_hash: dict[str, str] = {}
    for model in shipped_ids():
        by_hash.setdefault(_sha256(model), model)
    return tuple(by_hash.values())


def captured(model: str, *, have: frozenset[str] = frozenset(), degrees: Sequence[int] = DEGREES) -> Written:
    """The members of one model that are not in ``have``; what cannot be captured is said, not raised."""
    start = time.perf_counter()
    problems: list[str] = []
    members = tuple(_members(model, have, degrees, problems))
    return Written(model=model, members=members, problems=tuple(problems), seconds=time.perf_counter() - start)


def _members(
    model: str, have: frozenset[str], degrees: Sequence[int], problems: list[str]
) -> Iterator[tuple[str, str]]:
    name = served_member(_sha256(model))
    stored = stored_served(_sha256(model)) if name in have else None
    if stored is None:
        try:
            stored = _lowered(model)
        except (CannotCapture, UnknownModel, UsageError, ValueError, LookupError, StopIteration) as error:
            problems.append(f"served: {type(error).__name__}: {error}")
            return
        yield name, served_text(stored)
    for degree in degrees:
        name = eager_member(_sha256(model), stored.sizes.attentions[0], degree)
        text = None if name in have else _eager_text(model, stored, degree, problems)
        if text is not None:
            yield name, text


def _lowered(model: str) -> StoredServed:
    from predictor.templates_capture import capture_served

    sizes, served = capture_served(model_source(model))
    return StoredServed(sizes=sizes, served=served)


def _eager_text(model: str, stored: StoredServed, degree: int, problems: list[str]) -> str | None:
    """None where the model does not divide by the degree, or is no function that a fit finds."""
    from predictor.templates_capture import capture_eager

    try:
        deployment(stored.served, model, degree, None)
        graphs = capture_eager(
            model_source(model),
            attention=stored.sizes.attentions[0],
            dtype="bfloat16",
            tensor_parallel=degree,
            kv_cache=True,
        )
    except UsageError:
        return None
    except CannotCapture as error:
        problems.append(f"eager on {degree} GPUs: {error}")
        return None
    return None if graphs.decode is None else eager_text(StoredEager(prefill=graphs.prefill, decode=graphs.decode))


def _write(path: Path, members: dict[str, str]) -> None:
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(members):
                archive.writestr(zipfile.ZipInfo(name, _WHEN), members[name], zipfile.ZIP_DEFLATED, 9)
        part.replace(path)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {error.strerror}.\nChoose another place with --out.") from error
