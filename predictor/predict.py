"""``python -m predictor.predict``: energy, time and carbon of requests before anything runs.

Nothing heavy is imported before the command line has been understood, and no predictor is loaded before the requests
have been: ``--help`` and a misspelt name are answered at once.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, cast

from harness.errors import CannotWrite, UsageError
from harness.streams import Forgiving, answer
from predictor.predict_options import Options, parse

if TYPE_CHECKING:
    from predictor.answers import Carbon
    from predictor.requests import Predictor


def main(arguments: Sequence[str] | None = None, *, predictor: "Predictor | None" = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised.

    ``predictor`` answers instead of the one that ``--checkpoint`` names.
    """
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments), predictor))


def _run(options: Options, predictor: "Predictor | None") -> int:
    output = Forgiving(sys.stdout)
    code = 0
    if options.list_models or options.list_gpus:
        output.write(_known_text(options))
    elif options.requests is not None:
        code = _table(options, predictor, output)
    elif options.compare:
        _compare(options, predictor, output)
    else:
        output.write(_one(options, predictor))
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(
            f"Not everything could be printed: {output.failure.strerror}.\nFree space, or print elsewhere."
        )
    return code


def _known_text(options: Options) -> str:
    from harness.hardware import known, read_hardware_file
    from harness.models.shipped import shipped_ids

    names: list[str] = []
    if options.list_models:
        names += shipped_ids()
    if options.list_gpus:
        devices = known(() if options.hardware is None else read_hardware_file(options.hardware))
        names += [device.name for device in devices]
    return "".join(f"{name}\n" for name in names)


def _one(options: Options, predictor: "Predictor | None") -> str:
    from predictor.answers import answers
    from predictor.predict_text import answer_json, answer_text
    from predictor.table_rows import read_one

    carbon = _carbon(options)
    asked = read_one(options.stated, hardware=options.hardware)
    chosen = _predictor(options, predictor)
    found = answers([asked], chosen, carbon)[0]
    if found.error is not None:
        raise UsageError(found.error)
    write = answer_json if options.json else answer_text
    return write(found, predictor=chosen.name)


def _table(options: Options, predictor: "Predictor | None", output: Forgiving) -> int:
    from predictor.table_writing import JsonWriter, check_out, writing
    from predictor.tables import Tally, answered, open_table, prepare, tally_text, write_answers

    assert options.requests is not None  # noqa: S101  _run has seen to it
    out = options.out
    if out is not None:
        check_out(out)
    carbon = _carbon(options)
    table = open_table(options.requests, typed=out is None or out.suffix.lower() != ".csv")
    reader = prepare(
        table, stated=options.stated, hardware=options.hardware, carbon=carbon, overwrite=options.overwrite
    )
    tally = Tally()
    batches = answered(table, reader, _predictor(options, predictor), carbon, tally)
    if out is None:
        writer = JsonWriter(cast("IO[str]", output), lines=False)
        write_answers(batches, writer)
        writer.close()
    else:
        with writing(out) as writer_of_file:
            write_answers(batches, writer_of_file)
    sys.stderr.write(tally_text(tally, "standard output" if out is None else str(out)))
    return 0 if tally.answered else 1


def _compare(options: Options, predictor: "Predictor | None", output: Forgiving) -> None:
    from predictor.compare import compare
    from predictor.compare_axes import read_axes, read_bounds
    from predictor.compare_text import comparison_json, comparison_text
    from predictor.table_writing import check_out

    axes, bounds = read_axes(options.compare, options.stated), read_bounds(options.under)
    if options.out is not None:
        check_out(options.out)
    carbon = _carbon(options)
    found = compare(
        axes,
        stated=options.stated,
        hardware=options.hardware,
        bounds=bounds,
        carbon=carbon,
        load=lambda: _predictor(options, predictor),
    )
    output.write(comparison_json(found) if options.json else comparison_text(found, top=options.top))
    if options.html is not None:
        from predictor.compare_page import write_page

        write_page(found, options.html)
        sys.stderr.write(f"{options.html}\n")
    if options.out is not None:
        from predictor.compare_table import write_comparison

        write_comparison(found, options.out)
        sys.stderr.write(f"{options.out}\n")


def _carbon(options: Options) -> "Carbon | None":
    from predictor.answers import carbon_of

    return carbon_of(
        region=options.region,
        intensity_g_per_kwh=options.intensity_g_per_kwh,
        pue=options.pue,
        lifetime_years=options.lifetime_years,
        utilisation=options.utilisation,
    )


def _predictor(options: Options, given: "Predictor | None") -> "Predictor":
    if given is not None:
        return given
    from predictor.reference import load

    return load(options.checkpoint)


class _Callable(ModuleType):
    """A module that has the name of a function of its package, and so takes its place there once it is imported."""

    def __call__(self, **request: Any) -> Any:
        from predictor.api import predict

        return predict(**request)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
