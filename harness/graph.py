"""``python -m harness.graph``: the kernels of a model's prefill and decode, from its config alone.

Nothing heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from harness.arguments import Parser, count, whole_number
from harness.errors import CannotWrite, UsageError
from harness.kernels import Phase
from harness.streams import Forgiving, answer

if TYPE_CHECKING:
    from harness.hardware import Hardware
    from harness.models.architecture import Architecture
    from harness.tracing.capture import GraphCapture
    from harness.tracing.graph import KernelGraph
    from harness.tracing.placement import PlacedGraph

DEFAULT_GPU = "NVIDIA H100 80GB HBM3"  # the most common GPU in published LLM measurements of 2024 and 2025
_MOST_DRAWN = 3000  # kernels; more make a drawing that no viewer scrolls through
_BOTH = "both"
_COUNT = count(digits=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    model: str
    phases: tuple[Phase, ...]
    batch: int
    prompt: int
    context: int  # tokens in the cache before the decode step
    output: int | None  # tokens of output, for the counts of a whole request; None: they are not wanted
    dtype: str
    attention: str | None  # None: what the architecture has
    tensor_parallel: int
    kv_cache: bool
    unroll: bool
    gpu: str | None  # None: the default, which is said to be an assumption
    hardware: Path | None
    json: bool
    html: Path | None
    svg: str | None  # a file, or - for standard output
    top: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    return answer(lambda: _run(parse(sys.argv[1:] if arguments is None else arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    if given.phase == Phase.PREFILL and given.context is not None:
        raise UsageError(
            "--context is the cache that a decode step finds, and --phase prefill has none.\nLeave it out."
        )
    if given.json and given.svg == "-":
        raise UsageError("--json and --svg - both write to standard output.\nName a file: --svg FILE.")
    if given.output is not None and (given.json or given.svg == "-" or given.no_kv_cache):
        raise UsageError(
            "--output prints the counts of a whole request with a KV cache, below the table.\n"
            "Leave out --json, --svg - and --no-kv-cache."
        )
    return Options(
        model=given.model,
        phases=tuple(Phase) if given.phase == _BOTH else (Phase(given.phase),),
        batch=given.batch,
        prompt=given.prompt,
        context=given.context or given.prompt,
        output=given.output,
        dtype=given.dtype,
        attention=given.attention,
        tensor_parallel=given.tp,
        kv_cache=not given.no_kv_cache,
        unroll=given.unroll,
        gpu=given.gpu,
        hardware=given.hardware,
        json=given.json,
        html=given.html,
        svg=given.svg,
        top=given.top,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.graph",
        description="The kernels of a model's forward passes, captured from its config: no weights, no GPU.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="Hub id (many are known offline), folder, or config.json")
    add("--phase", choices=[*map(str, Phase), _BOTH], default=_BOTH, help="default: both")
    add("--batch", type=_COUNT, default=1, metavar="N", help="sequences (default: 1)")
    add("--prompt", type=_COUNT, default=512, metavar="N", help="tokens of each prompt (default: 512)")
    add("--context", type=_COUNT, metavar="N", help="tokens in the cache before a decode step (default: --prompt)")
    add("--output", type=_COUNT, metavar="N", help="also count a whole request with so many output tokens")
    add("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="default: bfloat16")
    add("--attention", choices=("sdpa", "eager", "flash_attention_2"), help="default: sdpa, eager where there is none")
    add(
        "--tp", type=_COUNT, default=1, metavar="N", help="tensor-parallel ranks; the graph is that of one (default: 1)"
    )
    add("--no-kv-cache", action="store_true", help="recompute the whole context in a decode step")
    add("--unroll", action="store_true", help="a kernel for every layer, not one for all equal layers")
    add("--gpu", metavar="NAME", help=f"whose Roofline (default: {DEFAULT_GPU}); names: python -m harness.hardware")
    add("--hardware", type=Path, metavar="FILE", help="TOML file with devices of your own")
    add("--json", action="store_true", help="print the graph as one JSON object, both phases as a list of two")
    add("--html", type=Path, metavar="FILE", help="write a page: the graph drawn, the Roofline plot, the table")
    add("--svg", metavar="FILE", help="write the drawing alone; - for standard output")
    add(
        "--top",
        type=whole_number(digits=12),
        default=20,
        metavar="N",
        help="kernels in the table, 0 for all (default: 20)",
    )
    return parser


def _run(options: Options) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    hardware = _hardware(options)  # before torch is loaded: a misspelt name is answered at once
    capture = _capture(options)
    graphs = _captured(capture, options)
    placed = _placed(graphs, hardware, options)
    page, drawing = _page(placed, options), _drawing(placed, options)
    output = Forgiving(sys.stdout)
    if options.json:
        texts = [graph.to_json() for graph in graphs]
        output.write((texts[0] if len(texts) == 1 else f"[{','.join(texts)}]") + "\n")
    elif options.svg == "-":
        output.write(drawing)
    else:
        from harness.report.graph_table import print_graphs

        print_graphs(cast("IO[str]", output), placed, top=options.top, assumed=options.gpu is None)
        output.write(_request_text(capture, options))
    _write(page, options.html)
    _write(drawing, Path(options.svg) if options.svg and options.svg != "-" else None)
    output.flush()
    if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
        raise CannotWrite(
            f"Not everything could be printed: {output.failure.strerror}.\nFree space, or print elsewhere."
        )
    return 0


def _hardware(options: Options) -> "Hardware":
    from harness.hardware import find, known, read_hardware_file

    extra = () if options.hardware is None else read_hardware_file(options.hardware)
    return find(options.gpu or DEFAULT_GPU, known(extra))


def _capture(options: Options) -> "GraphCapture":
    from harness.models.architecture import architecture
    from harness.models.facts import unquantised_config
    from harness.models.source import resolve
    from harness.tracing.capture import GraphCapture

    source = resolve(options.model, random_weights=True, download=False)
    config = unquantised_config(source)
    found = architecture(config)
    _check(options, source.name, found)
    return GraphCapture(
        config,
        model=source.name,
        dtype=options.dtype,
        attention=options.attention or found.attentions[0],
        tensor_parallel=options.tensor_parallel,
        unroll=options.unroll,
    )


def _captured(capture: "GraphCapture", options: Options) -> "tuple[KernelGraph, ...]":
    tokens = {Phase.PREFILL: options.prompt, Phase.DECODE: options.context}
    return tuple(
        capture.capture(phase, batch_size=options.batch, tokens=tokens[phase], kv_cache=options.kv_cache)
        for phase in options.phases
    )


def _check(options: Options, name: str, found: "Architecture") -> None:
    """A model has no answer beyond the context it was made for, nor with an attention that it lacks."""
    needed = max(options.context + 1 if phase is Phase.DECODE else options.prompt for phase in options.phases)
    needed = max(needed, options.prompt + (options.output or 1) - 1)
    if found.context_tokens is not None and needed > found.context_tokens:
        raise UsageError(
            f"This needs a context of {needed} tokens, and that of {name} ends at {found.context_tokens}.\n"
            "Ask for a shorter one."
        )
    if options.attention is not None and options.attention not in found.attentions:
        raise UsageError(
            f"{name} has no {options.attention} attention in transformers.\n"
            f"Use --attention {' or '.join(found.attentions)}."
        )


def _request_text(capture: "GraphCapture", options: Options) -> str:
    """Counts of a whole request; nothing where they are not wanted."""
    if options.output is None:
        return ""
    from harness.tracing.integrate import request_totals
    from harness.units import si

    totals = request_totals(
        capture, batch_size=options.batch, prompt_tokens=options.prompt, output_tokens=options.output
    )
    return (
        f"\nWhole request, {options.batch} × {options.prompt} prompt and {options.output} output tokens, decode "
        f"integrated over its context:\n{totals.passes:,} passes, {si(totals.flop, 'FLOP')}, "
        f"{si(totals.traffic_bytes, 'B')} of memory traffic ({si(totals.weight_bytes, 'B')} weights), "
        f"{si(totals.link_bytes, 'B')} over links, {totals.launches:,.0f} launches, on each rank\n"
    )


def _placed(graphs: "Sequence[KernelGraph]", hardware: "Hardware", options: Options) -> "tuple[PlacedGraph, ...]":
    """Nothing where only JSON is wanted, which needs no GPU."""
    from harness.tracing.placement import place

    if options.json and options.html is None and options.svg is None:
        return ()
    return tuple(place(graph, hardware) for graph in graphs)


def _page(placed: "Sequence[PlacedGraph]", options: Options) -> str:
    if options.html is None:
        return ""
    _check_size(placed)
    from harness.report.graph_page import graph_page

    return graph_page(placed, assumed=options.gpu is None)


def _drawing(placed: "Sequence[PlacedGraph]", options: Options) -> str:
    if options.svg is None:
        return ""
    _check_size(placed)
    from harness.report.graph_names import gpu_text
    from harness.report.graph_svg import standalone_svg

    return standalone_svg(placed, gpu=gpu_text(placed[0].hardware, assumed=options.gpu is None))


def _check_size(placed: "Sequence[PlacedGraph]") -> None:
    kernels = max(len(graph.kernels) for graph in placed)
    if kernels > _MOST_DRAWN:
        raise UsageError(f"{kernels} kernels are too many to draw ({_MOST_DRAWN} at most).\nLeave out --unroll.")


def _write(text: str, out: Path | None) -> None:
    if out is None:
        return
    from harness.report.graph_page import write_text

    write_text(text, out)
    print(out, file=sys.stderr)  # noqa: T201  what is asked for goes to standard output, and nothing else


if __name__ == "__main__":
    sys.exit(main())
