"""The command line of ``python -m predictor.predict``."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.arguments import Parser, whole_number
from harness.errors import UsageError
from predictor.table_columns import NAMES, Cell

_EPILOG = """examples:
  python -m predictor.predict --model meta-llama/Llama-2-70b-hf --gpu A100-SXM4-80GB --gpus 4 \\
      --batch 8 --prompt 512 --output 128 --region FR
  python -m predictor.predict --requests requests.csv --out answers.parquet
  python -m predictor.predict --model Qwen/Qwen3-8B --prompt 512 --output 256 \\
      --compare gpu=A100-SXM4-80GB,H100-SXM,H200 gpus=1,2,4 batch=1..64 --under ttft=0.5,tpot=0.05

A table has the columns model, gpu, prompt_tokens and output_tokens, and if they are to differ from the default any of
n_gpus, batch_size, dtype, runtime, parallelism, expert_parallel, data_parallel, attention, kv_cache, cuda_graphs,
sm_clock_mhz, power_limit_w, host_us_per_launch and server. A flag gives all rows one value. Other columns pass through
untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one command line asks for."""

    stated: Mapping[str, Cell]  # what the flags say of the request, by the names of the columns
    hardware: Path | None
    checkpoint: Path | None
    region: str | None
    intensity_g_per_kwh: float | None
    pue: float | None
    lifetime_years: float | None
    utilisation: float | None
    requests: Path | None
    out: Path | None
    overwrite: bool
    json: bool
    compare: tuple[str, ...]
    under: str | None
    html: Path | None
    top: int
    list_models: bool
    list_gpus: bool


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    given = _parser().parse_args(arguments)
    options = Options(
        stated={name: value for name in NAMES if (value := getattr(given, name)) is not None},
        hardware=given.hardware,
        checkpoint=given.checkpoint,
        region=given.region,
        intensity_g_per_kwh=given.intensity,
        pue=given.pue,
        lifetime_years=given.lifetime_years,
        utilisation=given.utilisation,
        requests=given.requests,
        out=given.out,
        overwrite=given.overwrite,
        json=given.json,
        compare=tuple(given.compare or ()),
        under=given.under,
        html=given.html,
        top=given.top,
        list_models=given.list_models,
        list_gpus=given.list_gpus,
    )
    _check(options)
    return options


def _check(options: Options) -> None:
    if options.requests is not None and options.compare:
        raise UsageError("--requests answers a table and --compare makes its own requests.\nLeave out one of them.")
    if not options.compare:
        for flag, value in {"--under": options.under, "--html": options.html}.items():
            if value is not None:
                raise UsageError(f"{flag} goes with --compare.\nSee python -m predictor.predict --help.")
    if options.requests is None and (options.overwrite or (options.out is not None and not options.compare)):
        raise UsageError("--out and --overwrite go with --requests FILE.\nOne answer is printed; --json for programs.")
    if options.requests is not None and options.out is None and not options.json:
        raise UsageError("Say where the answered table goes: --out FILE, or --json to print it.")
    if options.requests is not None and options.out is not None:
        if options.json:
            raise UsageError(f"{options.out} already says the format.\nLeave out --json, or end the name in .json.")
        if options.out.exists() and options.requests.exists() and options.out.samefile(options.requests):
            raise UsageError(f"--out would replace the requests themselves, {options.out}.\nName another file.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m predictor.predict",
        description="Energy, time and carbon of LLM inference before anything runs: one request, a table, or a "
        "comparison of deployments.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_request(parser)
    _add_deployment(parser)
    _add_carbon(parser)
    _add_table(parser)
    _add_comparison(parser)
    add = parser.add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="a trained predictor (default: the one that ships)")
    add("--json", action="store_true", help="print JSON")
    add("--list-models", action="store_true", help="print the models that are known offline")
    add("--list-gpus", action="store_true", help="print the GPUs that are known")
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("request").add_argument
    add("--model", metavar="MODEL", help="Hub id known offline, folder, or config.json")
    add("--batch", "--batch-size", dest="batch_size", metavar="N", help="sequences (default: 1)")
    add("--prompt", "--prompt-tokens", dest="prompt_tokens", metavar="N", help="tokens of each prompt")
    add("--output", "--output-tokens", dest="output_tokens", metavar="N", help="new tokens of each; 0: prefill only")


def _add_deployment(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("deployment").add_argument
    add("--gpu", metavar="NAME", help="as in the hardware table (--list-gpus)")
    add("--gpus", "--n-gpus", dest="n_gpus", metavar="N", help="how many of them (default: 1)")
    add(
        "--dtype",
        metavar="NAME",
        help="bfloat16, float16, float32, float8, int8, float4, mxfp4, int4 (default: bfloat16 where the GPU has it)",
    )
    add("--runtime", metavar="NAME", help="hf, vllm, trtllm, sglang, tgi (default: hf)")
    add("--parallelism", metavar="HOW", help="tensor, or layers: GPUs take turns (default: tensor)")
    add("--expert-parallel", metavar="N", help="ranks that share the experts (default: tensor-parallel experts)")
    add("--data-parallel", metavar="N", help="replicas of everything but the experts (default: one)")
    add("--attention", metavar="NAME", help="sdpa, eager, flash_attention_2 (default: that of the runtime)")
    add("--kv-cache", action=argparse.BooleanOptionalAction, help="keep keys and values (default), or recompute them")
    add("--cuda-graphs", action=argparse.BooleanOptionalAction, help="replayed decode steps (default: as the runtime)")
    add("--server", action="store_const", const=True, help="at steady state, among other requests")
    add("--sm-clock-mhz", metavar="MHZ", help="a locked clock (default: free to boost)")
    add("--power-limit-w", metavar="W", help="of each GPU (default: that of the board)")
    add("--host-us-per-launch", metavar="US", help="of the host for each kernel launch")
    add("--hardware", type=Path, metavar="FILE", help="TOML file with devices of your own")


def _add_carbon(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("carbon", "Without a region or an intensity there are joules only.").add_argument
    add("--region", metavar="CODE", help="country of the grid by its ISO 3166 code: FR, FRA")
    add("--intensity", type=float, metavar="G", help="gCO2e per kWh of the grid")
    add(
        "--pue", type=float, metavar="RATIO", help="energy of the data centre over that of its machines (default: 1.56)"
    )
    add("--lifetime-years", type=float, metavar="YEARS", help="of the hardware (default: 3)")
    add("--utilisation", type=float, metavar="SHARE", help="of its lifetime that the server works (default: 1)")


def _add_table(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("table").add_argument
    add("--requests", type=Path, metavar="FILE", help="CSV or Parquet, a request in each row")
    add("--out", type=Path, metavar="FILE", help="where the answers go: .csv, .parquet, .json or .jsonl")
    add("--overwrite", action="store_true", help="replace columns of FILE that have the name of one to be written")


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("comparison").add_argument
    add(
        "--compare",
        nargs="+",
        metavar="WHAT=VALUES",
        help="all combinations of model, gpu, gpus, batch, prompt, output, dtype, runtime: a,b,c; 1..64 doubles, "
        "1..8:1 steps",
    )
    add("--under", metavar="BOUNDS", help="latency bounds in seconds: ttft=0.5,tpot=0.05,time=30")
    add("--html", type=Path, metavar="FILE", help="write the comparison as a page with a plot")
    add("--top", type=whole_number(digits=6), default=20, metavar="N", help="rows printed, 0 for all (default: 20)")
