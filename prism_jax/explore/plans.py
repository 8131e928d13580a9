"""From chosen kernels to ranked candidates.

In: what the partitions of all forms chose. Out: the best of each kind of structure, as candidates
whose sGraphs are written when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from prism_jax.explore.library import Costed
from prism_jax.explore.result import Candidate
from prism_jax.ir.leaves import Rewriting
from prism_jax.ir.nodes import Axis, Index, Size, Tensor
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import GridAxis, Kernel, LibraryCall, Loop, SGraph

if TYPE_CHECKING:
    from prism_jax.explore.search import Form, Instance, Place

Step = tuple[Kernel | LibraryCall, Mapping[str, str]]
"""A kernel or call, and the names of its symbols in the whole graph."""


@dataclass(frozen=True)
class Found:
    """A plan: one way for each group of one partition of one form."""

    number: int
    form: Form
    chosen: tuple[Costed, ...]
    why: str
    least: float = 0.0
    """The estimate of the best plan for the same partition of the form."""
    place: Place | None = None
    """That partition; None for XLA's own version of the form."""

    @property
    def estimate(self) -> float:
        """Seconds."""
        return sum(c.estimate for c in self.chosen)

    @property
    def looped(self) -> tuple[str, ...]:
        """The plan's kernels that loop, in words; those of a plan that leaves nothing to XLA apart
        from those of one that does.
        """
        nodes = [n for c in self.chosen for n in c.nodes]
        rest = "" if all(isinstance(n, Kernel) for n in nodes) else "and XLA"
        return (*(c.why for c in self.chosen if c.why not in ("XLA", "no loop")), rest)

    @property
    def key(self) -> tuple[int, ...]:
        """Equal for plans of the same steps, whatever form they come from; XLA's own are all
        different.
        """
        ours = any(isinstance(n, Kernel) for c in self.chosen for n in c.nodes)
        return tuple(id(c) for c in self.chosen) if ours else (-1, self.number)


def ranked(
    found: Sequence[Found], instance: Instance, keep: int
) -> tuple[tuple[Candidate, ...], int]:
    """The best of each kind of structure and form, at most `keep` kinds, best estimate first; XLA's
    own are always kept. Also how many were found twice.

    The best with each set of looped kernels goes before the others: pieces that are left to XLA, or
    to a kernel without a loop, make many kinds of the same time, which must not crowd out a fused
    plan that a model thinks a little slower.
    """
    distinct: dict[tuple[int, ...], Found] = {}
    for plan in found:
        distinct.setdefault(plan.key, plan)
    order = sorted(distinct.values(), key=lambda plan: plan.estimate)  # stable: as they were found
    kinds: dict[tuple[str, int], Found] = {}
    for plan in order:
        kinds.setdefault((plan.why, plan.number), plan)
    leaders: dict[tuple[str, ...], Found] = {}
    for plan in kinds.values():
        leaders.setdefault(plan.looped, plan)
    first = {id(plan): plan for plan in (*leaders.values(), *kinds.values())}
    best = set(list(first)[:keep])
    kept = [plan for plan in order if id(plan) in best or plan.key[0] == -1]
    return tuple(_candidate(plan, instance) for plan in kept), len(found) - len(distinct)


def _candidate(plan: Found, instance: Instance) -> Candidate:
    steps, sizes = _laid_out(plan.chosen)
    return Candidate(
        make=partial(_made, plan.form.program, steps, instance),
        bound=sum(c.bound for c in plan.chosen),
        estimate=plan.estimate,
        sizes=tuple(sorted(sizes.items())),
        axioms=plan.form.axioms,
        why=plan.why,
        kernels=sum(isinstance(step, Kernel) for step, _ in steps),
    )


def _laid_out(chosen: tuple[Costed, ...]) -> tuple[list[Step], dict[str, int]]:
    """The steps in order, with names for their symbols: every kernel has its own tiles, the kernels
    of a split share the number of parts. And the sizes by those names.
    """
    steps: list[Step] = []
    sizes: dict[str, int] = {}
    for costed in (part for c in chosen for part in (c.parts or (c,))):
        known, first = dict(costed.sizes), len(steps)
        shared = {s: f"{s}_{first}" if s in sizes else s for s in known if s.startswith("S_")}
        for node in costed.nodes:
            names: dict[str, str] = {}
            if isinstance(node, Kernel):
                place = len(steps)
                for symbol in node.symbols:
                    if symbol in shared:
                        names[symbol] = shared[symbol]
                        sizes[shared[symbol]] = known[symbol]
                    else:
                        names[symbol] = symbol if place == 0 else f"{symbol}_{place}"
                        sizes[names[symbol]] = known[f"{node.name}.{symbol}"]
            steps.append((node, names))
    return steps, sizes


def _made(form: Program, steps: Sequence[Step], instance: Instance) -> tuple[SGraph, Program]:
    """The sGraph at the instance's sizes, and the form that it computes."""
    program, rewriting = instance.program, instance.rewriting
    nodes: list[Kernel | LibraryCall] = []
    for node, names in steps:
        [node] = renamed_symbols((node,), lambda s, names=names: names.get(s, s))
        nodes.append(node if rewriting is None else rewriting.step(node))
    if rewriting is not None:
        outputs = tuple(map(rewriting.store, form.outputs))
        form = Program(form.name, program.inputs, outputs, program.compute)
    outputs = tuple(store.tensor for store in program.outputs)
    return SGraph(program.name, program.inputs, tuple(nodes), outputs, program.compute), form


def renamed_symbols(
    steps: tuple[Kernel | LibraryCall, ...], name: Callable[[str], str]
) -> tuple[Kernel | LibraryCall, ...]:
    """The steps with other names for their size symbols: of tiles, and of axes that splits made."""

    def size(old: Size) -> Size:
        return name(old) if isinstance(old, str) else old

    def axis(old: Axis) -> Axis:
        return old if isinstance(old.size, int) else Axis(old.name, size(old.size))

    def tensor(old: Tensor, index: tuple[Index, ...]) -> Tensor:
        if all(isinstance(s, int) for s in old.shape):
            return old
        return Tensor(old.name, tuple(map(size, old.shape)), old.dtype)

    symbols = {s for k in steps if isinstance(k, Kernel) for s in k.symbols}
    if not any(s.startswith("S_") and name(s) != s for s in symbols):
        return tuple(_tiles(s, size) if isinstance(s, Kernel) else s for s in steps)
    return tuple(map(Rewriting(axis, tensor, size=size).step, steps))


def _tiles(kernel: Kernel, size: Callable[[Size], Size]) -> Kernel:
    """The kernel with its tile symbols renamed; its terms have no symbols."""

    def loop(one: Loop) -> Loop:
        return replace(one, tile=size(one.tile), inner=tuple(map(loop, one.inner)))

    grid = tuple(GridAxis(g.axis, size(g.tile)) for g in kernel.grid)
    return replace(kernel, grid=grid, loops=tuple(map(loop, kernel.loops)))
