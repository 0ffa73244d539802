"""The order of the items in each row of a layered drawing, with few crossings."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_SWEEPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A node, or with width 0 an edge from that node which passes the row."""

    row: int
    node: int
    width: float


Link = tuple[Item, Item]  # from an item to one of the next row
Rows = Sequence[Sequence[Item]]


def ordered(rows: Rows, links: Sequence[Link]) -> list[list[Item]]:
    """Sort each row so that few links cross: repeated sweeps by the mean of the neighbours' places.

    Source: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", IEEE
    Transactions on Systems, Man, and Cybernetics 11(2), 1981.
    """
    above, below = defaultdict(list), defaultdict(list)
    for upper, lower in links:
        above[lower].append(upper)
        below[upper].append(lower)
    current = [list(row) for row in rows]
    best, fewest = current, crossings(current, links)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        current = [list(row) for row in current]
        numbers = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for number in numbers:
            fixed = current[number - 1] if sweep % 2 == 0 else current[number + 1]
            _sort(current[number], fixed, above if sweep % 2 == 0 else below)
        found = crossings(current, links)
        if found < fewest:
            best, fewest = current, found
    return best


def _sort(row: list[Item], fixed: Sequence[Item], neighbours: dict[Item, list[Item]]) -> None:
    places = {item: place for place, item in enumerate(fixed)}
    means = {}
    for place, item in enumerate(row):
        near = [places[other] for other in neighbours[item]]
        means[item] = sum(near) / len(near) if near else float(place)
    row.sort(key=means.__getitem__)


def crossings(rows: Rows, links: Sequence[Link]) -> int:
    """How many pairs of links cross, by counting inversions."""
    places = {item: place for row in rows for place, item in enumerate(row)}
    pairs = defaultdict(list)
    for upper, lower in links:
        pairs[upper.row].append((places[upper], places[lower]))
    total = 0
    for ends in pairs.values():
        seen: list[int] = []
        for _, end in sorted(ends):
            place = bisect_right(seen, end)
            total += len(seen) - place
            seen.insert(place, end)
    return total
