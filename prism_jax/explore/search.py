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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from prism_jax.ir.forms import width
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
    found: list[Candidate] = []
    stop, heuristic = "complete", 0
    complete = True
    coster, names = KernelCoster(device, program.compute, counts), dict[Node, str]()
    try:
        for form in forms:
            found.append(_by_library(program, form, device))
            partitions, all_of_them = _partitions(form.program)
            complete = complete and all_of_them
            for candidate in _structures(program, form, coster, partitions, names, device):
                if time.perf_counter() - started > seconds:
                    raise _Deadline
                found.append(candidate)
    except _Deadline:
        stop, complete = "time budget", False
    kept, lost = _ranked(found)
    heuristic += lost + counts.cut_by_bound
    counts.duplicates = len(found) - len(kept) - lost
    floor = physical_floor(program, device)
    best = min(c.bound for c in found)
    scope = f"{len(forms)} forms, mappings of one loop level, powers of two"
    certificate = Certificate(scope, complete, floor, best, heuristic)
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


def _partitions(program: Program) -> tuple[Iterable[frozenset[Node]], bool]:
    """Sets of materialised reductions to try, and whether they are all there are."""
    keys = [canonical(r)[0] for r in reductions(program)]
    if len(keys) <= EXHAUSTIVE_UP_TO:
        sets = (frozenset(c) for n in range(len(keys) + 1) for c in itertools.combinations(keys, n))
        return sets, True
    return _local(keys), False


def _local(keys: list[Node]) -> Iterator[frozenset[Node]]:
    """All fused, each alone, neighbouring pairs, all materialised, all but one: a fixed,
    linear-size neighbourhood.
    """
    everything = frozenset(keys)
    yield frozenset()
    yield everything
    for n, key in enumerate(keys):
        yield frozenset([key])
        yield everything - {key}
        if n + 1 < len(keys):
            yield frozenset(keys[n : n + 2])
            yield frozenset(keys[: n + 1])


def _structures(
    program: Program, form: Form, coster: KernelCoster, partitions: Iterable[frozenset[Node]],
    names: dict[Node, str], device: Device,
) -> Iterator[Candidate]:  # fmt: skip
    """For every partition, the best ways to compute its groups."""
    best = math.inf
    for materialised in partitions:
        coster.counts.partitions += 1
        together = groups(form.program, targets(form.program, materialised, names))
        if sum(traffic_floor(group, device) for group in together) > WORTH * best:
            coster.counts.cut_by_bound += 1
            continue
        options: list[tuple[Costed, ...]] = []
        for group in together:
            name = (
                f"{form.program.name}_{group[0].tensor.name}" if materialised else form.program.name
            )
            ours = coster.options(name, group)
            library = (library_cost(name, group, device),) if materialised else ()
            options.append((*ours, *library))
        if not all(options):
            continue
        best = min(best, sum(min(c.estimate for c in group) for group in options))
        for chosen in _cheapest(options):
            if any(isinstance(n, Kernel) for c in chosen for n in c.nodes):
                yield _candidate(program, form, chosen, " | ".join(c.why for c in chosen))


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
