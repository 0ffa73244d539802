"""What the text in each column of a contribution may look like.

The schema says which columns hold text; a stranger's text can still be a megabyte long, run from right to left, look
like another text, or be a document that no parser survives. Every column has one of a few shapes, and text of another
shape is refused. Names are ASCII, so that no letter can stand in for one that looks the same.
"""

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from harness.dataset.contributions.bundle import LAB
from harness.dataset.schema import Table

_HASH = re.compile(r"[0-9a-f]{16}|[0-9a-f]{20}|[0-9a-f]{40}|[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?\+00:00", re.ASCII)
_MODEL = re.compile(r"[\w.\[\]+ -]+(?:/[\w.\[\]+ -]+)?", re.ASCII)
_PRINTABLE = re.compile(r"[ -~]+")
_KIB = 1024
_DEEPEST = 32  # documents nested more deeply are none that some other reader takes
_MOST_DIGITS = 19  # of a whole number: 64 bits


class Sort(Enum):
    """What a column of text holds."""

    ID = "id"  # a hash or a time
    NAME = "name"
    DOCUMENT = "document"  # JSON
    PROSE = "prose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What text a column may hold."""

    sort: Sort
    longest: int  # characters
    form: "re.Pattern[str] | None" = None

    def problem(self, text: str) -> str | None:
        """Why a text does not have this shape; None where it has."""
        if not 0 < len(text) <= self.longest:
            return f"has {len(text)} characters, and 1 to {self.longest} are allowed"
        if self.sort is Sort.DOCUMENT:
            return _document_problem(text)
        if self.sort is Sort.PROSE:
            return _prose_problem(text)
        if self.form is not None and self.form.fullmatch(text) is None:
            return "does not have the form of this column"
        return None


_ID = Shape(sort=Sort.ID, longest=64, form=_HASH)
_NAME = Shape(sort=Sort.NAME, longest=300, form=_PRINTABLE)
_PROSE = Shape(sort=Sort.PROSE, longest=4000)
_SHAPES = {
    "run_id": _ID,
    "campaign_id": _ID,
    "environment_id": _ID,
    "graph_id": _ID,
    "superseded_by": _ID,
    "config_sha256": _ID,
    "device_sha256": _ID,
    "started_at_utc": Shape(sort=Sort.ID, longest=40, form=_TIME),
    "lab": Shape(sort=Sort.NAME, longest=40, form=LAB),
    "model": Shape(sort=Sort.NAME, longest=120, form=_MODEL),
    "module": Shape(sort=Sort.NAME, longest=500, form=_PRINTABLE),
    "op": Shape(sort=Sort.NAME, longest=2000, form=_PRINTABLE),  # a kernel's full C++ name
    "configuration": Shape(sort=Sort.DOCUMENT, longest=256 * _KIB),
    "calibration": Shape(sort=Sort.DOCUMENT, longest=4096 * _KIB),
    "shape": Shape(sort=Sort.DOCUMENT, longest=4 * _KIB),
    "variant": Shape(sort=Sort.DOCUMENT, longest=16 * _KIB),
    "measured_contexts": Shape(sort=Sort.DOCUMENT, longest=64 * _KIB),
    **dict.fromkeys(("status_detail", "clipped", "flags", "how", "rejected", "topology"), _PROSE),
    **dict.fromkeys(("title", "url", "licence", "citation", "measured", "derived"), _PROSE),
}
_BY_TABLE = {
    # A graph has tens of kernels, of some hundred letters each.
    (Table.GRAPHS, "kernels"): Shape(sort=Sort.DOCUMENT, longest=2048 * _KIB),
    (Table.GRAPHS, "edges"): Shape(sort=Sort.DOCUMENT, longest=2048 * _KIB),
    (Table.READINGS, "kernels"): Shape(sort=Sort.DOCUMENT, longest=1024 * _KIB),
}


def shape_of(table: Table, column: str) -> Shape:
    """What text a column may hold; a column that is not named above holds a name."""
    return _BY_TABLE.get((table, column)) or _SHAPES.get(column, _NAME)


def _prose_problem(text: str) -> str | None:
    if not unicodedata.is_normalized("NFC", text):
        return "is not in Unicode's normal form C"
    for letter in text:
        if letter != "\n" and not letter.isprintable():
            return f"holds the character U+{ord(letter):04X}, which cannot be seen or changes how others are"
    return None


def _document_problem(text: str) -> str | None:
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_whole, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        return f"is no plain JSON: {str(error)[:100]}"
    return _text_problem(value)


def _text_problem(value: Any) -> str | None:
    """The first problem of a text inside a document, or of how deeply it is nested."""
    layer, depth = [value], 0
    while layer:
        if depth > _DEEPEST:
            return f"is nested more than {_DEEPEST} deep"
        depth += 1
        within: list[Any] = []
        for each in layer:
            if isinstance(each, dict):
                within += [*each, *each.values()]
            elif isinstance(each, list):
                within += each
            elif isinstance(each, str) and each and (problem := _prose_problem(each)) is not None:
                return problem
        layer = within
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is there twice")
    return fields


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS + 1:
        raise ValueError(f"a whole number has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    """JSON has no infinity, and 1e999 becomes one."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is larger than any number")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
