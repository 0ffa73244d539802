"""Columns of a request: their names, how a cell becomes a value, and what a table's header gets wrong.

Cells come from tables and from command lines alike, so both are read and refused in the same words. A cell that is
empty, NaN or ``null`` says nothing, and the default of its column holds.
"""

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.errors import UsageError
from predictor.requests import Parallelism

Cell = str | int | float | bool | None
Value = str | int | float | bool | None

DTYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("float32", "fp32", "float"), "float32"),
    **dict.fromkeys(("float16", "fp16", "half"), "float16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    **dict.fromkeys(("float8", "fp8", "float8_e4m3fn", "float8_e5m2"), "float8"),
    **dict.fromkeys(("float4", "fp4", "nvfp4", "float4_e2m1fn_x2"), "float4"),
    **dict.fromkeys(("int8", "w8a8"), "int8"),
    **dict.fromkeys(("int4", "w4a16", "awq", "gptq"), "int4"),
    "mxfp4": "mxfp4",
}
RUNTIMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("hf", "transformers", "huggingface"), "hf"),
    "vllm": "vllm",
    **dict.fromkeys(("trtllm", "tensorrt-llm", "tensorrt_llm", "trt-llm"), "trtllm"),
    "sglang": "sglang",
    "tgi": "tgi",
}
ATTENTIONS: Final[Mapping[str, str]] = {
    "sdpa": "sdpa",
    "eager": "eager",
    **dict.fromkeys(
        ("flash_attention_2", "flash-attention-2", "flash_attn_2", "flash_attention", "fa2"), "flash_attention_2"
    ),
}
PARALLELISMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("tensor", "tp", "tensor_parallel"), str(Parallelism.TENSOR)),
    **dict.fromkeys(("layers", "layer"), str(Parallelism.LAYERS)),
}
_MISSING: Final = frozenset({"", "nan", "na", "n/a", "<na>", "null", "none", "-"})
_TRUTH: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", "0.0"), False),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_LONGEST_TEXT: Final = 1000  # a path may be long
_SHOWN: Final = 60  # characters of a cell in a message
_MOST_COLUMNS: Final = 2000
_NEAR: Final = 0.85  # as difflib counts likeness


