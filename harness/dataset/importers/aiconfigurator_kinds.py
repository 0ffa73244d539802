"""What each kind of aiconfigurator's files holds, as SQL over its columns: one ``Kernel`` for each kernel of a row.

Numbers of a dtype. A word of the source names how a product computes; its inputs are of the dtype below, and every
number of an activation or a weight takes the bits below, scales included. Sources: OCP Microscaling Formats (MX) 1.0
(mxfp4, mxfp8: 8 bits of scale for 32 numbers); NVIDIA, "Introducing NVFP4", 2025 (8 bits for 16); DeepSeek-V3,
arXiv 2412.19437, section 3.3 (fp8_block: 32 bits for 1 × 128 activations and for 128 × 128 weights). A group of 128
weights with a 16-bit scale is assumed for int4.
"""

from dataclasses import dataclass

from harness.kernels import KernelKind

# word of the source: dtype of the inputs, bits of an activation, bits of a weight
_FORMATS = {
    "bfloat16": ("bfloat16", 16.0, 16.0),
    "float16": ("float16", 16.0, 16.0),
    "half": ("float16", 16.0, 16.0),
    "int8": ("int8", 8.0, 8.0),
    "fp8": ("float8", 8.0, 8.0),
    "fp8_e4m3": ("float8", 8.0, 8.0),
    "fp8_block": ("float8", 8.25, 8.0 + 32 / 128**2),
    "fp4": ("float4", 4.5, 4.5),
    "nvfp4": ("float4", 4.5, 4.5),
    "int8_wo": ("bfloat16", 16.0, 8.0),
    "int4_wo": ("bfloat16", 16.0, 4.125),
    "sq": ("int8", 8.0, 8.0),
    "w4a16_mxfp4": ("bfloat16", 16.0, 4.25),
    "w4a8_mxfp4_mxfp8": ("float8", 8.25, 4.25),
    "w4afp8": ("float8", 8.0, 4.125),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One named dimension of a kernel."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The least work that the measured kernel can have done, where that is less than what its row counts.

    A causal kernel may skip what the mask hides, which the count of the full square does not.
    """

    flop: str
    bytes: str
    link_bytes: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel in a row of a file, all in SQL. None: not known."""

    kind: KernelKind
    op: str
    dtype: str  # a word of the source
    sizes: tuple[Size, ...]
    window_tokens: str | None = None  # a dimension that only kernels with a window have; 0: none
    time_s: str = "latency / 1e3"
    flop: str | None = None
    read_bytes: str | None = None
    write_bytes: str | None = None
    link_bytes: str | None = "0"
    bound: Bound | None = None  # None: the counts above are a bound
    fastest_dtypes: tuple[str, ...] = ()  # words of the source that the products may be computed in, besides dtype
    gpus: str = "1"
    where: str = "TRUE"  # rows of the file that hold this kernel
    unlike: tuple[str, ...] = ()  # columns that do not tell kernels apart: other times, rates


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """One kind of file. All columns that no kernel uses go to ``variant``."""

    kernels: tuple[Kernel, ...]
    backend: str | None = None  # where it is always the same, whatever the folder says


def dtype_sql(word: str) -> str:
    """The dtype of the inputs; a word nobody has described stays as it is."""
    return _case(word, {name: f"'{dtype}'" for name, (dtype, _, _) in _FORMATS.items()}, f"lower({word})")


def activation_bits(word: str) -> str:
    """Bits of a number that goes in or out of a product; null for a word nobody has described."""
    return _case(word, {name: str(bits) for name, (_, bits, _) in _FORMATS.items()}, "NULL")


def weight_bits(word: str) -> str:
    """Bits of a weight; null for a word nobody has described."""
    return _case(word, {name: str(bits) for name, (_, _, bits) in _FORMATS.items()}, "NULL")


def whole_bytes(bits: str) -> str:
    """Bits as bytes, rounded up."""
    return f"ceil(({bits}) / 8)"


def literal(text: str) -> str:
    """Text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Name of a column as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _case(word: str, choices: dict[str, str], otherwise: str) -> str:
    whens = " ".join(f"WHEN '{name}' THEN {sql}" for name, sql in choices.items())
    return f"CASE lower({word}) {whens} ELSE {otherwise} END"
