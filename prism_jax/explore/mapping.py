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
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from prism_jax.ir.nodes import Axis, Reduce, Store
from prism_jax.ir.program import walk

HELD_AT_MOST = 256
ROW_AT_MOST = 16384
LOOP_AT_LEAST = 32


def role_choices(stores: tuple[Store, ...]) -> dict[Axis, tuple[str, ...]]:
    """The roles that each axis may play, most promising first."""
    indexed = [{a for index in store.index for a in index.axes_free} for store in stores]
    common = set.intersection(*indexed)
    anywhere = set.union(*indexed)
    bound: set[Axis] = set()
    for node in walk(store.value for store in stores):
        if isinstance(node, Reduce):
            bound.update(node.axes)
    found: dict[Axis, tuple[str, ...]] = {}
    for axis in sorted(anywhere | bound):
        size = axis.size if isinstance(axis.size, int) else 0
        if axis in anywhere and axis in bound:
            held = ("held",) if size <= ROW_AT_MOST else ()
            found[axis] = (*held, "loop", *(("grid",) if axis in common else ()))
        elif axis in common:
            found[axis] = ("grid",)
        elif axis in anywhere:
            found[axis] = ("held", "loop") if size <= HELD_AT_MOST else ("loop",)
        elif isinstance(axis.size, str) or size < LOOP_AT_LEAST:
            found[axis] = ("held",)
        else:
            found[axis] = ("loop", "held") if size <= HELD_AT_MOST else ("loop",)
    return found


def mappings(stores: tuple[Store, ...], limit: int = 32) -> Iterator[dict[Axis, str]]:
    """Role assignments for one kernel, at most `limit`."""
    found = role_choices(stores)
    axes = list(found)
    for roles in itertools.islice(itertools.product(*(found[a] for a in axes)), limit):
        yield dict(zip(axes, roles, strict=True))
