"""Dtypes by the names that records and command lines use."""

import torch

from harness.errors import UsageError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name. Raises UsageError for a name that models are not run in."""
    if name not in _DTYPES:
        raise UsageError(f"{name!r} is no dtype to run a model in. Use one of {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def dtype_bytes(name: str) -> int:
    """Bytes of one element.

    >>> dtype_bytes("bfloat16")
    2
    """
    return torch_dtype(name).itemsize
