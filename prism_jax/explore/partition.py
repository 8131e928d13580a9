"""Ways to compute a group of targets with kernels of ours: mappings, fusions, splits.

In: the stores of a group. Out: structures (`Variant`), which do not depend on sizes, and their
costs at given sizes, the best first. Partitions share most of their groups, so a search over
subsets costs little more than its distinct groups.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.explore.bounds import least_estimate
from prism_jax.explore.closed import Closed, Sizes, Times
from prism_jax.explore.library import Costed, by_library, library_seconds, products, traffic
from prism_jax.explore.mapping import Condition, mappings
from prism_jax.explore.pruning import Pruning
from prism_jax.explore.split import split
from prism_jax.explore.structure import KernelBuilder, Unfit
from prism_jax.explore.symbols import Measures, Recorded
from prism_jax.ir.counts import Number
from prism_jax.ir.nodes import Axis, Store
from prism_jax.ir.sgraph import Kernel


@dataclass
class Counts:
    """What the search did, by kind; every cut is counted under its reason.

    `cut_by_bound`: partitions whose bound is no better than a measured time (sound).
    `cut_by_model`: partitions cut against the best estimate. `cut_by_limit`: mappings beyond the
    limit. `cut_by_climbing`: sets of reductions that local search passed over. `cut_by_time`: those
    that the budget left. `crowded_out`: structures of a group beyond its limit. `reopened`:
    partitions cut at the family's last size and not at this one.
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
    def shape(self) -> str:
        """What makes it another structure than a variant that only holds what it loops over."""
        return repr([_shape(kernel) for kernel in self.kernels])

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels, in order."""
        return tuple(c.kernel for c in self.closed)


@dataclass(eq=False)
class Group:
    """Stores that are computed together. `variants` are made when they are first asked for."""

    name: str
    stores: tuple[Store, ...]
    variants: tuple[Variant, ...] | None = None
    recorded: dict[Hashable, Recorded] = field(default_factory=dict[Hashable, Recorded])

    def seconds(self, what: str, device: Device, sizes: Sizes) -> float:
        """One of `_SECONDS`, recorded when it is first asked for."""
        precisions = sizes.precisions
        key = (what, device, tuple(precisions.items()))
        if key not in self.recorded:
            compute = _SECONDS[what]
            self.recorded[key] = Recorded(lambda s: compute(self.stores, device, s), precisions)
        return self.recorded[key].at(sizes)


_SECONDS: Mapping[str, Callable[[tuple[Store, ...], Device, Measures], Number]] = {
    "library": library_seconds,
    "products": products,
    "traffic": traffic,
    "certain traffic": lambda stores, device, sizes: traffic(stores, device, sizes, True),
}


class Structures:
    """All groups that a search has met, and the structures of those that it looked into.

    What is here depends on sizes only through `conditions`.
    """

    def __init__(self, compute: str, pruning: Pruning) -> None:
        self.compute, self.pruning = compute, pruning
        self.groups: dict[tuple[str, ...], Group] = {}
        self.conditions: set[Condition] = set()
        self._closed: dict[str, Closed] = {}

    def group(self, name: str, stores: tuple[Store, ...]) -> Group:
        """The group of these stores, whatever partition or form it comes from."""
        key = tuple(f"{s.tensor}{s.value.digest}{s.index}" for s in stores)
        if key not in self.groups:
            self.groups[key] = Group(name, stores)
        return self.groups[key]

    def variants(self, group: Group, counts: Counts, deadline: float) -> tuple[Variant, ...]:
        """The group's structures. Raises `Deadline`, and then has none yet."""
        if group.variants is None:
            found: list[Variant] = []

            def left_out(count: int) -> None:
                counts.cut_by_limit += count

            for roles in mappings(group.stores, self.pruning.mappings, self.conditions, left_out):
                if time.perf_counter() > deadline:
                    raise Deadline
                found += self._fusions(group, roles, counts)
            group.variants = tuple(found)
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
        yield Variant((Closed(kernel),), why)
        for recompute in (False, True):
            try:
                made = split(builder, kernel, self.compute, recompute)
            except Unfit:
                continue
            both = (Closed(made.parts), Closed(made.combine))
            yield Variant(both, f"{why}, split over {made.axis.name[2:]}")


