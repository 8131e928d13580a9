"""The search: from a program to ranked sGraphs (design, section 6).

For every algebraic form that the e-graph offers, for every set of reductions to materialise (all
sets where there are few, local improvement beyond), for every mapping and fusion of every kernel,
the closed forms give a bound and an estimate. Mapping and sizes stay symbolic until a structure has
survived, and what survived or was cut at one size is kept: at another size the cuts are decided
anew, and only what is no longer cut is looked into.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import NamedTuple

from prism_jax.device import Device
from prism_jax.explore.closed import OWN, Sizes
from prism_jax.explore.costs import Costs
from prism_jax.explore.grouping import groups, joined
from prism_jax.explore.library import Costed
from prism_jax.explore.partition import Counts, Deadline, Group, Structures
from prism_jax.explore.plans import Found, ranked
from prism_jax.explore.proof import Rest, floor
from prism_jax.explore.pruning import DEFAULT, Pruning
from prism_jax.explore.result import SearchResult
from prism_jax.explore.targets import Names, reductions, targets, widened
from prism_jax.ir.leaves import Rewriting
from prism_jax.ir.nodes import Node
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Kernel


@dataclass(frozen=True)
class Form:
    """An algebraic form of the program and the axioms that made it."""

    program: Program
    axioms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instance:
    """A program of a family: the program itself, its sizes, and how to write what was found at the
    family's own sizes at these (None: they are its own).
    """

    program: Program
    sizes: Sizes = OWN
    rewriting: Rewriting | None = None


def search(
    program: Program,
    forms: Sequence[Form],
    device: Device,
    seconds: float = 5.0,
    *,
    pruning: Pruning = DEFAULT,
    incumbent: float | None = None,
    saturated: bool = True,
) -> SearchResult:
    """Ranked sGraphs for a program; `forms` are equivalent programs, the program itself first.
    Keeps `seconds` within a kernel. `incumbent`: a measured time in seconds that plans must beat;
    `saturated`: whether `forms` come from an e-graph that holds all.
    """
    family = Search(program, forms, pruning, saturated)
    return family.at(Instance(program), device, time.perf_counter() + seconds, incumbent)


class Place(NamedTuple):
    """A partition: a form's number, the reductions that it materialises, and whether kernels are
    joined that need each other's results (`grouping.joined`).
    """

    form: int
    materialised: frozenset[Node]
    joined: bool = False


@dataclass
class _Partitions:
    """The partitions of one form: their groups (none where no kernels can be joined), and which
    were cut.
    """

    form: Form
    keys: tuple[Node, ...]
    known: dict[Place, tuple[Group, ...]] = field(default_factory=dict[Place, tuple[Group, ...]])
    cut: set[Place] = field(default_factory=set[Place])


class Search:
    """One family's search: structures are kept from one call of `at` to the next."""

    def __init__(
        self, program: Program, forms: Sequence[Form], pruning: Pruning, saturated: bool
    ) -> None:
        self.program, self.pruning, self.saturated = program, pruning, saturated
        self.names = Names(program.compute)
        self.structures = Structures(program.compute, pruning)
        own = frozenset(reductions(program, self.names))
        forms = [replace(f, program=widened(f.program, own, self.names)) for f in forms]
        self.forms = [_Partitions(form, reductions(form.program, self.names)) for form in forms]
        self.hint: Place | None = None
        """Where the last best plan was found."""
        self.lock = threading.RLock()

    def at(
        self, instance: Instance, device: Device, deadline: float, incumbent: float | None = None
    ) -> SearchResult:
        """The search at an instance's sizes. `deadline`: as `time.perf_counter` counts."""
        started = time.perf_counter()
        with self.lock:
            return _Run(self, instance, device, deadline, incumbent).result(started)


