"""What a dtype means for weights and arithmetic, and which one a published checkpoint has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UsageError
from predictor.kernel_table import DTYPES
from predictor.templates_graph import GraphChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Layers whose weights a checkpoint quantises, and all the rest, which stays as it was."""

    plain: str  # dtype of all but those layers
    stored_bytes: float  # of a weight in them, scales included
    input_bytes: float  # of a number that goes into them
    arithmetic: str  # dtype that they compute in
    only_experts: bool = False

    @property
    def plain_bytes(self) -> int:
        """Of a number of the rest."""
        return 4 if self.plain == "float32" else 2

    def change(self, captured: str) -> GraphChange:
        """How a graph that was captured in ``captured`` changes."""
        item = 4 if captured == "float32" else 2
        return GraphChange(
            plain=DTYPES.index(self.plain),
            matrices=DTYPES.index(self.arithmetic),
            weight_share=self.stored_bytes / self.plain_bytes,
            input_share=self.input_bytes / self.plain_bytes,
            all_share=self.plain_bytes / item,
            only_experts=self.only_experts,
            captured=DTYPES.index(captured),
        )


def _same(dtype: str, size_bytes: int) -> Precision:
    return Precision(plain=dtype, stored_bytes=size_bytes, input_bytes=size_bytes, arithmetic=dtype)


# Bits with scales: MX formats 4 and one byte for 32 (OCP Microscaling Formats 1.0), NVFP4 4 and one byte for 16
# (NVIDIA, "Introducing NVFP4", 2025), AWQ and GPTQ 4 and 20 bits for 128 (arXiv 2306.00978, 2210.17323).
PRECISIONS: Mapping[str, Precision] = {
    "float32": _same("float32", 4),
    "float16": _same("float16", 2),
    "bfloat16": _same("bfloat16", 2),
    "float8": Precision(plain="bfloat16", stored_bytes=1.0, input_bytes=1.0, arithmetic="float8"),
    "int8": Precision(plain="bfloat16", stored_bytes=1.0, input_bytes=1.0, arithmetic="int8"),
    "float4": Precision(plain="bfloat16", stored_bytes=4.5 / 8, input_bytes=4.5 / 8, arithmetic="float4"),
    "mxfp4": Precision(
        plain="bfloat16", stored_bytes=4.25 / 8, input_bytes=2.0, arithmetic="bfloat16", only_experts=True
    ),
    "int4": Precision(plain="bfloat16", stored_bytes=4.16 / 8, input_bytes=2.0, arithmetic="bfloat16"),
}
_SIXTEEN_BITS = frozenset({"float16", "bfloat16"})
_NAMED = (
    (re.compile(r"nvfp4|(?<![a-z])fp4"), "float4"),
    (re.compile(r"mxfp4"), "mxfp4"),
    (re.compile(r"fp8|w8a8-dynamic"), "float8"),
    (re.compile(r"awq|gptq|int4|w4a16|4bit|bnb-4"), "int4"),
    (re.compile(r"int8|w8a8|8bit"), "int8"),
)


def precision(dtype: str) -> Precision:
    """Raises ``UsageError`` for a dtype that no model is run in."""
    if dtype not in PRECISIONS:
        raise UsageError(f"{dtype!r} is no dtype to run a model in. Use one of {', '.join(PRECISIONS)}.")
    return PRECISIONS[dtype]


def stored_dtype(model_id: str, config: Mapping[str, object], dtype: str) -> str:
    """What a checkpoint is run in that is asked for in ``dtype``: its id says so, or its config.

    >>> stored_dtype("Qwen/Qwen3-32B-FP8", {}, "bfloat16"), stored_dtype("Qwen/Qwen3-32B", {}, "bfloat16")
    ('float8', 'bfloat16')
    """
    if dtype not in _SIXTEEN_BITS:
        return dtype
    name = model_id.rpartition("/")[2].lower()
    if "bf16" in name:
        return dtype
    named = next((meant for pattern, meant in _NAMED if pattern.search(name)), None)
    return named or _configured(config.get("quantization_config")) or dtype


def _configured(method: object) -> str | None:
    if not isinstance(method, Mapping):
        return None
    text = str(dict(method)).lower()
    if method.get("bits") == 4 or method.get("load_in_4bit"):
        return "int4"
    if "mxfp4" in text:
        return "mxfp4"
    if "nvfp4" in text:
        return "float4"
    if "fp8" in text:
        return "float8"
    if "'num_bits': 4" in text:
        return "float4" if "'type': 'float'" in text else "int4"
    return ("float8" if "'type': 'float'" in text else "int8") if "'num_bits': 8" in text or "8bit" in text else None
