"""The meaning of programs and sGraphs in float64: the oracle of every test.

`evaluate` computes whole outputs or only sampled elements of them, so that a huge program costs
what is asked for. `evaluate_sgraph` executes an sGraph as it says: block by block, tile by tile.
Floats are float64 everywhere (only opaque casts round), integers and booleans keep their dtype.

>>> from prism_jax.ir.nodes import Axis, Load, Reduce, Store, Tensor, at
>>> i, k = Axis("i", 2), Axis("k", 3)
>>> x, y = Tensor("x", (2, 3), "float16"), Tensor("y", (2,), "float16")
>>> total = Reduce("sum", (k,), Load(x, (at(i), at(k))))
>>> program = Program("rowsum", (x,), (Store(y, (at(i),), total),))
>>> evaluate(program, {"x": np.ones((2, 3), np.float16)})[0]
array([3., 3.])
>>> evaluate(program, {"x": np.ones((2, 3), np.float16)}, [np.array([[1]])])[0]
array([3.])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from prism_jax.ir.blocks import run_kernel, write
from prism_jax.ir.counter import Counter
from prism_jax.ir.interpret import BUDGET, Interpreter
from prism_jax.ir.nodes import Axis, Index, Node, Pointwise, Reduce, Store, Tensor
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Kernel, SGraph
from prism_jax.ir.values import FLOAT64, POINTS, Array, Binding, Domain, align

LIVE = 8 * BUDGET
"""Elements that the values remembered for one piece of an output may have together: 512 MB of
float64."""


def evaluate(
    program: Program,
    inputs: Mapping[str, Array],
    points: Sequence[Array | None] | None = None,
    *,
    domain: Domain = FLOAT64,
    symbols: Mapping[str, int] | None = None,
    counter: Counter | None = None,
) -> tuple[Array, ...]:
    """The outputs of a program, in order, or sampled elements of them.

    Args:
        program: what to compute.
        inputs: one array per input, by name, of the declared shape.
        points: per output an integer array (n, rank) of the elements wanted, or None for all.
        domain: what values are; float64 by default.
        symbols: numbers for symbolic sizes, if the program has any.
        counter: collects bytes read and operations.

    Returns:
        Whole outputs in their shapes, sampled ones as (n,). Reals are float64, unrounded.

    Raises:
        ValueError: an input is missing or has another shape, or the points do not fit.
        IndexError: an unguarded load leaves its tensor, or a point leaves its output.
    """
    symbols = symbols or {}
    interpreter = Interpreter(
        _tensors(program.inputs, inputs, symbols), domain, symbols, counter=counter
    )
    if points is not None and len(points) != len(program.outputs):
        raise ValueError(f"{len(points)} sets of points for {len(program.outputs)} outputs")
    results: list[Array] = []
    for n, store in enumerate(program.outputs):
        wanted = None if points is None else points[n]
        results.append(
            _whole(interpreter, store) if wanted is None else _sampled(interpreter, store, wanted)
        )
    return tuple(results)


def evaluate_sgraph(
    sgraph: SGraph,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Array],
    blocks: bool = True,
    *,
    domain: Domain = FLOAT64,
    counter: Counter | None = None,
) -> tuple[Array, ...]:
    """The outputs of an sGraph, executed literally: kernels in order, every block of the grid,
    every step of the loops.

    Args:
        sgraph: what to run.
        sizes: a number for every symbol.
        inputs: one array per input, by name.
        blocks: False takes every tile as large as its axis: one block (per split), one step.
        domain: what values are; float64 by default.
        counter: collects bytes moved per tensor and operations.

    Returns:
        The output tensors, in order; intermediate tensors are not rounded.

    Raises:
        AssertionError: a kernel writes an element twice or not at all, or something is read before
        it is written.
    """
    tensors = _tensors(sgraph.inputs, inputs, sizes)
    for node in sgraph.nodes:
        if isinstance(node, Kernel):
            run_kernel(node, tensors, domain, sizes, blocks=blocks, counter=counter)
        else:
            interpreter = Interpreter(tensors, domain, sizes, counter=counter)
            made = {store.tensor.name: _whole(interpreter, store) for store in node.stores}
            tensors.update(made)
    return tuple(tensors[t.name] for t in sgraph.outputs)


def _tensors(
    declared: Sequence[Tensor], given: Mapping[str, Array], symbols: Mapping[str, int]
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for tensor in declared:
        if tensor.name not in given:
            raise ValueError(f"input {tensor.name} is missing")
        array = np.asarray(given[tensor.name])
        shape = tuple(symbols[s] if isinstance(s, str) else s for s in tensor.shape)
        if array.shape != shape:
            raise ValueError(
                f"input {tensor.name} has shape {array.shape}, the program says {shape}"
            )
        found[tensor.name] = array
    return found


def _whole(interpreter: Interpreter, store: Store) -> Array:
    """All elements of an output, in pieces along its longest axis where the intermediate values are
    large.
    """
    shape = tuple(interpreter.size(s) for s in store.tensor.shape)
    result = interpreter.domain.poison(shape, store.value.sort)
    written = np.zeros(shape, np.uint8)
    axes = sorted(
        {a for index in store.index for a in index.axes_free},
        key=lambda a: (-interpreter.size(a.size), a),
    )
    pieces = 1
    if axes:
        size = interpreter.size(axes[0].size)
        live = footprint(interpreter, store.value, frozenset(axes[:1])) * size
        pieces = min(size, math.ceil(live / LIVE)) if math.prod(shape) else 1
    if pieces <= 1:
        write(interpreter, store, {}, result, written)
    else:
        size = interpreter.size(axes[0].size)
        length = math.ceil(size / pieces)
        for start in range(0, size, length):
            span = Binding.span(axes[0], start, min(size, start + length))
            write(interpreter, store, {axes[0]: span}, result, written)
    assert (written == 1).all(), f"the stores of {store.tensor} do not address every element once"
    return result


def _sampled(interpreter: Interpreter, store: Store, points: Array) -> Array:
    points = np.asarray(points)
    shape = tuple(interpreter.size(s) for s in store.tensor.shape)
    if points.ndim != 2 or points.shape[1] != len(shape) or points.dtype.kind not in "iu":
        raise ValueError(f"points of {store.tensor} must be an integer array (n, {len(shape)})")
    if (points < 0).any() or (points >= np.asarray(shape, np.int64)).any():
        raise IndexError(f"a point leaves {store.tensor}")
    axes: dict[Axis, Array] = {}
    for dimension, index in enumerate(store.index):
        axes |= _invert(interpreter, index, points[:, dimension].astype(np.int64))
    unbound = [a.name for a in store.value.axes_free if a not in axes]
    assert not unbound, f"axes {unbound} of {store.tensor} are not indexed by its store"
    each = footprint(interpreter, store.value, frozenset(axes))
    length = max(1, min(len(points), BUDGET // max(1, each)))
    pieces: list[Array] = []
    for start in range(0, len(points), length):
        env = {a: Binding(POINTS, v[start : start + length]) for a, v in axes.items()}
        value = interpreter.value(store.value, env)
        count = min(length, len(points) - start)
        pieces.append(np.broadcast_to(align([value], (POINTS,))[0], (count,)))
    return np.concatenate(pieces) if pieces else interpreter.domain.poison((0,), store.value.sort)


def _invert(interpreter: Interpreter, index: Index, coordinate: Array) -> dict[Axis, Array]:
    """The axes' values at a coordinate: an index that addresses every element once is a mixed-radix
    number.
    """
    rest = coordinate - index.offset
    found: dict[Axis, Array] = {}
    terms = [(t, c, interpreter.size(t.size)) for t, c in index.terms if isinstance(t, Axis)]
    assert len(terms) == len(index.terms), "a store is indexed by axes alone"
    for _, coefficient, size in terms:  # a reversed axis counts down from its end
        rest = rest - min(0, coefficient) * (size - 1)
    for axis, coefficient, size in sorted(terms, key=lambda t: (-abs(t[1]), -t[2], t[0])):
        digit = np.minimum(rest // abs(coefficient), size - 1)
        rest = rest - digit * abs(coefficient)
        found[axis] = digit if coefficient > 0 else size - 1 - digit
    assert (rest == 0).all(), "the store's index does not reach this element"
    return found


def footprint(interpreter: Interpreter, root: Node, sampled: frozenset[Axis]) -> int:
    """Elements of all values below `root` that depend on the sampled axes, for one sample of them.

    Products under a contraction are not built, and the bodies of other reductions are cut to the
    budget.
    """
    seen: set[tuple[Node, frozenset[Axis]]] = set()
    total, stack = 0, [(root, sampled)]
    while stack:
        node, axes = stack.pop()
        axes &= frozenset(node.axes_free)
        if not axes or (node, axes) in seen:
            continue
        seen.add((node, axes))
        if not (
            isinstance(node, Pointwise) and node.op == "mul"
        ):  # a product is mostly a contraction's
            total += min(
                math.prod(interpreter.size(a.size) for a in node.axes_free if a not in axes),
                8 * BUDGET,
            )
        inner = axes - frozenset(node.axes) if isinstance(node, Reduce) else axes
        stack.extend((child, inner) for child in node.children)
    return total
