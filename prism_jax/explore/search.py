"""The search: from a program to ranked sGraphs (design, section 6).

For every algebraic form that the e-graph offers, for every set of reductions to materialise (all
sets where there are few, local improvement beyond), for every mapping and fusion of every kernel,
the closed forms give a bound and an estimate. Mapping and sizes stay symbolic until a structure has
survived.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from prism_jax.device import Device
from prism_jax.explore.library import Costed, library_cost, traffic_floor
from prism_jax.explore.partition import (
    Counts,
    KernelCoster,
    groups,
    reductions,
    targets,
)
from prism_jax.explore.result import Candidate, Certificate, SearchResult
from prism_jax.ir.counts import width
from prism_jax.ir.nodes import Node
from prism_jax.ir.program import Program
from prism_jax.ir.rewrite import canonical
from prism_jax.ir.sgraph import GridAxis, Kernel, LibraryCall, Loop, SGraph

EXHAUSTIVE_UP_TO = 6
WORTH = 1.5
"""A partition is cut where the traffic that it cannot avoid takes this many times the best estimate
so far: the margin is for what the model does not know, and since it is a model's value that cuts,
the certificate counts these cuts as heuristic.
"""

KEEP = 64


@dataclass(frozen=True)
class Form:
    """An algebraic form of the program and the axioms that made it."""

    program: Program
    axioms: tuple[str, ...] = ()


class _Deadline(Exception):
    pass


def search(
    program: Program, forms: Sequence[Form], device: Device, seconds: float = 5.0
) -> SearchResult:
    """Ranked sGraphs for a program; `forms` are equivalent programs, the program itself first.
    Keeps `seconds` within a kernel.
    """
    started = time.perf_counter()
    counts = Counts()
    coster, names = KernelCoster(device, program.compute, counts), dict[Node, str]()
    found = [_by_library(program, form, device) for form in forms]
    stop, complete = "complete", True
    try:
        for form in forms:
            one = _FormSearch(program, form, coster, names, device, found, started + seconds)
            complete = one.run() and complete
    except _Deadline:
        stop, complete = "time budget", False
    kept, lost = _ranked(found)
    counts.duplicates = len(found) - len(kept) - lost
    floor = physical_floor(program, device)
    best = min(c.bound for c in found)
    scope = f"{len(forms)} forms, mappings of one loop level, powers of two"
    certificate = Certificate(scope, complete, floor, best, lost + counts.cut_by_bound)
    return SearchResult(kept, stop, asdict(counts), certificate, time.perf_counter() - started)


def physical_floor(program: Program, device: Device) -> float:
    """Seconds to read the inputs and write the outputs once."""
    tensors = (*program.inputs, *(store.tensor for store in program.outputs))
    total = sum(math.prod(int(s) for s in t.shape) * width(t.dtype) for t in tensors)
    return total / device.dram_bytes_per_s


def _by_library(program: Program, form: Form, device: Device) -> Candidate:
    costed = library_cost(form.program.name, form.program.outputs, device)
    return _candidate(
        program,
        form,
        (costed,),
        "XLA" if form.program.digest == program.digest else "XLA, other form",
    )


@dataclass
class _FormSearch:
    """The partitions of one form. What is found is appended to `found` as it is found."""

    program: Program
    form: Form
    coster: KernelCoster
    names: dict[Node, str]
    device: Device
    found: list[Candidate]
    deadline: float
    best: float = math.inf

    def run(self) -> bool:
        """Tries partitions; says whether it tried them all. Raises `_Deadline`."""
        keys = [canonical(r)[0] for r in reductions(self.form.program)]
        if len(keys) > EXHAUSTIVE_UP_TO:
            self._climb(keys)
            return False
        for count in range(len(keys) + 1):
            for chosen in itertools.combinations(keys, count):
                self._partition(frozenset(chosen))
        return True

    def _climb(self, keys: list[Node]) -> None:
        """From all materialised, fuses one reduction at a time as long as that helps; then all
        fused.
        """
        current = frozenset(keys)
        cost = self._partition(current)
        improved = True
        while improved:
            improved = False
            for key in keys:
                if key in current:
                    fused = self._partition(current - {key})
                    if fused < cost:
                        current, cost, improved = current - {key}, fused, True
        self._partition(frozenset())

    def _partition(self, materialised: frozenset[Node]) -> float:
        """The best estimate for a set of materialised reductions; its candidates are found."""
        if time.perf_counter() > self.deadline:
            raise _Deadline
        counts, program = self.coster.counts, self.form.program
        counts.partitions += 1
        together = groups(program, targets(program, materialised, self.names))
        if sum(traffic_floor(group, self.device) for group in together) > WORTH * self.best:
            counts.cut_by_bound += 1
            return math.inf
        options: list[tuple[Costed, ...]] = []
        for group in together:
            name = f"{program.name}_{group[0].tensor.name}" if materialised else program.name
            ours = self.coster.options(name, group)
            library = (library_cost(name, group, self.device),) if materialised else ()
            options.append((*ours, *library))
        if not all(options):
            return math.inf
        cost = sum(min(c.estimate for c in group) for group in options)
        self.best = min(self.best, cost)
        for chosen in _cheapest(options):
            if any(isinstance(n, Kernel) for c in chosen for n in c.nodes):
                why = " | ".join(c.why for c in chosen)
                self.found.append(_candidate(self.program, self.form, chosen, why))
        return cost


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


def _candidate(program: Program, form: Form, chosen: tuple[Costed, ...], why: str) -> Candidate:
    nodes: list[Kernel | LibraryCall] = []
    sizes: dict[str, int] = {}
    for costed in chosen:
        known = dict(costed.sizes)
        for node in costed.nodes:
            if isinstance(node, Kernel):
                place = len(nodes)
                renamed = {
                    s: s if s.startswith("S_") or place == 0 else f"{s}_{place}"
                    for s in node.symbols
                }
                sizes |= {
                    new: known.get(f"{node.name}.{old}", known.get(old, 0))
                    for old, new in renamed.items()
                }
                node = _with_symbols(node, renamed)
            nodes.append(node)
    outputs = tuple(store.tensor for store in program.outputs)
    sgraph = SGraph(program.name, program.inputs, tuple(nodes), outputs, program.compute)
    total, floor = sum(c.estimate for c in chosen), sum(c.bound for c in chosen)
    return Candidate(
        sgraph, form.program, floor, total, tuple(sorted(sizes.items())), form.axioms, why
    )


def _with_symbols(kernel: Kernel, names: Mapping[str, str]) -> Kernel:
    """The kernel with its tile symbols renamed, so that every kernel of an sGraph has its own."""

    def name(size: int | str) -> int | str:
        return names.get(size, size) if isinstance(size, str) else size

    def loop(one: Loop) -> Loop:
        return replace(one, tile=name(one.tile), inner=tuple(map(loop, one.inner)))

    grid = tuple(GridAxis(g.axis, name(g.tile)) for g in kernel.grid)
    return replace(kernel, grid=grid, loops=tuple(map(loop, kernel.loops)))


def _ranked(found: list[Candidate]) -> tuple[tuple[Candidate, ...], int]:
    """The best of each kind of structure and form, at most `KEEP`, best estimate first; XLA's own
    are always kept. Also how many were dropped.
    """
    distinct: dict[str, Candidate] = {}
    for candidate in found:
        old = distinct.get(candidate.sgraph.digest)
        if old is None or candidate.estimate < old.estimate:
            distinct[candidate.sgraph.digest] = candidate
    order = sorted(distinct.values(), key=lambda c: (c.estimate, c.sgraph.digest))
    kinds: dict[str, Candidate] = {}
    for candidate in order:
        kinds.setdefault(f"{candidate.why} {candidate.form.digest}", candidate)
    best = {c.sgraph.digest for c in list(kinds.values())[:KEEP]}
    kept = [c for c in order if c.sgraph.digest in best or not c.kernels]
    return tuple(kept), len(order) - len(kept)
