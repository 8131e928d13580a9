"""The kernel level: which tensors are written to memory, and which kernel computes what.

A *partition* of a form is a set of its reductions that are materialised. Every materialised
reduction and every output is a target; targets that may run side by side are merged into one kernel
where they share operands. Each kernel is costed alone, over all mappings, fusions and splits, and
the result is kept: partitions share most of their kernels, so a search over subsets costs little
more than its distinct kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.explore.bounds import bound, estimate
from prism_jax.explore.library import Costed
from prism_jax.explore.mapping import mappings
from prism_jax.explore.sizes import Table, evaluate
from prism_jax.explore.split import split
from prism_jax.explore.structure import KernelBuilder, Unfit
from prism_jax.ir.nodes import REAL, Axis, Load, Node, Reduce, Store, Tensor, at
from prism_jax.ir.program import Program, walk
from prism_jax.ir.rewrite import canonical, rebuild, rename_store
from prism_jax.ir.sgraph import Kernel, LibraryCall

OPTIONS = 8
"""How many ways to compute one group of targets are kept."""


@dataclass
class Counts:
    """What the search did, by kind; every cut is counted under its reason."""

    kernels: int = 0
    structures: int = 0
    partitions: int = 0
    unfit: int = 0
    oversized: int = 0
    cut_by_bound: int = 0
    duplicates: int = 0


class KernelCoster:
    """Costs groups of targets; remembers every group it has seen."""

    def __init__(self, device: Device, compute: str, counts: Counts) -> None:
        self.device, self.compute, self.counts = device, compute, counts
        self.known: dict[tuple[str, ...], tuple[Costed, ...]] = {}

    def options(self, name: str, stores: tuple[Store, ...]) -> tuple[Costed, ...]:
        """Ways to compute the stores with kernels of ours, best estimate first, at most a few;
        empty if there are none.
        """
        key = tuple(f"{s.tensor}{s.value.digest}{s.index}" for s in stores)
        if key not in self.known:
            found: dict[str, Costed] = {}
            for roles in mappings(stores):
                for costed in self._fusions(name, stores, roles):
                    same = repr([_shape(n) for n in costed.nodes])
                    if same not in found or costed.estimate < found[same].estimate:
                        found[same] = costed
            self.counts.structures += len(found)
            self.known[key] = _diverse(
                sorted(found.values(), key=lambda c: (c.estimate, c.why)), OPTIONS
            )
        return self.known[key]

    def _fusions(
        self, name: str, stores: tuple[Store, ...], roles: dict[Axis, str]
    ) -> Iterable[Costed]:
        """The kernel with cascades, and without them where that is another kernel."""
        seen: list[Kernel] = []
        for fuse in (True, False):
            self.counts.kernels += 1
            builder = KernelBuilder(name, stores, roles, fuse)
            try:
                kernel = builder.build()
            except Unfit:
                self.counts.unfit += 1
                continue
            if kernel not in seen:
                seen.append(kernel)
                yield from self._whole_and_split(builder, kernel)

    def _whole_and_split(self, builder: KernelBuilder, kernel: Kernel) -> Iterable[Costed]:
        why = _words(kernel)
        whole = self._cost((kernel,), why)
        if whole is not None:
            yield whole
        for recompute in (False, True):
            try:
                parts = split(builder, kernel, self.compute, recompute)
            except Unfit:
                continue
            both = self._cost(
                (parts.parts, parts.combine), f"{why}, split over {parts.axis.name[2:]}"
            )
            if both is not None:
                yield both

    def _cost(self, kernels: tuple[Kernel, ...], why: str) -> Costed | None:
        """The best sizes of kernels that run one after the other; a symbol that they share has one
        value.
        """
        shared = set[str]()
        for n, kernel in enumerate(kernels):
            shared |= {s for other in kernels[:n] for s in set(kernel.symbols) & set(other.symbols)}
        tables = [evaluate(kernel, self.device) for kernel in kernels]
        if any(np.size(form.blocks) == 0 for _, form in tables):
            self.counts.oversized += 1
            return None
        shared = {s for s in shared if s.startswith("S_")}  # tiles are each kernel's own
        values = sorted({int(v) for s in shared for t, _ in tables for v in np.unique(t[s])}) or [0]
        best: Costed | None = None
        lowest = math.inf
        for value in values:
            rows = [
                np.flatnonzero(_agree(tab, shared, value, np.size(form.blocks)))
                for tab, form in tables
            ]
            if any(len(r) == 0 for r in rows):
                continue
            total, sizes = 0.0, dict[str, int]()
            floor = 0.0
            for kernel, (tab, form), row in zip(kernels, tables, rows, strict=True):
                times = estimate(form, self.device)[row]
                pick = int(row[int(np.argmin(times))])
                total += float(times.min())
                floor += float(bound(form, self.device)[row].min())
                sizes |= {
                    f"{kernel.name}.{s}" if s not in shared else s: int(c[pick])
                    for s, c in tab.items()
                }
            lowest = min(lowest, floor)
            if best is None or total < best.estimate:
                best = Costed(kernels, floor, total, tuple(sorted(sizes.items())), why)
        return (
            None
            if best is None
            else Costed(best.nodes, lowest, best.estimate, best.sizes, best.why)
        )


def _agree(table: Table, shared: set[str], value: int, rows: int) -> npt.NDArray[np.bool_]:
    """Which assignments give every shared symbol this value."""
    keep = np.ones(rows, np.bool_)
    for symbol in shared:
        keep &= table[symbol] == value
    return keep


def _diverse(ranked: list[Costed], most: int) -> tuple[Costed, ...]:
    """The best of every kind of structure, then the rest, at most `most`: what the accuracy
    contract will say is not known yet, and a two-pass variance must not be crowded out by
    near-copies of a one-pass one.
    """
    kinds: dict[str, Costed] = {}
    for costed in ranked:
        kinds.setdefault(costed.why, costed)
    rest = [c for c in ranked if c is not kinds[c.why]]
    return tuple(sorted([*kinds.values(), *rest][:most], key=lambda c: (c.estimate, c.why)))


def _shape(node: Kernel | LibraryCall) -> object:
    if isinstance(node, LibraryCall):
        return node.library
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


@dataclass(frozen=True)
class Target:
    """A tensor to be written: an output, or a materialised reduction."""

    store: Store
    needs: tuple[str, ...]


def reductions(program: Program) -> tuple[Reduce, ...]:
    """The reductions that may be materialised: one for each tensor, in program order."""
    found: dict[Node, Reduce] = {}
    for node in program.nodes:
        if isinstance(node, Reduce):
            found.setdefault(canonical(node)[0], node)
    return tuple(found.values())


def targets(
    program: Program, materialised: frozenset[Node], names: dict[Node, str]
) -> tuple[Target, ...]:
    """The stores of a partition in execution order; `materialised` holds canonical reductions (see
    `ir.rewrite.canonical`).

    `names` gives a canonical reduction the same tensor name in every partition of every form, so
    that equal kernels are equal.
    """
    tensors: dict[Node, Tensor] = {}
    made: list[Target] = []
    memo: dict[Node, Node] = {}

    def visit(node: Node) -> Node:
        if node not in memo:
            if isinstance(node, Reduce):
                key, axes = canonical(node)
                if key in materialised:
                    memo[node] = load(node, key, axes)
                    return memo[node]
            memo[node] = rebuild(node, visit)
        return memo[node]

    def load(node: Reduce, key: Node, axes: tuple[Axis, ...]) -> Node:
        if key not in tensors:
            value = Reduce(
                node.monoid, node.axes, visit(node.body), node.precision, node.index_sort
            )
            dtype = _kept_dtype(node, program.compute)
            name = names.setdefault(key, f"t{len(names)}")
            tensors[key] = Tensor(name, tuple(a.size for a in axes), dtype)
            made.append(_target(Store(tensors[key], tuple(at(a) for a in axes), value)))
        return Load(tensors[key], tuple(at(a) for a in axes))

    for store in program.outputs:
        made.append(_target(Store(store.tensor, store.index, visit(store.value))))
    return tuple(made)


def _kept_dtype(node: Reduce, compute: str) -> str:
    """What a materialised reduction is kept in: what the user's own equation rounds it to."""
    if node.sort != REAL:
        return node.sort
    return node.precision.result if node.precision is not None else compute


