"""Where to cut: equations grouped into convex sets, and long ones divided at narrow waists.

In: the items of a jaxpr. Out: groups in execution order, liftable or not. Invariants: every item
stands in one group, after all it reads; ordered items keep their order; no path leaves a liftable
group and comes back (each is a run of consecutive items of a valid order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prism_jax import compat
from prism_jax.extract.items import Item, nbytes, shape
from prism_jax.extract.repeat import Cheap

WINDOW = 64
"""How many items may be put off while a group grows past them."""


@dataclass
class Group:
    """Items that run one after the other, all of them liftable or none."""

    liftable: bool
    items: list[Item]


def schedule(items: Sequence[Item]) -> list[Group]:
    """Groups as long as possible, near program order.

    A liftable group takes every liftable item that does not depend on an unliftable one which
    depends on the group; unliftable items that do not depend on the group go before it.
    """
    groups: list[Group] = []
    waiting = list(items)
    while waiting:
        before: list[Item] = []
        chosen: list[Item] = []
        later: list[Item] = []
        inside: set[compat.Var] = set()
        heavy: set[compat.Var] = set()
        after: set[compat.Var] = set()
        ordered_later = False
        for number, item in enumerate(waiting):
            if len(later) >= WINDOW:
                later += waiting[number:]
                break
            late = (item.ordered and ordered_later) or not after.isdisjoint(item.reads)
            if not late and item.refused is None and heavy.isdisjoint(item.apart):
                chosen.append(item)
                inside.update(item.writes)
                if item.heavy or not heavy.isdisjoint(item.reads):
                    heavy.update(item.writes)
            elif late or not inside.isdisjoint(item.reads):
                later.append(item)
                after.update(item.writes)
                ordered_later |= item.ordered
            else:
                before.append(item)
        groups += [Group(False, before)] if before else []
        groups += [Group(True, chosen)] if chosen else []
        waiting = later
    return groups


def divide(items: Sequence[Item], bound: int, cheap: Cheap) -> list[list[Item]]:
    """Cuts a liftable group into runs of at most `bound` in weight, each at the narrowest place.

    The width of a place is what nearby items must hand over it; values that live far longer than
    a run are in memory wherever the cut is. Both depend only on the equations around, so equal
    layers of a network are cut alike.
    """
    width = waists(items, bound, cheap)
    pieces: list[list[Item]] = []
    start = 0
    while start < len(items):
        end, total, best = start, 0, len(items)
        narrowest: float = float("inf")
        while end < len(items) and (end == start or total + items[end].weight <= bound):
            total += items[end].weight
            end += 1
            if end < len(items) and total * 4 >= bound and width[end] <= narrowest:
                narrowest, best = width[end], end
        if end == len(items) or best == len(items):
            best = end
        pieces.append(list(items[start:best]))
        start = best
    return pieces


def waists(items: Sequence[Item], bound: int, cheap: Cheap) -> list[int]:
    """For each place before item n: the bytes defined before it that items near after it need."""
    place: dict[compat.Var, int] = {}
    last: dict[compat.Var, int] = {}
    travelled = [0]
    for number, item in enumerate(items):
        for var in cheap.roots(item):
            if var in place and travelled[number] - travelled[place[var]] <= bound:
                last[var] = number
        for var in item.writes:
            place[var] = number
        travelled.append(travelled[-1] + item.weight)
    change = [0] * (len(items) + 1)
    for var, end in last.items():
        change[place[var] + 1] += nbytes(var)
        change[end + 1] -= nbytes(var)
    width, now = [], 0
    for delta in change:
        now += delta
        width.append(now)
    return width


def halves(items: Sequence[Item], cheap: Cheap) -> list[list[Item]]:
    """A run cut in two or more where it is narrow near its middle; a single item stays whole."""
    weight = sum(item.weight for item in items)
    pieces = divide(items, max(1, weight // 2), cheap)
    if len(pieces) == 1 and len(items) > 1:
        middle = len(items) // 2
        return [list(items[:middle]), list(items[middle:])]
    return pieces


def components(items: Sequence[Item]) -> list[list[Item]]:
    """A run in parts that share no array: neither computed by one for another, nor read by both."""
    parent = list(range(len(items)))

    def find(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    owner: dict[compat.Var, int] = {}
    for number, item in enumerate(items):
        for var in (*item.reads, *item.writes):
            if shape(var) == ():
                continue  # numbers are cheap to hand to both
            other = owner.setdefault(var, number)
            first, second = sorted((find(other), find(number)))
            parent[second] = first
    scalars: dict[compat.Var, int] = {}
    for number, item in enumerate(items):
        for var in item.reads:
            if var in scalars:
                first, second = sorted((find(scalars[var]), find(number)))
                parent[second] = first
        for var in item.writes:
            if shape(var) == ():
                scalars[var] = number
    parts: dict[int, list[Item]] = {}
    for number, item in enumerate(items):
        parts.setdefault(find(number), []).append(item)
    return list(parts.values())
