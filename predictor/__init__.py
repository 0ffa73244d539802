"""Joulegraph's predictor: the energy, time and carbon of a request before anything runs.

``predict`` and ``predict_table`` are loaded when they are asked for; importing the package loads nothing heavy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.api import predict, predict_table

__all__ = ["predict", "predict_table"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from predictor import api

    return getattr(api, name)