class BadCell(Exception):
    """A cell that is not what its column holds; ``str(error)`` is meant for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestColumn:
    """One thing a request says. ``read`` turns a cell that says something into a value, or raises ``BadCell``."""

    name: str
    read: Callable[[Cell], Value]
    flag: str
    required: bool = False
    synonyms: tuple[str, ...] = ()  # by which others know it; a header that has one instead is refused

    def value(self, cell: Cell) -> Value:
        """The value of a cell, None where it says nothing; raises ``BadCell``, naming the column."""
        if _says_nothing(cell):
            if self.required:
                raise BadCell(f"{self.name} is missing")
            return None
        try:
            return self.read(cell)
        except BadCell as bad:
            raise BadCell(f"{self.name}: {bad}") from None


def _says_nothing(cell: Cell) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


# ---- cells ----


def shown(cell: Cell) -> str:
    """A cell as messages quote it."""
    text = str(cell)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _text(cell: Cell) -> str:
    text = str(cell).strip()
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise BadCell(f"{shown(cell)} is too long or cannot be printed")
    return text


def _number(cell: Cell) -> float:
    """A finite number; text only as people and programs write numbers, not as Python does (1_000)."""
    if isinstance(cell, bool):
        raise BadCell(f"{shown(cell)} is not a number")
    if isinstance(cell, str):
        text = cell.strip()
        if len(text) > _SHOWN or not _NUMBER.fullmatch(text):
            raise BadCell(f"{shown(cell)} is not a number")
    number = float(cell or 0)  # None never comes here
    if not math.isfinite(number):
        raise BadCell(f"{shown(cell)} is not a finite number")
    return number


def _whole(least: int, most: int) -> Callable[[Cell], int]:
    def read(cell: Cell) -> int:
        number = _number(cell)
        if not number.is_integer() or not least <= number <= most:
            raise BadCell(f"{shown(cell)} is not a whole number from {least} to {most:,}")
        return int(number)

    return read


def _real(least: float, most: float, unit: str) -> Callable[[Cell], float]:
    def read(cell: Cell) -> float:
        number = _number(cell)
        if not least <= number <= most:
            raise BadCell(f"{shown(cell)} is not from {least:g} to {most:,.0f} {unit}")
        return number

    return read


def _truth(cell: Cell) -> bool:
    found = _TRUTH.get(str(cell).strip().lower())
    if found is None:
        raise BadCell(f"{shown(cell)} is neither true nor false")
    return found


def _choice(words: Mapping[str, str]) -> Callable[[Cell], str]:
    def read(cell: Cell) -> str:
        found = words.get(str(cell).strip().lower().removeprefix("torch."))
        if found is None:
            raise BadCell(f"{shown(cell)} is not known; it is one of {', '.join(dict.fromkeys(words.values()))}")
        return found

    return read


COLUMNS: Final = (
    RequestColumn(
        name="model", read=_text, flag="--model", required=True, synonyms=("model_id", "model_name", "hf_model")
    ),
    RequestColumn(
        name="gpu", read=_text, flag="--gpu", required=True, synonyms=("gpu_name", "gpu_model", "gpu_type", "device")
    ),
    RequestColumn(
        name="n_gpus",
        read=_whole(1, 10**5),
        flag="--gpus",
        synonyms=("gpus", "num_gpus", "gpu_count", "ngpus", "number_of_gpus", "tensor_parallel", "tp", "tp_size"),
    ),
    RequestColumn(name="batch_size", read=_whole(1, 10**7), flag="--batch", synonyms=("batch", "bs", "batchsize")),
    RequestColumn(
        name="prompt_tokens",
        read=_whole(1, 10**8),
        flag="--prompt",
        required=True,
        synonyms=("prompt", "input_tokens", "input_len", "input_length", "prompt_len", "prompt_length"),
    ),
    RequestColumn(
        name="output_tokens",
        read=_whole(0, 10**8),
        flag="--output",
        required=True,
        synonyms=("output", "output_len", "output_length", "generated_tokens", "completion_tokens", "max_new_tokens"),
    ),
    RequestColumn(
        name="dtype", read=_choice(DTYPES), flag="--dtype", synonyms=("precision", "torch_dtype", "data_type")
    ),
    RequestColumn(name="runtime", read=_choice(RUNTIMES), flag="--runtime", synonyms=("engine", "backend")),
    RequestColumn(name="parallelism", read=_choice(PARALLELISMS), flag="--parallelism", synonyms=("parallel",)),
    RequestColumn(name="expert_parallel", read=_whole(1, 10**5), flag="--expert-parallel", synonyms=("ep", "ep_size")),
    RequestColumn(name="data_parallel", read=_whole(1, 10**5), flag="--data-parallel", synonyms=("dp", "dp_size")),
    RequestColumn(
        name="attention", read=_choice(ATTENTIONS), flag="--attention", synonyms=("attn", "attn_implementation")
    ),
    RequestColumn(name="kv_cache", read=_truth, flag="--no-kv-cache", synonyms=("use_cache", "kvcache")),
    RequestColumn(name="cuda_graphs", read=_truth, flag="--cuda-graphs", synonyms=("cuda_graph", "cudagraphs")),
    RequestColumn(
        name="sm_clock_mhz", read=_real(10, 1e5, "MHz"), flag="--sm-clock-mhz", synonyms=("sm_clock", "gpu_clock_mhz")
    ),
    RequestColumn(
        name="power_limit_w",
        read=_real(1, 1e5, "W"),
        flag="--power-limit-w",
        synonyms=("power_limit", "power_cap", "power_cap_w"),
    ),
    RequestColumn(
        name="host_us_per_launch", read=_real(0, 1e6, "µs"), flag="--host-us-per-launch", synonyms=("host_us",)
    ),
    RequestColumn(name="server", read=_truth, flag="--server"),
)
NAMES: Final = tuple(column.name for column in COLUMNS)


# ---- headers ----


def check_header(
    source: str, names: Sequence[str], stated: Collection[str], outputs: Collection[str], *, overwrite: bool
) -> None:
    """See that a table's columns can be meant as they are called; raises ``UsageError``.

    ``stated``: columns of a request whose one value for all rows comes from elsewhere. ``outputs``: columns to be
    added. ``source`` is what messages call the table.
    """
    _check_names(source, names)
    twice = [name for name in stated if name in names]
    if twice:
        raise UsageError(
            f"{source} has a column {twice[0]}, and {flag_of(twice[0])} says the same for all rows.\n"
            "Leave out one of them."
        )
    taken = [name for name in outputs if name in names]
    if taken and not overwrite:
        raise UsageError(
            f"{source} has the columns {', '.join(taken)}, which are among those to be written.\n"
            "Rename them, or give --overwrite to have them replaced in the output."
        )
    absent = [column for column in COLUMNS if column.name not in names and column.name not in stated]
    for name in names:
        if name not in NAMES and (meant := _meant(name, absent)):
            raise UsageError(
                f"{source} has a column {name[:_SHOWN]!r} and none called {meant.name}: is it that, misspelt?\n"
                f"Rename it to {meant.name}; if it is something else, give {meant.flag} for all rows."
            )
    missing = [column.name for column in absent if column.required]
    if missing:
        raise UsageError(
            f"{source} has no column {', '.join(missing)}.\n"
            f"It has: {', '.join(name[:_SHOWN] for name in names[:40])}. Add what is missing, or give it for all rows "
            f"with {', '.join(flag_of(name) for name in missing)}."
        )


def _check_names(source: str, names: Sequence[str]) -> None:
    if len(names) > _MOST_COLUMNS:
        raise UsageError(f"{source} has {len(names)} columns, more than {_MOST_COLUMNS}.\nLeave some out.")
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise UsageError(
            f"{source} has more than one column called {', '.join(name[:_SHOWN] for name in doubled)}.\n"
            "Rename or remove the others."
        )
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise UsageError(
            f"{source} has one column, {names[0][:_SHOWN]!r}: its columns are not separated by commas.\n"
            "Save it with commas."
        )


def _meant(name: str, absent: Sequence[RequestColumn]) -> RequestColumn | None:
    """The absent column that a name of the header seems to stand for."""
    key = re.sub(r"[\s-]+", "_", name.strip().lower())
    for column in absent:
        if key == column.name or key in column.synonyms:
            return column
    near = difflib.get_close_matches(key, [column.name for column in absent], n=1, cutoff=_NEAR)
    return next((column for column in absent if column.name in near), None)


def flag_of(name: str) -> str:
    """The flag that says the same as a column."""
    return next(column.flag for column in COLUMNS if column.name == name)
