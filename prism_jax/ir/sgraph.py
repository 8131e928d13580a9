"""The sGraph: a symbolic, hierarchical tensor program (Prism, section 3; design, section 6).

Kernel level: a sequence of kernels and library calls that hand tensors on. Block level: what one
kernel does, as a prologue, consecutive loops with accumulators, and an epilogue. Which axis is
split by which parallel dimension is the *mapping*: an axis of `Kernel.grid` is split over blocks,
an axis of a `Loop` over its steps, every other axis of the kernel is *held* whole by a block. A
loop may run over an axis that the grid splits too (a softmax that is written out needs its whole
row): inside the loop the axis takes all its values, in every block, outside it the block's. Tile
and split sizes are symbols (strings) until `instantiate` gives them numbers; a size that does not
divide its axis leaves a ragged last tile, which contributes nothing.

Meaning of a loop over axis k with tile T. For each step, for every accumulator in order,

    acc <- [live(old) ? rescale (.) old : identity]  (+)  (+)_{k in the step's tile} summand

where (+) is the accumulator's monoid, (.) its `action` ("mul" or "add"), `rescale` a term over
`Carried(name, "old")` and `Carried(name, "new")` of earlier accumulators in the same loop (None: no
rescaling), and live(old) is false while the old value of an accumulator named in `depends` is still
its monoid's identity. After the loop the value is `Carried(name, "final")`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Node,
    Precision,
    Size,
    Store,
    Tensor,
    fingerprint,
)
from prism_jax.ir.program import contents, loads_of


@dataclass(frozen=True)
class GridAxis:
    """An axis split over blocks, `tile` elements to a block (a number or a symbol)."""

    axis: Axis
    tile: Size


@dataclass(frozen=True)
class Accumulator:
    """A value carried through a loop. `axes` are the axes of its tile (the free axes of the summand
    less the loop's).
    """

    name: str
    monoid: str
    summand: Node
    axes: tuple[Axis, ...]
    rescale: Node | None = None
    action: str = "mul"
    depends: tuple[str, ...] = ()
    precision: Precision | None = None
    index_sort: str | None = None

    def carried(self, phase: str = "final") -> Carried:
        """The node that stands for this accumulator's value."""
        return Carried(self.name, phase, self.index_sort or self.summand.sort, self.axes)


@dataclass(frozen=True)
class Loop:
    """Steps over `axis`, `tile` elements a step.

    `split` is None, or the grid axis whose blocks share the steps: block s of S runs the s-th run
    of ceil(steps / S) steps. `inner` loops run to completion inside every step, before the
    accumulators; `stores` are written in every step and may use the final values of earlier loops.
    """

    axis: Axis
    tile: Size
    accumulators: tuple[Accumulator, ...] = ()
    stores: tuple[Store, ...] = ()
    inner: tuple[Loop, ...] = ()
    split: Axis | None = None


@dataclass(frozen=True)
class Kernel:
    """One launch: every block of the grid runs the loops in order, then writes `stores`."""

    name: str
    grid: tuple[GridAxis, ...]
    loops: tuple[Loop, ...]
    stores: tuple[Store, ...]

    @cached_property
    def all_loops(self) -> tuple[Loop, ...]:
        """Every loop, outer before inner."""
        return tuple(_below(self.loops))

    @cached_property
    def all_stores(self) -> tuple[Store, ...]:
        return (*(s for loop in self.all_loops for s in loop.stores), *self.stores)

    @cached_property
    def roots(self) -> tuple[Node, ...]:
        """Every term of the kernel: stored values, summands, rescalings."""
        found: list[Node] = []
        for loop in self.all_loops:
            for accumulator in loop.accumulators:
                found += [t for t in (accumulator.summand, accumulator.rescale) if t is not None]
        return (*found, *(store.value for store in self.all_stores))

    @property
    def reads(self) -> tuple[Tensor, ...]:
        """Tensors read, each once, in order of first use."""
        return tuple(dict.fromkeys(load.tensor for load in loads_of(self.roots)))

    @property
    def writes(self) -> tuple[Tensor, ...]:
        return tuple(dict.fromkeys(store.tensor for store in self.all_stores))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The size symbols of this kernel, sorted: of tiles, of grid axes, of axes that a split
        made.
        """
        found: set[Size] = {g.tile for g in self.grid} | {g.axis.size for g in self.grid}
        found |= {loop.tile for loop in self.all_loops}
        for root in self.roots:
            found.update(a.size for a in contents(root).axes)
        return tuple(sorted(s for s in found if isinstance(s, str)))

    def mapping(self) -> dict[tuple[str, str], int]:
        """The mapping variables m(axis, parallel dimension) that are 1."""
        dims = {(g.axis.name, f"grid{n}"): 1 for n, g in enumerate(self.grid)}
        return dims | {(loop.axis.name, f"loop{n}"): 1 for n, loop in enumerate(self.all_loops)}


@dataclass(frozen=True)
class LibraryCall:
    """Terms computed by a library: `library` names the row ("xla": plain jnp, one fused call)."""

    name: str
    library: str
    stores: tuple[Store, ...]

    @property
    def reads(self) -> tuple[Tensor, ...]:
        loads = loads_of(store.value for store in self.stores)
        return tuple(dict.fromkeys(load.tensor for load in loads))

    @property
    def writes(self) -> tuple[Tensor, ...]:
        return tuple(store.tensor for store in self.stores)


@dataclass(frozen=True)
class SGraph:
    """Kernels and library calls in execution order; a tensor is written once, before it is read."""

    name: str
    inputs: tuple[Tensor, ...]
    nodes: tuple[Kernel | LibraryCall, ...]
    outputs: tuple[Tensor, ...]
    compute: str = "float32"

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The size symbols, sorted."""
        return tuple(sorted({symbol for kernel in self.kernels for symbol in kernel.symbols}))

    def __str__(self) -> str:
        from prism_jax.ir.text import print_sgraph

        return print_sgraph(self)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(node for node in self.nodes if isinstance(node, Kernel))

    @cached_property
    def digest(self) -> str:
        """A fingerprint of everything but the names of the graph and its kernels."""
        parts = [str(t) for t in (*self.inputs, *self.outputs)] + [self.compute]
        for node in self.nodes:
            if isinstance(node, Kernel):
                parts += [repr(node.grid), *map(_loop_text, node.loops)]
                parts += map(_store_text, node.stores)
            else:
                parts += [node.library, *map(_store_text, node.stores)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _below(loops: tuple[Loop, ...]) -> Iterator[Loop]:
    for loop in loops:
        yield loop
        yield from _below(loop.inner)


def _store_text(store: Store) -> str:
    return f"{store.tensor}{fingerprint(store.index)}={store.value.digest}"


def _loop_text(loop: Loop) -> str:
    accumulators = [
        f"{a.name}{a.monoid}{a.summand.digest}{a.axes}{a.rescale and a.rescale.digest}"
        f"{a.action}{a.depends}{a.precision}{a.index_sort}"
        for a in loop.accumulators
    ]
    parts = [repr((loop.axis, loop.tile, loop.split)), *accumulators]
    return "|".join(
        [*parts, *map(_store_text, loop.stores), *(f"[{_loop_text(i)}]" for i in loop.inner)]
    )
