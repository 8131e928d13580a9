"""What groups of targets cost on one device at given sizes.

In: structures of groups (`partition`), which do not depend on sizes. Out: for each group lower
bounds on the estimates of every way to compute it, from a look at its stores to the exact least,
each dearer to find than the one before; and the ways themselves, the best first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable
from functools import partial

import numpy as np

from prism_jax.device import Device
from prism_jax.explore.bounds import least_estimate
from prism_jax.explore.closed import Sizes, Times
from prism_jax.explore.library import Costed, by_library
from prism_jax.explore.library import Sizes as Chosen
from prism_jax.explore.partition import Counts, Deadline, Group, Structures, Variant
from prism_jax.explore.symbols import Evaluation
from prism_jax.ir.sgraph import Kernel

SLACK = 1 - 1e-9
"""For the last bits of a bound that is compared with what it bounds."""


class Costs:
    """Times of groups on one device at given sizes; every group is costed once."""

    def __init__(
        self, structures: Structures, device: Device, sizes: Sizes, counts: Counts, deadline: float
    ) -> None:
        self.structures, self.device = structures, device
        self.counts, self.deadline = counts, deadline
        self.evaluation = Evaluation(structures.symbols, device, sizes)
        self._every: dict[Group, tuple[Costed, ...]] = {}
        self._ours: dict[Group, tuple[Costed, ...]] = {}
        self._library: dict[Group, Costed] = {}
        self._traffic: dict[Group, float] = {}
        self._floors: dict[Group, float] = {}
        self._busy: dict[Group, float] = {}
        self._closer: dict[Group, float] = {}

    def traffic(self, group: Group) -> float:
        """Seconds in which any implementation of the group moves its bytes."""
        if group not in self._traffic:
            self._traffic[group] = group.seconds("certain traffic", self.evaluation)
        return self._traffic[group]

    def library(self, group: Group) -> Costed:
        """The group by XLA."""
        if group not in self._library:
            seconds, moved = group.seconds("library", self.evaluation), self.traffic(group)
            self._library[group] = by_library(group.name, group.stores, seconds, moved, self.device)
        return self._library[group]

    # --- how little a group may cost

    def least(self, group: Group, alone: bool) -> float:
        """A lower bound on the estimate of every way to compute the group, the least estimate
        itself where the group is costed; `alone`: it is the whole program, which XLA's own version
        stands for already.
        """
        known = self._ours.get(group)
        if known is None:
            ours = self._closer.get(group) or self._floors.get(group) or self._moved(group)
        else:
            ours = known[0].estimate if known else math.inf
        return ours if alone else min(ours, self.library(group).estimate)

    def _moved(self, group: Group) -> float:
        """By what the group moves and computes, with every block busy."""
        if group not in self._busy:
            moved, work = (group.seconds(w, self.evaluation) for w in ("traffic", "work"))
            self._busy[group] = least_estimate(moved, work, self.device)
        return self._busy[group]

    def glance(self, group: Group) -> float:
        """Brings `least` closer by the grids that its stores allow, without any structure."""
        if group not in self._floors:
            moved = self._moved(group)
            one = SLACK * group.seconds("one kernel", self.evaluation)
            split = moved + least_estimate(0.0, 0.0, self.device)
            found = min(one, split)
            singles = self._singles(group)
            if singles:
                apart = (min(self.glance(s), self.library(s).estimate) for s in singles)
                found = min(found, sum(apart))
            self._floors[group] = max(moved, found)
        return self._floors[group]

    def known(self, group: Group) -> bool:
        """Whether `look` costs little, as the group's structures are there."""
        return group.variants is not None

    def look(self, group: Group) -> None:
        """Brings `least` closer by what the group's structures move and compute. Raises `Deadline`,
        as `options` does.
        """
        if group in self._closer or group in self._ours:
            return
        variants = self.structures.variants(group, self.counts, self.deadline)
        found = min(
            (sum(c.least(self.evaluation) for c in v.closed) for v in variants), default=math.inf
        )
        singles = self._singles(group)
        if singles:
            for one in singles:
                self.look(one)
            found = min(found, sum(self.least(one, alone=False) for one in singles))
        self._closer[group] = max(self.glance(group), SLACK * found)

    # --- ways to compute it

    def options(self, group: Group) -> tuple[Costed, ...]:
        """Ways to compute the group with kernels of ours, best estimate first, at most a few; empty
        if there are none. Raises `Deadline`.
        """
        if group not in self._ours:
            best = self._variants(group)
            apart = self._apart(group)
            if apart is not None:
                self._every[group] = (*self._every[group], apart)
                best = _sorted([*best, apart])
            self._ours[group] = best
        return self._ours[group]

    def lowest(self, group: Group) -> float:
        """The lowest bound of anything that computes a group."""
        self.options(group)
        return min([self.library(group).bound, *(c.bound for c in self._every[group])])

    def left_out(self, group: Group) -> int:
        """How many mappings of a group that was costed were not looked at."""
        return group.left_out + sum(one.left_out for one in self._singles(group))

    def _variants(self, group: Group) -> tuple[Costed, ...]:
        found: dict[Hashable, Costed] = {}
        every: list[Costed] = []
        for variant in self.structures.variants(group, self.counts, self.deadline):
            if time.perf_counter() > self.deadline:
                raise Deadline
            costed = self._cost(variant)
            if costed is None:
                self.counts.oversized += 1
                continue
            every.append(costed)
            same = variant.shape
            if same not in found or costed.estimate < found[same].estimate:
                found[same] = costed
        self._every[group] = tuple(every)
        self.counts.structures += len(found)
        most = self.structures.pruning.options
        self.counts.crowded_out += max(0, len(found) - most)
        return _diverse(_sorted(found.values()), most)

    def _singles(self, group: Group) -> list[Group]:
        """Each store as a group, where they have grids of their own: sharing a kernel leaves the
        smaller grid to all of them.
        """
        if len({len(store.index) for store in group.stores}) == 1:
            return []
        group_of = self.structures.group
        return [group_of(f"{group.name}_{s.tensor.name}", (s,)) for s in group.stores]

    def _apart(self, group: Group) -> Costed | None:
        """The stores by kernels of their own."""
        chosen: list[Costed] = []
        for one in self._singles(group):
            options = (*self.options(one)[:1], self.library(one))
            chosen.append(min(options, key=lambda c: c.estimate))
        if not any(isinstance(n, Kernel) for c in chosen for n in c.nodes):
            return None
        return Costed(
            tuple(n for c in chosen for n in c.nodes),
            sum(c.estimate for c in chosen),
            " + ".join(c.why for c in chosen),
            lambda: (sum(c.bound for c in chosen), ()),
            tuple(chosen),
        )

    def _cost(self, variant: Variant) -> Costed | None:
        """The best sizes of a variant, None if none fit; a symbol that its kernels share (the
        number of parts of a split) has one value.
        """
        times = [closed.at(self.evaluation) for closed in variant.closed]
        if not all(math.isfinite(t.least) for t in times):
            return None
        kernels = variant.kernels
        shared = [s for s in kernels[0].symbols if s.startswith("S_")] if len(times) > 1 else []
        if not shared:
            total = sum(t.least for t in times)
            return Costed(kernels, total, variant.why, partial(_details, kernels, times))
        [symbol] = shared
        parts = min(len(t.values[symbol]) for t in times)  # a long table leaves the first ones
        totals = np.zeros(parts)
        for t in times:
            totals = totals + t.along(symbol, t.estimates, parts)
        pick = int(np.argmin(totals))
        total = float(totals[pick])
        if not math.isfinite(total):
            return None
        details = partial(_details, kernels, times, symbol, parts, pick)
        return Costed(kernels, total, variant.why, details)


def _details(
    kernels: tuple[Kernel, ...], times: list[Times], shared: str | None = None, parts: int = 0,
    pick: int = 0,
) -> tuple[float, Chosen]:  # fmt: skip
    """Bound and sizes of kernels, which share a symbol's value of the given number."""
    if shared is None:
        least = sum(float(t.bounds.min()) for t in times)
    else:
        bounds = np.zeros(parts)
        for t in times:
            bounds = bounds + t.along(shared, t.bounds, parts)
        least = float(bounds.min())
    sizes: dict[str, int] = {}
    for kernel, known in zip(kernels, times, strict=True):
        for symbol, value in known.choice(shared, pick).items():
            sizes[symbol if symbol.startswith("S_") else f"{kernel.name}.{symbol}"] = value
    return least, tuple(sorted(sizes.items()))


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