class _Run:
    """One search at one size."""

    def __init__(
        self, family: Search, instance: Instance, device: Device, deadline: float,
        incumbent: float | None,
    ) -> None:  # fmt: skip
        self.family, self.instance, self.device = family, instance, device
        self.deadline, self.incumbent = deadline, incumbent
        self.counts = Counts()
        self.costs = Costs(family.structures, device, instance.sizes, self.counts, deadline)
        self.found: list[Found] = []
        self.best, self.place = math.inf, family.hint
        self.unexplored = set[int]()
        """Numbers of forms of which something was not looked at."""
        self.done: dict[Place, float] = {}
        self.looked: dict[Place, None] = {}
        """The partitions whose turn came. (`done` may hold the family's last best before that.)"""
        self.passed: dict[Place, int] = {}
        """The partitions that were within the limit when their turn came."""
        self.reached = math.inf
        """The best of these. What the family knows from other sizes is not among them, so that a
        climb takes the same way with and without it.
        """

    def result(self, started: float) -> SearchResult:
        family = self.family
        for number, partitions in enumerate(family.forms):
            program = partitions.form.program
            costed = self.costs.library(family.structures.group(program.name, program.outputs))
            why = "XLA, other form" if number else "XLA"
            self.found.append(Found(number, partitions.form, (costed,), why))
        stop = "complete"
        try:
            if family.hint is not None:
                self._partition(family.hint, math.inf)
            for number in range(len(family.forms)):
                self._form(number)
        except Deadline:
            stop = "time budget"
            self.counts.cut_by_time += self._left()
        family.hint = self.place
        return self._finish(stop, started)

    # --- partitions

    def _form(self, number: int) -> None:
        keys = self.family.forms[number].keys
        if len(keys) > self.family.pruning.exhaustive_up_to:
            self._climb(number, keys)
            self.counts.cut_by_climbing += 2 ** len(keys) - self._visited(number)
            self.unexplored.add(number)
            return
        for count in range(len(keys) + 1):
            for chosen in itertools.combinations(keys, count):
                self._set(number, frozenset(chosen), self.family.pruning.worth * self.best)

    def _climb(self, number: int, keys: tuple[Node, ...]) -> None:
        """All fused; then from all materialised, fuses one reduction at a time as long as that
        helps.
        """

        def at(materialised: frozenset[Node]) -> float:
            return self._set(number, materialised, self.family.pruning.climb * self.reached)

        at(frozenset())
        current = frozenset(keys)
        cost = at(current)
        improved = True
        while improved:
            improved = False
            for key in keys:
                other = current ^ {key}
                fused = at(other)
                if fused < cost:
                    current, cost, improved = other, fused, True

    def _set(self, number: int, materialised: frozenset[Node], limit: float) -> float:
        """The best estimate for a set of materialised reductions, infinite beyond the limit."""
        places = [Place(number, materialised, join) for join in (False, True)]
        costs = {place: self._partition(place, limit) for place in places}
        self.looked.update(dict.fromkeys(places))
        within = {place: cost for place, cost in costs.items() if cost <= limit}
        for place in within:
            self.passed.setdefault(place, len(self.passed))
        best = min(within.values(), default=math.inf)
        self.reached = min(self.reached, best)
        return best

    def _visited(self, number: int) -> int:
        """How many sets of a form's reductions were looked at."""
        return len({place.materialised for place in self.looked if place.form == number})

    def _partition(self, place: Place, limit: float) -> float:
        """The best estimate for a partition, whose candidates are found; infinite if it is surely
        beyond the limit.
        """
        if place not in self.done:
            if time.perf_counter() > self.deadline:
                raise Deadline
            self.done[place] = self._look(place, limit)
        return self.done[place]

    def _look(self, place: Place, limit: float) -> float:
        partitions = self.family.forms[place.form]
        if place not in partitions.known:
            self._groups(partitions, place)
        together = partitions.known[place]
        if not together:
            return math.inf
        self.counts.partitions += 1
        alone = not place.materialised
        if self.incumbent is not None and self.incumbent <= floor(
            self.costs, together, self.device
        ):
            self.counts.cut_by_bound += 1
            return math.inf
        if not self._worth(together, alone, limit):
            self.counts.cut_by_model += 1
            partitions.cut.add(place)
            return math.inf
        if place in partitions.cut:
            self.counts.reopened += 1
            partitions.cut.discard(place)
        options = [
            (*self.costs.options(g), *(() if alone else (self.costs.library(g),))) for g in together
        ]
        if not all(options):
            return math.inf
        cost = sum(min(c.estimate for c in group) for group in options)
        for chosen in _cheapest(options):
            if any(isinstance(n, Kernel) for c in chosen for n in c.nodes):
                why = " | ".join(c.why for c in chosen)
                self.found.append(Found(place.form, partitions.form, chosen, why, cost, place))
        if cost < self.best:
            self.best, self.place = cost, place
        return cost

    def _worth(self, together: tuple[Group, ...], alone: bool, limit: float) -> bool:
        """Whether the groups may make a plan within the limit: bounds on their estimates are
        brought closer, and then their least estimates found, one after the other as long as the sum
        is not too much.
        """
        costs = self.costs

        def too_much() -> bool:
            return sum(costs.least(g, alone) for g in together) > limit

        if too_much():
            return False
        for group in together:
            costs.glance(group)
        if too_much():
            return False
        for group in together:
            if costs.known(group):
                costs.look(group)
        if too_much():
            return False
        for group in together:
            for closer in (costs.look, costs.options):
                closer(group)
                if too_much():
                    return False
        return True

    def _groups(self, partitions: _Partitions, place: Place) -> None:
        """Finds the groups of a set's partitions: with kernels apart, and joined."""
        number, materialised = place.form, place.materialised
        program, names = partitions.form.program, self.family.names
        made = targets(program, materialised, names)
        for join, grouped in ((False, groups), (True, joined)):
            partitions.known[Place(number, materialised, join)] = tuple(
                self.family.structures.group(
                    f"{program.name}_{stores[0].tensor.name}" if materialised else program.name,
                    stores,
                )
                for stores in grouped(program, made, names) or ()
            )

    # --- what is known at the end

    def _left(self) -> int:
        """How many sets of reductions the budget has left, over all forms."""
        total = 0
        for number, partitions in enumerate(self.family.forms):
            left = 2 ** len(partitions.keys) - self._visited(number)
            total += left
            if left:
                self.unexplored.add(number)
        return total

    def _finish(self, stop: str, started: float) -> SearchResult:
        counts, family = self.counts, self.family
        # a partition may have been looked into only because the best plan was found after it, or at
        # the family's last size
        limit = family.pruning.worth * self.best
        found = [
            p for p in self.found if p.least <= limit and (p.place in self.passed or not p.place)
        ]
        # of equal plans the first one stays: the order must not depend on where the search began
        turn = {None: -1, **self.passed}
        found.sort(key=lambda plan: (plan.number, turn[plan.place]))
        kept, duplicates = ranked(found, self.instance, family.pruning.keep)
        counts.duplicates = duplicates
        rest = self._rest(limit)
        costed = {group for together in rest.costed for group in together}
        counts.cut_by_limit = sum(map(self.costs.left_out, costed))
        prove = partial(rest.certificate, family, self.instance, self.device, replace(counts), kept)
        seconds = time.perf_counter() - started
        reused = self.instance.rewriting is not None
        return SearchResult(kept, stop, asdict(counts), prove, seconds, reused=reused)

    def _rest(self, limit: float) -> Rest:
        """What was costed within the limit, and what was not: by that and not by what was costed,
        which depends on where the search began.
        """
        rest = Rest(unexplored=self.unexplored)
        for place in self.looked:
            together = self.family.forms[place.form].known[place]
            if together:
                within = place in self.passed and self.done[place] <= limit
                (rest.costed if within else rest.cut).append(together)
        return rest


def _cheapest(options: list[tuple[Costed, ...]]) -> Iterator[tuple[Costed, ...]]:
    """The cheapest choice for every group, and its neighbours that differ in one group."""
    best = [min(range(len(group)), key=lambda n, g=group: g[n].estimate) for group in options]
    yield tuple(group[n] for group, n in zip(options, best, strict=True))
    for g, group in enumerate(options):
        for n in range(len(group)):
            if n != best[g]:
                yield tuple(
                    group[n] if g == h else options[h][best[h]] for h in range(len(options))
                )