class Costs:
    """Times of groups on one device at given sizes; every group is costed once."""

    def __init__(
        self, structures: Structures, device: Device, sizes: Sizes, counts: Counts, deadline: float
    ) -> None:
        self.structures, self.device, self.sizes = structures, device, sizes
        self.counts, self.deadline = counts, deadline
        self.lowest: dict[Group, float] = {}
        """The lowest bound of anything that computes a group, of those that were costed."""
        self._ours: dict[Group, tuple[Costed, ...]] = {}
        self._library: dict[Group, Costed] = {}
        self._traffic: dict[Group, float] = {}
        self._floors: dict[Group, float] = {}

    def traffic(self, group: Group) -> float:
        """Seconds in which any implementation of the group moves its bytes."""
        if group not in self._traffic:
            self._traffic[group] = group.seconds("certain traffic", self.device, self.sizes)
        return self._traffic[group]

    def library(self, group: Group) -> Costed:
        """The group by XLA."""
        if group not in self._library:
            seconds, moved = group.seconds("library", self.device, self.sizes), self.traffic(group)
            self._library[group] = by_library(group.name, group.stores, seconds, moved, self.device)
        return self._library[group]

    def least(self, group: Group, alone: bool) -> float:
        """A lower bound on the estimate of every way to compute the group, the least estimate
        itself where the group is costed; `alone`: it is the whole program, which XLA's own version
        stands for already.
        """
        known = self._ours.get(group)
        exact = (costed.estimate for costed in known[:1]) if known is not None else ()
        ours = self._least(group) if known is None else min(exact, default=math.inf)
        return ours if alone else min(ours, self.library(group).estimate)

    def _least(self, group: Group) -> float:
        if group not in self._floors:
            moved, work = (
                group.seconds(w, self.device, self.sizes) for w in ("traffic", "products")
            )
            self._floors[group] = least_estimate(moved, work, self.device)
        return self._floors[group]

    def options(self, group: Group) -> tuple[Costed, ...]:
        """Ways to compute the group with kernels of ours, best estimate first, at most a few; empty
        if there are none. Raises `Deadline`.
        """
        if group not in self._ours:
            best = self._variants(group)
            apart = self._apart(group)
            if apart is not None:
                self.lowest[group] = min(self.lowest[group], apart.bound)
                best = _sorted([*best, apart])
            self._ours[group] = best
        return self._ours[group]

    def _variants(self, group: Group) -> tuple[Costed, ...]:
        found: dict[str, Costed] = {}
        lowest = self.library(group).bound
        for variant in self.structures.variants(group, self.counts, self.deadline):
            if time.perf_counter() > self.deadline:
                raise Deadline
            costed = self._cost(variant)
            if costed is None:
                self.counts.oversized += 1
                continue
            lowest = min(lowest, costed.bound)
            same = variant.shape
            if same not in found or costed.estimate < found[same].estimate:
                found[same] = costed
        self.lowest[group] = lowest
        self.counts.structures += len(found)
        most = self.structures.pruning.options
        self.counts.crowded_out += max(0, len(found) - most)
        return _diverse(_sorted(found.values()), most)

    def _apart(self, group: Group) -> Costed | None:
        """Each store by a kernel of its own, where they have grids of their own: sharing a kernel
        leaves the smaller grid to all of them.
        """
        if len({len(store.index) for store in group.stores}) == 1:
            return None
        singles: list[Costed] = []
        for store in group.stores:
            one = self.structures.group(f"{group.name}_{store.tensor.name}", (store,))
            options = (*self.options(one)[:1], self.library(one))
            singles.append(min(options, key=lambda c: c.estimate))
        if not any(isinstance(n, Kernel) for c in singles for n in c.nodes):
            return None
        return Costed(
            tuple(n for c in singles for n in c.nodes),
            sum(c.bound for c in singles),
            sum(c.estimate for c in singles),
            (),
            " + ".join(c.why for c in singles),
            tuple(singles),
        )

    def _cost(self, variant: Variant) -> Costed | None:
        """The best sizes of a variant, None if none fit; a symbol that its kernels share (the
        number of parts of a split) has one value.
        """
        times = [closed.at(self.device, self.sizes) for closed in variant.closed]
        if not all(t.fits for t in times):
            return None
        kernels = variant.kernels
        shared = [s for s in kernels[0].symbols if s.startswith("S_")] if len(times) > 1 else []
        if not shared:
            picks = [int(np.argmin(t.estimates)) for t in times]
            total = sum(float(t.estimates.flat[p]) for t, p in zip(times, picks, strict=True))
            least = sum(float(t.bounds.min()) for t in times)
            return Costed(kernels, least, total, _chosen(kernels, times, picks), variant.why)
        [symbol] = shared
        parts = min(len(t.values[symbol]) for t in times)  # a long table leaves the first ones
        totals, bounds = np.zeros(parts), np.zeros(parts)
        rows: list[npt.NDArray[np.intp]] = []
        for t in times:
            estimates, own = _by(symbol, t, t.estimates)[:parts], _by(symbol, t, t.bounds)[:parts]
            places = _by(symbol, t, np.arange(t.estimates.size).reshape(t.estimates.shape))
            best = np.argmin(estimates, axis=1)
            rows.append(places[np.arange(parts), best])
            totals += estimates[np.arange(parts), best]
            bounds += own.min(axis=1)
        pick = int(np.argmin(totals))
        if not math.isfinite(totals[pick]):
            return None
        picks = [int(row[pick]) for row in rows]
        chosen = _chosen(kernels, times, picks)
        return Costed(kernels, float(bounds.min()), float(totals[pick]), chosen, variant.why)


