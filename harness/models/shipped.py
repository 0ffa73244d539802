"""Configurations of widely measured LLMs that ship with the package: ``data/configs/<owner>--<name>.json``.

Each holds the plain facts of that model's published config.json (layers, widths, heads, context), so that planning,
kernel graphs and prediction need no network. There are no weights and no tokenizers here. A test holds the parameter
counts that follow from them against the published ones.
"""

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from harness import __version__
from harness.models.shipped_names import canonical_id

REVISION = f"joulegraph {__version__} config"  # what records give as the revision of a model described by such a file
_FOLDER = Path(__file__).parents[1] / "data" / "configs"
_OWNER_END = "--"  # as in the folder names of the Hub's cache


def shipped_ids() -> tuple[str, ...]:
    """Hub ids of all models that are described here, sorted."""
    return tuple(_configs())


def shipped_config(model_id: str) -> Path | None:
    """The config.json of a model, by its Hub id or that of a tuned or quantised one; None if it is not among them."""
    known = canonical_id(model_id, _configs())
    return None if known is None else _configs()[known]


def closest_ids(reference: str, most: int = 4) -> tuple[str, ...]:
    """Ids that somebody who wrote ``reference`` may have meant, with or without the owner.

    >>> closest_ids("llama-3.1-70b", most=1)
    ('meta-llama/Llama-3.1-70B',)
    """
    names = {model_id.lower(): model_id for model_id in shipped_ids()}
    names |= {name.rpartition("/")[2]: model_id for name, model_id in names.items()}
    found = difflib.get_close_matches(reference.lower(), names, n=2 * most, cutoff=0.6)
    return tuple(dict.fromkeys(names[name] for name in found))[:most]


@cache
def _configs() -> Mapping[str, Path]:
    found = {path.stem.replace(_OWNER_END, "/", 1): path for path in _FOLDER.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
