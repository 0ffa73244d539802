"""Markdown whose numbers come from code; text from data is escaped."""

import re
from collections.abc import Iterable, Sequence
from types import NoneType

from harness.dataset.card import escaped

_MOST_ROWS = 200
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&*+,;=%-]{1,500}")


def table(headers: Sequence[str], rows: Iterable[Sequence[str | int | None]], *, most: int = _MOST_ROWS) -> str:
    r"""A table; text is escaped, numbers are grouped, nothing is a dash. Longer than ``most``, and it says so.

    >>> print(table(("gpu", "runs"), [("a|b", 1234), (None, 0)]))
    | gpu | runs |
    |---|---:|
    | a\|b | 1,234 |
    | – | 0 |
    """
    listed = list(rows)
    kinds = [{type(row[place]) for row in listed} - {NoneType} for place in range(len(headers))]
    numeric = [kind == {int} for kind in kinds]
    lines = [f"| {' | '.join(headers)} |", f"|{'|'.join('---:' if right else '---' for right in numeric)}|"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in listed[:most]]
    if len(listed) > most:
        lines.append(f"\n{len(listed) - most:,} more rows are left out here; the table `runs` has them all.")
    return "\n".join(lines)


def counted(number: int, thing: str) -> str:
    """A number and what it counts.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percentage(part: int, whole: int) -> str:
    """A share for people.

    >>> percentage(1, 3), percentage(0, 0), percentage(2, 2), percentage(999, 1000)
    ('33 %', '–', '100 %', '99.9 %')
    """
    if whole == 0:
        return "–"
    share = 100 * part / whole
    if 99 < share < 100 or 0 < share < 1:
        return f"{share:.1f} %"
    return f"{share:.0f} %"


def link(url: str | None) -> str:
    """A web address to click on; what is none is shown as text.

    >>> link("https://example.org/a?b=1"), link("javascript:alert(1)"), link(None)
    ('<https://example.org/a?b=1>', 'javascript:alert(1)', '')
    """
    if url is None:
        return ""
    return f"<{url}>" if _ADDRESS.fullmatch(url) else escaped(url)


def _cell(value: str | int | None) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:,}" if isinstance(value, int) else escaped(str(value))