def _by(symbol: str, times: Times, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array over all assignments as one row for each value of the symbol."""
    dimension = list(times.values).index(symbol)
    rows = np.moveaxis(array, dimension, 0)
    return rows.reshape(len(rows), -1)


def _chosen(
    kernels: tuple[Kernel, ...], times: list[Times], picks: list[int]
) -> tuple[tuple[str, int], ...]:
    sizes: dict[str, int] = {}
    for kernel, known, row in zip(kernels, times, picks, strict=True):
        for symbol, value in known.sizes(row).items():
            sizes[symbol if symbol.startswith("S_") else f"{kernel.name}.{symbol}"] = value
    return tuple(sorted(sizes.items()))


def _sorted(found: Iterable[Costed]) -> tuple[Costed, ...]:
    return tuple(sorted(found, key=lambda c: (c.estimate, c.why)))


def _diverse(ranked: tuple[Costed, ...], most: int) -> tuple[Costed, ...]:
    """The best of every kind of structure, then the rest, at most `most`: what the accuracy
    contract will say is not known yet, and a two-pass variance must not be crowded out by
    near-copies of a one-pass one.
    """
    kinds: dict[str, Costed] = {}
    for costed in ranked:
        kinds.setdefault(costed.why, costed)
    rest = [c for c in ranked if c is not kinds[c.why]]
    return _sorted([*kinds.values(), *rest][:most])


def _shape(node: Kernel) -> object:
    loops = [
        (
            lp.axis.name,
            lp.split and lp.split.name,
            [(a.monoid, a.summand.digest) for a in lp.accumulators],
            [q.axis.name for q in lp.inner],
            len(lp.stores),
        )
        for lp in node.loops
    ]
    return [[g.axis.name for g in node.grid], loops, [s.value.digest for s in node.stores]]


def _words(kernel: Kernel) -> str:
    loops = []
    for loop in kernel.loops:
        carried = sum(a.rescale is not None for a in loop.accumulators)
        text = f"loop {loop.axis} with {len(loop.accumulators)} accumulators"
        loops.append(text + (f", {carried} rescaled" if carried else ""))
    return "; ".join(loops) or "no loop"
