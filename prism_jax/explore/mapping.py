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

Which roles an axis may play depends on its size only through a few comparisons; they are recorded
as `Condition`s, so that what was found at one size is known to be what there is at another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prism_jax.ir.nodes import Axis, Reduce, Store
from prism_jax.ir.program import walk

HELD_AT_MOST = 256
ROW_AT_MOST = 16384
LOOP_AT_LEAST = 32


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
    for node in walk(store.value for store in stores):
        if isinstance(node, Reduce):
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
    axes = list(found)
    every = itertools.product(*(found[a] for a in axes))
    for roles in itertools.islice(every, limit):
        yield dict(zip(axes, roles, strict=True))
    rest = sum(1 for _ in itertools.islice(every, 1 << 20))
    if rest:
        left_out(rest)