def _target(store: Store) -> Target:
    names = dict.fromkeys(n.tensor.name for n in walk([store.value]) if isinstance(n, Load))
    return Target(store, tuple(names))


def groups(program: Program, made: tuple[Target, ...]) -> list[tuple[Store, ...]]:
    """Targets merged into kernels: side by side, with equal grids, sharing an operand. Execution
    order is kept.
    """
    level: dict[str, int] = {t.name: 0 for t in program.inputs}
    found: list[tuple[int, list[Store]]] = []
    for target in made:
        depth = max((level.get(n, 0) for n in target.needs), default=0)
        level[target.store.tensor.name] = depth + 1
        for at_depth, group in found:
            renamed = _alike(group[0], target.store) if at_depth == depth else None
            if renamed is not None:
                group.append(renamed)
                break
        else:
            found.append((depth, [target.store]))
    found.sort(key=lambda item: item[0])
    return [tuple(group) for _, group in found]


def _alike(first: Store, other: Store) -> Store | None:
    """`other` with its axes renamed so that both stores have one grid, if they are alike and share
    an operand.
    """
    if len(first.index) != len(other.index):
        return None
    pairs: dict[Axis, Axis] = {}
    for a, b in zip(first.index, other.index, strict=True):
        if a.axis is None or b.axis is None or a.axis.size != b.axis.size:
            return None
        pairs[b.axis] = a.axis
    read = {n.tensor for n in walk([first.value]) if isinstance(n, Load)}
    if not any(isinstance(n, Load) and n.tensor in read for n in walk([other.value])):
        return None
    bound_in_other = {a for n in walk([other.value]) if isinstance(n, Reduce) for a in n.axes}
    if bound_in_other & set(pairs.values()) - set(pairs):
        return None
    return rename_store(other, pairs)
