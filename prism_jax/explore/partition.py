"""Ways to compute a group of targets with kernels of ours: mappings, fusions, splits.

In: the stores of a group. Out: structures (`Variant`), which do not depend on sizes, and their
costs at given sizes, the best first. Partitions share most of their groups, so a search over
subsets costs little more than its distinct groups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from prism_jax.device import Device
from prism_jax.explore.closed import Closed
from prism_jax.explore.floors import one_kernel, work
from prism_jax.explore.library import library_seconds, traffic
from prism_jax.explore.mapping import Condition, mappings
from prism_jax.explore.pruning import Pruning
from prism_jax.explore.split import split
from prism_jax.explore.structure import KernelBuilder, Unfit
from prism_jax.explore.symbols import Asked, Evaluation, Symbols
from prism_jax.ir.counts import Number
from prism_jax.ir.nodes import Axis, Store
from prism_jax.ir.sgraph import Kernel


@dataclass
class Counts:
    """What the search did, by kind; every cut is counted under its reason.

    `cut_by_bound`: partitions whose bound is no better than a measured time (sound).
    `cut_by_model`: partitions cut against the best estimate. `cut_by_limit`: mappings beyond the
    limit, of the groups that were costed. `cut_by_climbing`: sets of reductions that local search
    passed over. `cut_by_time`: those that the budget left. `crowded_out`: structures of a group
    beyond its limit. `reopened`: partitions cut at the family's last size and not at this one.
    """

    kernels: int = 0
    structures: int = 0
    partitions: int = 0
    unfit: int = 0
    oversized: int = 0
    cut_by_bound: int = 0
    cut_by_model: int = 0
    cut_by_limit: int = 0
    cut_by_climbing: int = 0
    cut_by_time: int = 0
    crowded_out: int = 0
    duplicates: int = 0
    reopened: int = 0


class Deadline(Exception):
    """The budget is used up."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One structure: kernels that run one after the other, and what it is in words."""

    closed: tuple[Closed, ...]
    why: str

    @cached_property
    def shape(self) -> Hashable:
        """What makes it another structure than a variant that only holds what it loops over."""
        return tuple(map(_shape, self.kernels))

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels, in order."""
        return tuple(c.kernel for c in self.closed)


@dataclass(eq=False)
class Group:
    """Stores that are computed together. `variants` are made when they are first asked for;
    `left_out`: how many mappings were then beyond the limit.
    """

    name: str
    stores: tuple[Store, ...]
    variants: tuple[Variant, ...] | None = None
    left_out: int = 0
    recorded: dict[Hashable, Number] = field(default_factory=dict[Hashable, Number])

    def seconds(self, what: str, evaluation: Evaluation) -> float:
        """One of `_SECONDS`, recorded when it is first asked for; the least, if it has many."""
        key = what, evaluation.key
        number = self.recorded.get(key)
        if number is None:
            number = _SECONDS[what](self.stores, evaluation.device, evaluation.asked)
            self.recorded[key] = number
        [found] = evaluation.of(number)
        return float(np.min(found))


_SECONDS: Mapping[str, Callable[[tuple[Store, ...], Device, Asked], Number]] = {
    "library": library_seconds,
    "work": work,
    "one kernel": one_kernel,
    "traffic": traffic,
    "certain traffic": lambda stores, device, sizes: traffic(stores, device, sizes, True),
}


class Structures:
    """All groups that a search has met, and the structures of those that it looked into.

    What is here depends on sizes only through `conditions`.
    """

    def __init__(self, compute: str, pruning: Pruning) -> None:
        self.compute, self.pruning = compute, pruning
        self.groups: dict[tuple[Store, ...], Group] = {}
        self.conditions: set[Condition] = set()
        self.symbols = Symbols()
        self._closed: dict[Kernel, Closed] = {}

    def closed(self, kernel: Kernel) -> Closed:
        """The closed forms of a kernel; equal kernels have the same."""
        found = self._closed.get(kernel)
        if found is None:
            found = self._closed[kernel] = Closed(kernel, self.symbols)
        return found

    def group(self, name: str, stores: tuple[Store, ...]) -> Group:
        """The group of these stores, whatever partition or form it comes from."""
        found = self.groups.get(stores)
        if found is None:
            found = self.groups[stores] = Group(name, stores)
        return found

    def variants(self, group: Group, counts: Counts, deadline: float) -> tuple[Variant, ...]:
        """The group's structures. Raises `Deadline`, and then has none yet."""
        if group.variants is None:
            found: list[Variant] = []
            beyond: list[int] = []
            for roles in mappings(
                group.stores, self.pruning.mappings, self.conditions, beyond.append
            ):
                if time.perf_counter() > deadline:
                    raise Deadline
                found += self._fusions(group, roles, counts)
            group.variants, group.left_out = tuple(found), sum(beyond)
        return group.variants

    def _fusions(self, group: Group, roles: dict[Axis, str], counts: Counts) -> Iterable[Variant]:
        """The kernel with cascades, and without them where that is another kernel."""
        seen: list[Kernel] = []
        for fuse in (True, False):
            counts.kernels += 1
            builder = KernelBuilder(group.name, group.stores, roles, fuse)
            try:
                kernel = builder.build()
            except Unfit:
                counts.unfit += 1
                continue
            if kernel not in seen:
                seen.append(kernel)
                yield from self._whole_and_split(builder, kernel)

    def _whole_and_split(self, builder: KernelBuilder, kernel: Kernel) -> Iterable[Variant]:
        why = _words(kernel)
        yield Variant((self.closed(kernel),), why)
        for recompute in (False, True):
            try:
                made = split(builder, kernel, self.compute, recompute)
            except Unfit:
                continue
            both = (self.closed(made.parts), self.closed(made.combine))
            yield Variant(both, f"{why}, split over {made.axis.name[2:]}")


def _shape(node: Kernel) -> Hashable:
    loops = (
        (
            lp.axis.name,
            lp.split and lp.split.name,
            tuple((a.monoid, a.summand) for a in lp.accumulators),
            tuple(q.axis.name for q in lp.inner),
            len(lp.stores),
        )
        for lp in node.loops
    )
    grid = tuple(g.axis.name for g in node.grid)
    return grid, tuple(loops), tuple(s.value for s in node.stores)


def _words(kernel: Kernel) -> str:
    loops = []
    for loop in kernel.loops:
        carried = sum(a.rescale is not None for a in loop.accumulators)
        text = f"loop {loop.axis} with {len(loop.accumulators)} accumulators"
        loops.append(text + (f", {carried} rescaled" if carried else ""))
    return "; ".join(loops) or "no loop"
