"""The x of every item of a layered drawing: chains run straight, nothing overlaps.

Source: Brandes, Köpf, "Fast and Simple Horizontal Coordinate Assignment", Graph Drawing 2001. Items are joined to
blocks that share one x, once from each of the four corners, and an item gets the mean of its two middle places, or its
place in the narrowest of the four where that makes a narrower drawing. Blocks are placed by longest path over who is
left of whom, which avoids the errors in the paper's own compaction.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.report.graph_order import Item, Link, Rows

_SPACE = 14.0  # between two items
_PULLS = 20  # rounds of the last correction
_SAME = 0.05  # px between what counts as one x

Neighbours = Mapping[Item, Sequence[Item]]


def columns(rows: Rows, links: Sequence[Link]) -> dict[Item, float]:
    """The middle of each item in px."""
    crossed = _crossed_by_passing(rows, links)
    candidates = []
    for down in (True, False):
        for right in (True, False):
            ordered = [list(row) if right else list(row)[::-1] for row in (rows if down else rows[::-1])]
            roots = _blocks(ordered, _neighbours(ordered, links, down=down), crossed)
            x = _placed(ordered, roots)
            candidates.append(x if right else {item: -place for item, place in x.items()})
    found = [_drawn_together(rows, links, x) for x in (_combined(candidates), min(candidates, key=_width))]
    return min(found, key=_width)


def _width(x: Mapping[Item, float]) -> float:
    return max(x.values()) - min(x.values())


def _neighbours(rows: Rows, links: Sequence[Link], *, down: bool) -> Neighbours:
    """Of each item those in the row before it, in their order."""
    places = {item: place for row in rows for place, item in enumerate(row)}
    found = defaultdict(list)
    for upper, lower in links:
        mine, other = (lower, upper) if down else (upper, lower)
        found[mine].append(other)
    return {item: sorted(others, key=places.__getitem__) for item, others in found.items()}


def _crossed_by_passing(rows: Rows, links: Sequence[Link]) -> set[Link]:
    """Links that cross one between two passing edges: those give way, so that long edges are straight."""
    places = {item: place for row in rows for place, item in enumerate(row)}
    by_row = defaultdict(list)
    for upper, lower in links:
        by_row[upper.row].append((upper, lower))
    crossed = set()
    for row_links in by_row.values():
        long = [link for link in row_links if not link[0].width and not link[1].width]
        for upper, lower in row_links:
            for a, b in long:
                if (places[upper] - places[a]) * (places[lower] - places[b]) < 0:
                    crossed.add((upper, lower))
    return crossed - {link for link in crossed if not link[0].width and not link[1].width}


def _blocks(rows: Rows, neighbours: Neighbours, crossed: set[Link]) -> dict[Item, Item]:
    """The first item of each item's block: each is joined with a middle neighbour that is free."""
    roots = {item: item for row in rows for item in row}
    places = {item: place for row in rows for place, item in enumerate(row)}
    for row in rows:
        reached = -1
        for item in row:
            near = neighbours.get(item, ())
            for middle in sorted({(len(near) - 1) // 2, len(near) // 2}) if near else ():
                other = near[middle]
                free = reached < places[other] and not {(item, other), (other, item)} & crossed
                if free and roots[item] is item:
                    roots[item] = roots[other]
                    reached = places[other]
    return roots


def _placed(rows: Rows, roots: Mapping[Item, Item]) -> dict[Item, float]:
    """As far left as the distances allow, then as far right as that does not push others: each block in its gap."""
    apart: dict[Item, dict[Item, float]] = {root: {} for root in roots.values()}
    before: dict[Item, dict[Item, float]] = {root: {} for root in roots.values()}
    for row in rows:
        for left, right in pairwise(row):
            a, b = roots[left], roots[right]
            apart[a][b] = before[b][a] = max(_distance(left, right), apart[a].get(b, 0.0))
    order = _topological(apart, before)
    x: dict[Item, float] = {}
    for root in order:
        x[root] = max((x[other] + distance for other, distance in before[root].items()), default=0.0)
    for root in reversed(order):
        if apart[root]:
            x[root] = max(x[root], min(x[other] - distance for other, distance in apart[root].items()))
    return {item: x[root] for item, root in roots.items()}


def _topological(apart: Mapping[Item, Mapping[Item, float]], before: Mapping[Item, Mapping[Item, float]]) -> list[Item]:
    waiting = {root: len(others) for root, others in before.items()}
    ready = [root for root, count in waiting.items() if count == 0]
    order = []
    while ready:
        root = ready.pop()
        order.append(root)
        for other in apart[root]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    return order


def _combined(candidates: Sequence[Mapping[Item, float]]) -> dict[Item, float]:
    """All four moved over the narrowest, then the mean of the two middle places of each item."""
    narrowest = min(candidates, key=_width)
    low, high = min(narrowest.values()), max(narrowest.values())
    moved = []
    for number, x in enumerate(candidates):
        shift = low - min(x.values()) if number % 2 == 0 else high - max(x.values())
        moved.append({item: place + shift for item, place in x.items()})
    result = {}
    for item in narrowest:
        places = sorted(x[item] for x in moved)
        result[item] = (places[1] + places[2]) / 2
    return result


def _drawn_together(rows: Rows, links: Sequence[Link], x: Mapping[Item, float]) -> dict[Item, float]:
    """Move whole straight chains towards what they are linked with, as far as the distances allow."""
    moved = dict(x)
    chain_of = _chains(links, x)
    linked = defaultdict(list)
    for upper, lower in links:
        if chain_of[upper] is not chain_of[lower]:
            linked[id(chain_of[upper])].append((upper, lower))
            linked[id(chain_of[lower])].append((lower, upper))
    gaps = _gaps(rows)
    chains = list({id(chain): chain for chain in chain_of.values()}.values())
    for sweep in range(_PULLS):
        for chain in chains if sweep % 2 == 0 else reversed(chains):
            pulls = [moved[other] - moved[own] for own, other in linked[id(chain)]]
            if pulls:
                shift = _allowed(sum(pulls) / len(pulls), chain, gaps, moved)
                moved |= {item: moved[item] + shift for item in chain}
    return moved


def _allowed(wanted: float, chain: Sequence[Item], gaps: Mapping[Item, "_Gap"], x: Mapping[Item, float]) -> float:
    """The shift nearest to the wanted one that brings no item too near to its neighbours."""
    for item in chain:
        gap = gaps[item]
        if gap.left is not None:
            wanted = max(wanted, min(0.0, x[gap.left] + gap.left_distance - x[item]))
        if gap.right is not None:
            wanted = min(wanted, max(0.0, x[gap.right] - gap.right_distance - x[item]))
    return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """The neighbours of an item in its row, and how far their middles have to stay away."""

    left: Item | None
    left_distance: float
    right: Item | None
    right_distance: float


def _gaps(rows: Rows) -> dict[Item, _Gap]:
    found = {}
    for row in rows:
        for place, item in enumerate(row):
            left = row[place - 1] if place else None
            right = row[place + 1] if place + 1 < len(row) else None
            found[item] = _Gap(
                left=left,
                left_distance=_distance(left, item) if left else 0.0,
                right=right,
                right_distance=_distance(item, right) if right else 0.0,
            )
    return found


def _distance(left: Item, right: Item) -> float:
    return (left.width + right.width) / 2 + _SPACE


def _chains(links: Sequence[Link], x: Mapping[Item, float]) -> dict[Item, list[Item]]:
    """The straight chain of each item: items linked at the same x."""
    chains = {item: [item] for item in x}
    for upper, lower in links:
        if abs(x[upper] - x[lower]) < _SAME and chains[upper] is not chains[lower]:
            chains[upper].extend(chains[lower])
            for item in chains[lower]:
                chains[item] = chains[upper]
    return chains
