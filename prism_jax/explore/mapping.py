"""Candidate mappings: which role each axis of a kernel may play.

In: the stores that a kernel writes. Out: role assignments, few and in a fixed order, with the
reason for each restriction in one place:

* an axis that every store is indexed by may be split over the grid, because blocks then write
  disjoint elements;
* an axis that is reduced over at the top level may be looped over or held; the two coincide when
  one tile covers it;
* an axis that is both stored and reduced over (a softmax that is written out) may be held, looped
  over again, or split;
* an axis that is reduced over inside a loop step is held where a tile of it fits, else it is an
  inner loop.

A role is a mapping of the axis to parallel dimensions (Prism's m(axis, p)): "grid" to one of the
grid, "loop" to one of the loop, "held" to none. `assignments` enumerates mappings, of a kernel's
axes here and of single tensor dimensions where the paper's mapping space is counted; mappings that
differ by a permutation of the grid's dimensions are one.

Which roles an axis may play depends on its size only through a few comparisons; they are recorded
as `Condition`s, so that what was found at one size is known to be what there is at another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prism_jax.ir.nodes import Axis, Store
from prism_jax.ir.program import contents

HELD_AT_MOST = 256
ROW_AT_MOST = 16384
LOOP_AT_LEAST = 32


@dataclass(frozen=True)
class Split:
    """What splits a dimension: a dimension of the grid (its number) or none, and perhaps a loop."""

    grid: int | None = None
    loop: bool = False


Key = TypeVar("Key", bound=Hashable)
SPLITS: Mapping[str, tuple[bool, bool]] = {
    "held": (False, False),
    "loop": (False, True),
    "grid": (True, False),
    "grid and loop": (True, True),
}


def assignments(
    allowed: Mapping[Key, Sequence[str]],
    tensors: Sequence[Sequence[Key]] = (),
    grid: int | None = None,
    loops: int | None = None,
    canonical: bool = True,
) -> Iterator[dict[Key, Split]]:
    """Every mapping of dimensions to parallel dimensions, in the order of `allowed`.

    A key of `allowed` is a class of dimensions that are split alike (an axis). Of the dimensions of
    one tensor, none are split by the same dimension of the grid, and at most `loops` by loops.
    `grid` and `loops` of None: as many as there are keys. `canonical`: one of the mappings that
    differ only by a permutation of the grid's dimensions, which are numbered as they are first
    used.
    """
    keys = list(allowed)
    beside: dict[Key, list[Key]] = {key: [] for key in keys}
    place = {key: n for n, key in enumerate(keys)}
    for dims in tensors:
        for key in dims:
            beside[key] += [k for k in dims if place[k] < place[key]]
    most = len(keys) if grid is None else grid
    held_apart = {key: list(dict.fromkeys(others)) for key, others in beside.items()}
    tuples = [tuple(dims) for dims in tensors]
    found: dict[Key, Split] = {}

    def fits(key: Key, split: Split) -> bool:
        if split.grid is not None and any(found[k].grid == split.grid for k in held_apart[key]):
            return False
        if not split.loop or loops is None:
            return True
        looped = (sum(found[k].loop for k in dims if k in found) for dims in tuples if key in dims)
        return all(count < loops for count in looped)

    def extend(n: int, used: int) -> Iterator[dict[Key, Split]]:
        if n == len(keys):
            yield dict(found)
            return
        key = keys[n]
        for role in allowed[key]:
            gridded, looped = SPLITS[role]
            numbers: Iterable[int | None] = (None,)
            if gridded:
                numbers = range(min(used + 1, most) if canonical else most)
            for number in numbers:
                split = Split(number, looped)
                if fits(key, split):
                    found[key] = split
                    yield from extend(n + 1, used + (number == used and number is not None))
                    del found[key]

    yield from extend(0, 0)


@dataclass(frozen=True, order=True)
class Condition:
    """`axis <= limit` is `holds`."""

    axis: str
    limit: int
    holds: bool

    def __str__(self) -> str:
        return f"{self.axis} {'<=' if self.holds else '>'} {self.limit}"

    def met(self, size: int) -> bool:
        """Whether an axis of this size gives the same answer."""
        return (size <= self.limit) == self.holds


def role_choices(
    stores: tuple[Store, ...], conditions: set[Condition] | None = None
) -> dict[Axis, tuple[str, ...]]:
    """The roles that each axis may play, most promising first; the comparisons of sizes that were
    made are added to `conditions`.
    """
    indexed = [{a for index in store.index for a in index.axes_free} for store in stores]
    common = set.intersection(*indexed)
    anywhere = set.union(*indexed)
    bound: set[Axis] = set()
    for store in stores:
        for node in contents(store.value).reductions:
            bound.update(node.axes)
    found: dict[Axis, tuple[str, ...]] = {}
    for axis in sorted(anywhere | bound):
        found[axis] = _roles(axis, axis in common, axis in anywhere, axis in bound, conditions)
    return found


def _roles(
    axis: Axis, common: bool, stored: bool, bound: bool, conditions: set[Condition] | None
) -> tuple[str, ...]:
    def at_most(limit: int) -> bool:
        size = axis.size if isinstance(axis.size, int) else 0
        if conditions is not None and isinstance(axis.size, int):
            conditions.add(Condition(axis.name, limit, size <= limit))
        return size <= limit

    if stored and bound:
        held = ("held",) if at_most(ROW_AT_MOST) else ()
        return (*held, "loop", *(("grid",) if common else ()))
    if common:
        return ("grid",)
    if stored:
        return ("held", "loop") if at_most(HELD_AT_MOST) else ("loop",)
    if isinstance(axis.size, str) or at_most(LOOP_AT_LEAST - 1):
        return ("held",)
    return ("loop", "held") if at_most(HELD_AT_MOST) else ("loop",)


def _role(split: Split) -> str:
    return "grid" if split.grid is not None else "loop" if split.loop else "held"


def mappings(
    stores: tuple[Store, ...],
    limit: int = 32,
    conditions: set[Condition] | None = None,
    left_out: Callable[[int], None] = lambda count: None,
) -> Iterator[dict[Axis, str]]:
    """Role assignments for one kernel, at most `limit`; `left_out` is told how many there are
    beyond it.
    """
    found = role_choices(stores, conditions)
    every = assignments(found, [tuple(found)])
    for mapping in itertools.islice(every, limit):
        yield {axis: _role(split) for axis, split in mapping.items()}
    rest = math.prod(map(len, found.values())) - limit  # nothing limits them: each is one mapping
    if rest > 0:
        left_out(rest)
