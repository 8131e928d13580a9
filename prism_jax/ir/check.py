"""The checker of programs and sGraphs: what is well formed, and where it is not.

In: a `Program` or an `SGraph`. Out: nothing, or an `IRError` with the fault in one sentence and the
text around it. The checker knows the structure only: sorts, scopes, ranges of indices, who writes
what. Whether the values are right is `prism_jax.verify`'s business.

>>> from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
>>> i, x = Axis("i", 5), Tensor("x", (4,), "float32")
>>> bad = Program("p", (x,), (Store(Tensor("y", (5,), "float32"), (at(i),), Load(x, (at(i),))),))
>>> check_program(bad)
Traceback (most recent call last):
    ...
prism_jax.ir.check.IRError: the index i of dimension 0 of x: float32[4] runs over 0 .. 4
    program p(x: f32[4]) compute f32 {
      axes i=5
  >   %0 = load x[i]
      store y: f32[5][i] = %0
    }
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prism_jax.ir.nodes import Carried, Store, Tensor
from prism_jax.ir.program import Program, walk
from prism_jax.ir.rules import (
    Fault,
    Scope,
    binder,
    check_axes,
    check_node,
    check_store,
    check_tensor,
)
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph
from prism_jax.ir.text import Printer


class IRError(ValueError):
    """A program or sGraph is not well formed; shows where."""


def check_program(program: Program) -> None:
    """Checks a program.

    Raises:
        IRError: with the first fault, in the order of the text.
    """
    printer = Printer()
    try:
        _program(program)
    except Fault as fault:
        printer.program(program)
        raise IRError(_sentence(fault, printer)) from None


def check_sgraph(sgraph: SGraph) -> None:
    """Checks an sGraph.

    Raises:
        IRError: with the first fault, in the order of the text.
    """
    printer = Printer()
    try:
        _sgraph(sgraph)
    except Fault as fault:
        printer.sgraph(sgraph)
        raise IRError(_sentence(fault, printer)) from None


def _sentence(fault: Fault, printer: Printer, around: int = 4) -> str:
    """The fault and the lines around it; a node without a line of its own shows where it is
    used.
    """
    found = [lines for lines in map(printer.where, fault.where) if lines]
    if not found:
        return str(fault)
    user = found[-1][-1]  # a node has a line in every kernel: the last one before the faulty user
    line = max((n for n in found[0] if n <= user), default=found[0][0])
    first, last = max(0, line - around), min(len(printer.lines), line + around + 1)
    shown = (("  > " if n == line else "    ") + printer.lines[n] for n in range(first, last))
    return "\n".join([str(fault), *shown])


def _require(condition: object, sentence: str, *where: object) -> None:
    if not condition:
        raise Fault(sentence, *where)


# ---- programs ----


def _declared(name: str, tensors: Iterable[Tensor], compute: str) -> dict[str, Tensor]:
    _require(
        compute in ("float32", "float64"), f"{name} computes in {compute}, not float32 or float64"
    )
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        check_tensor(tensor)
        _require(tensor.name not in found, f"two inputs are named {tensor.name}")
        found[tensor.name] = tensor
    return found


def _program(program: Program) -> None:
    scope = Scope(_declared(program.name, program.inputs, program.compute))
    _require(program.outputs, f"{program.name} has no output")
    check_axes(walk(s.value for s in program.outputs), program.outputs)
    _stores(scope, program.outputs)


def _stores(scope: Scope, stores: Sequence[Store]) -> None:
    """Whole tensors, each written by one store (programs and library calls)."""
    written: set[str] = set()
    for store in stores:
        for node in walk([store.value]):
            check_node(scope, node, store)
        check_store(scope, store, whole=True)
        _require(store.tensor.name not in written, f"{store.tensor.name} is written twice", store)
        written.add(store.tensor.name)


# ---- sGraphs ----


def _sgraph(sgraph: SGraph) -> None:
    tensors = _declared(sgraph.name, sgraph.inputs, sgraph.compute)
    partial: dict[str, tuple[Kernel, Store]] = {}
    for node in sgraph.nodes:
        scope = Scope(dict(tensors))
        stores = node.all_stores if isinstance(node, Kernel) else node.stores
        _require(stores, f"{node.name} writes nothing", node)
        if isinstance(node, Kernel):
            _kernel(scope, node)
        else:
            check_axes(walk(s.value for s in stores), stores)
            _stores(scope, stores)
        for tensor in node.reads:
            partial.pop(tensor.name, None)
        if isinstance(node, Kernel):
            partial |= {s.tensor.name: (node, s) for s in node.stores if _is_partial(node, s)}
        for store in stores:
            name = store.tensor.name
            known = name not in tensors
            _require(known, f"{name} is written by {node.name}, but it exists already", store, node)
        tensors |= {store.tensor.name: store.tensor for store in stores}
    for tensor in sgraph.outputs:
        _require(tensors.get(tensor.name) == tensor, f"output {tensor} is never written")
    for name, (kernel, store) in partial.items():
        raise Fault(
            f"{kernel.name} splits a loop over the grid, and nothing combines the parts in {name}",
            store,
        )


def _is_partial(kernel: Kernel, store: Store) -> bool:
    """Whether a store holds what one share of a split loop has accumulated."""
    accumulated = {
        a.name for loop in kernel.loops if loop.split is not None for a in loop.accumulators
    }
    return any(isinstance(n, Carried) and n.accumulator in accumulated for n in walk([store.value]))


def _kernel(scope: Scope, kernel: Kernel) -> None:
    check_axes(walk(kernel.roots), kernel.all_stores, kernel)
    grid = [g.axis for g in kernel.grid]
    _require(len(set(grid)) == len(grid), f"the grid of {kernel.name} names an axis twice", kernel)
    for g in kernel.grid:
        _require(
            not isinstance(g.tile, int) or g.tile > 0,
            f"axis {g.axis} has a tile of {g.tile}",
            kernel,
        )
    scope.parallel = tuple(grid)
    scope.single = frozenset(g.axis for g in kernel.grid if _is_single(g))
    for loop in kernel.loops:
        _loop(scope, kernel, loop)
    _kernel_stores(scope, kernel.stores)
    per_tensor: dict[str, list[Store]] = {}
    for store in kernel.all_stores:
        per_tensor.setdefault(store.tensor.name, []).append(store)
    for name, stores in per_tensor.items():
        same = {s.tensor for s in stores}
        _require(len(same) == 1, f"{name} is written with two shapes or dtypes", stores[-1])
        if len(stores) == 1:  # where several share a tensor, the interpreter counts the elements
            check_store(scope, stores[0], whole=True)


def _is_single(g: GridAxis) -> bool:
    """Whether one block surely holds the whole axis."""
    size, tile = g.axis.size, g.tile
    return size == tile or (isinstance(size, int) and isinstance(tile, int) and size <= tile)


def _loop(scope: Scope, kernel: Kernel, loop: Loop) -> None:
    axis, grid = loop.axis, {g.axis: g.tile for g in kernel.grid}
    around = scope.parallel[len(grid) :]
    _require(axis not in around, f"a loop over {axis} is inside a loop over {axis}", loop)
    _require(
        not isinstance(loop.tile, int) or loop.tile > 0, f"{axis} has a tile of {loop.tile}", loop
    )
    _require(loop.accumulators or loop.stores, f"the loop over {axis} computes nothing", loop)
    if loop.split is not None:
        _require(
            grid.get(loop.split) == 1,
            f"the loop over {axis} is split over {loop.split}, not a grid axis with tile 1",
            loop,
        )
    scope.parallel = (*scope.parallel, axis)
    finished = dict(scope.finished)
    for inner in loop.inner:
        _loop(scope, kernel, inner)
    scope.running = [{}, *scope.running]
    for accumulator in loop.accumulators:
        _accumulator(scope, loop, accumulator)
        scope.running[0][accumulator.name] = (accumulator, scope.parallel)
    _kernel_stores(scope, loop.stores)
    scope.running = scope.running[1:]
    scope.parallel = scope.parallel[:-1]
    # Inner loops are over: their last values mean nothing outside this loop's body.
    scope.finished = finished | {a.name: (a, scope.parallel) for a in loop.accumulators}


def _accumulator(scope: Scope, loop: Loop, acc: Accumulator) -> None:
    name = acc.name
    known = name in scope.finished or any(name in running for running in scope.running)
    _require(not known, f"two accumulators are named {name}", acc)
    for node in walk([acc.summand]):
        check_node(scope, node, acc)
    scope.check_monoid(acc.monoid, acc.summand, acc.index_sort, acc)
    free = tuple(a for a in acc.summand.axes_free if a != loop.axis)
    listed = tuple(sorted(acc.axes))
    _require(
        listed == free,
        f"accumulator {name} has axes {_names(listed)}, its summand {_names(free)} after the loop",
        acc,
    )
    missing = [d for d in acc.depends if d not in scope.running[0]]
    _require(not missing, f"{name} depends on {', '.join(missing)}, not accumulated before it", acc)
    if acc.rescale is None:
        return
    _require(
        acc.action in ("mul", "add"), f"{name} is rescaled by {acc.action}, not mul or add", acc
    )
    for node in walk([acc.rescale]):
        check_node(scope, node, acc)
    _require(
        acc.rescale.sort == acc.summand.sort,
        f"{name} of sort {acc.summand.sort} is rescaled by a value of sort {acc.rescale.sort}",
        acc,
    )
    beyond = [a for a in acc.rescale.axes_free if a not in free]
    _require(
        not beyond, f"the rescaling of {name} has axes {_names(beyond)} that {name} has not", acc
    )


def _kernel_stores(scope: Scope, stores: Iterable[Store]) -> None:
    """Every block and every step writes elements of its own."""
    for store in stores:
        for node in walk([store.value]):
            check_node(scope, node, store)
        check_store(scope, store, whole=False)
        indexed = {a for index in store.index for a in index.axes_free}
        again = [
            a
            for n, a in enumerate(scope.parallel)
            if (a not in indexed or binder(a, scope.parallel) != n) and a not in scope.single
        ]
        every = " and ".join(_names(again))
        _require(not again, f"{store.tensor.name} is written again for every {every}", store)


def _names(axes: Iterable[object]) -> list[str]:
    return [str(a) for a in axes]
