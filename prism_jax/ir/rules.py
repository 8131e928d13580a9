"""What makes one node or one store well formed: the rules that `ir/check.py` applies everywhere.

A rule raises `Fault` with a sentence and the things (node, store, loop, ...) whose line of text
shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prism_jax.ir import ranges
from prism_jax.ir.nodes import (
    FLOATS,
    INTEGERS,
    REAL,
    SORTS,
    Axis,
    Carried,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Parameter,
    Pointwise,
    Reduce,
    Store,
    Tensor,
    Within,
    sort_of,
)
from prism_jax.ir.ops import MONOIDS, OPS
from prism_jax.ir.ranges import Range
from prism_jax.ir.sgraph import Accumulator


class Fault(Exception):
    """Something is not well formed; `where` is what to show, the best first."""

    def __init__(self, sentence: str, *where: object) -> None:
        super().__init__(sentence)
        self.where = where


@dataclass
class Scope:
    """What a term may refer to where it stands.

    `parallel`: the axes split over blocks and steps here, outer first; `single`: those that one
    block holds whole. `running`: accumulators of the loops around this point that stand before it,
    innermost loop first; `finished`: of loops that are over. Both with the parallel axes of their
    loop's body.
    """

    tensors: dict[str, Tensor]
    parallel: tuple[Axis, ...] = ()
    single: frozenset[Axis] = frozenset()
    running: list[dict[str, tuple[Accumulator, tuple[Axis, ...]]]] = field(
        default_factory=list[dict[str, tuple[Accumulator, tuple[Axis, ...]]]]
    )
    finished: dict[str, tuple[Accumulator, tuple[Axis, ...]]] = field(
        default_factory=dict[str, tuple[Accumulator, tuple[Axis, ...]]]
    )
    ranges: dict[Node, Range] = field(default_factory=dict[Node, Range])

    def check_monoid(self, monoid: str, body: Node, index_sort: str | None, *where: object) -> None:
        """A monoid's operand and the sort of its index."""
        _require(monoid in MONOIDS, f"{monoid} is not a monoid", *where)
        allowed = {
            "sum": (REAL, *INTEGERS), "prod": (REAL, *INTEGERS), "any": ("bool",), "all": ("bool",)
        }.get(monoid, SORTS)  # fmt: skip
        _require(body.sort in allowed, f"{monoid} does not take values of sort {body.sort}", *where)
        if monoid in ("argmax", "argmin"):
            _require(
                index_sort in INTEGERS, f"{monoid} gives an index of sort {index_sort}", *where
            )
        else:
            _require(index_sort is None, f"{monoid} has no index", *where)


def _require(condition: object, sentence: str, *where: object) -> None:
    if not condition:
        raise Fault(sentence, *where)


def binder(axis: Axis, parallel: tuple[Axis, ...]) -> int:
    """Which of the parallel axes an axis means: the innermost, since a loop shadows the grid."""
    return max((n for n, a in enumerate(parallel) if a == axis), default=-1)


def check_tensor(tensor: Tensor, *where: object) -> None:
    """A tensor has a known dtype and no empty dimension."""
    known = tensor.dtype in (*FLOATS, *INTEGERS, "bool")
    _require(known, f"{tensor.name} has dtype {tensor.dtype}", *where)
    empty = any(isinstance(s, int) and s < 1 for s in tensor.shape)
    _require(not empty, f"{tensor} has an empty dimension", *where)


def check_axes(nodes: Iterable[Node], stores: Iterable[Store], *where: object) -> None:
    """Axes are not empty, and no node has two free axes of one name."""
    for node in nodes:
        bound = node.axes if isinstance(node, Reduce) else ()
        _check_names(node.axes_free, node, *where)
        for axis in (*node.axes_free, *bound):
            _require(
                not isinstance(axis.size, int) or axis.size > 0,
                f"axis {axis} is empty",
                node,
                *where,
            )
    for store in stores:
        _check_names({a for i in store.index for a in i.axes_free}, store, *where)


def _check_names(axes: Iterable[Axis], *where: object) -> None:
    names = [a.name for a in axes]
    twice = sorted({n for n in names if names.count(n) > 1})
    _require(not twice, f"two axes of different sizes are named {', '.join(twice)}", *where)


# ---- nodes ----


def check_node(scope: Scope, node: Node, *where: object) -> None:
    """One node, whose operands have been checked."""
    if node in scope.ranges:
        return
    match node:
        case Const(sort_=sort) | Iota(sort_=sort):
            _require(sort in SORTS, f"there is no sort {sort}", node, *where)
            if isinstance(node, Iota):
                _require(sort in INTEGERS, f"an iota is an integer, not a {sort}", node, *where)
        case Load():
            _check_load(scope, node, *where)
        case Pointwise():
            _check_pointwise(node, *where)
        case Reduce(monoid=monoid, axes=axes, body=body, index_sort=index_sort):
            scope.check_monoid(monoid, body, index_sort, node, *where)
            _require(axes, f"{monoid} reduces over no axis", node, *where)
            _check_names(axes, node, *where)
            single = len(axes) == 1 or monoid not in ("argmax", "argmin")
            _require(single, f"{monoid} is over one axis", node, *where)
        case Carried():
            _check_carried(scope, node, *where)
            return  # its range changes from step to step
        case _:
            raise Fault(f"{type(node).__name__} is not a node kind", node, *where)
    scope.ranges[node] = range_of(scope, node)


_ACCEPTED = {
    "real": (REAL,),
    "integer": INTEGERS,
    "number": (REAL, *INTEGERS),
    "bits": ("bool", *INTEGERS),
    "any": SORTS,
}


def _check_pointwise(node: Pointwise, *where: object) -> None:
    _require(node.op in OPS, f"there is no operator {node.op}", node, *where)
    row, sorts = OPS[node.op], tuple(a.sort for a in node.args)
    _require(len(sorts) == row.arity, f"{node.op} takes {row.arity} arguments", node, *where)
    rest = sorts
    if row.accepts == "choice":
        _require(
            sorts[0] == "bool", f"{node.op} chooses by a bool, not by {sorts[0]}", node, *where
        )
        rest = sorts[1:]
    _require(len(set(rest)) == 1, f"{node.op} of unlike sorts {' and '.join(rest)}", node, *where)
    accepted = _ACCEPTED.get(row.accepts, SORTS)
    _require(rest[0] in accepted, f"{node.op} does not take values of sort {rest[0]}", node, *where)
    good = _parameter_fits(node.op, node.parameter)
    _require(good, f"{node.op} cannot have the parameter {node.parameter!r}", node, *where)


def _parameter_fits(op: str, parameter: Parameter) -> bool:
    match op:
        case "integer_pow":
            return isinstance(parameter, int)
        case "cast":
            return parameter in (*FLOATS, *INTEGERS, "bool")
        case "reduce_precision":
            return isinstance(parameter, tuple) and len(parameter) == 2
        case _:
            return parameter is None


def _check_carried(scope: Scope, node: Carried, *where: object) -> None:
    name, phase = node.accumulator, node.phase
    table = scope.finished if phase == "final" else next(iter(scope.running), {})
    _require(phase in ("old", "new", "final"), f"{name} has no phase {phase}", node, *where)
    if name not in table:
        if not scope.parallel and not scope.finished:
            raise Fault(f"{name}.{phase} stands outside a kernel", node, *where)
        when = "after its loop" if phase == "final" else "in its loop, after its own line"
        raise Fault(
            f"{name}.{phase} is read where it has no value: it has one {when}", node, *where
        )
    accumulator, around = table[name]
    fits = accumulator.carried(phase) is node
    _require(
        fits, f"{name}.{phase} does not have the sort and axes of its accumulator", node, *where
    )
    changed = [a.name for a in node.axes if binder(a, around) != binder(a, scope.parallel)]
    _require(
        not changed,
        f"{name} was accumulated over other tiles of {', '.join(changed)}",
        node,
        *where,
    )


def _check_load(scope: Scope, node: Load, *where: object) -> None:
    tensor = node.tensor
    known = scope.tensors.get(tensor.name)
    _require(known is not None, f"{tensor.name} is read before it is written", node, *where)
    _require(known == tensor, f"{tensor} is read, but it was declared as {known}", node, *where)
    rank = len(tensor.shape)
    _require(
        len(node.index) == rank,
        f"{tensor} has {rank} dimensions, not {len(node.index)}",
        node,
        *where,
    )
    for inner in node.index_nodes:
        _require(inner.sort in INTEGERS, f"an index of sort {inner.sort}", node, *where)
    _require(not node.guard or node.fill is not None, "a guarded load has no fill", node, *where)
    if node.fill is not None:
        alike = node.fill.sort == node.sort
        _require(alike, f"a fill of sort {node.fill.sort} for {tensor}", node, *where)
    for dimension, (index, size) in enumerate(zip(node.index, tensor.shape, strict=True)):
        what = f"the index {_shown(index)} of dimension {dimension} of {tensor}"
        if isinstance(size, str) or any(isinstance(a.size, str) for a in index.axes_free):
            plain = index.axis is None or index.axis.size == size
            _require(
                plain or node.guard,
                f"{what} runs over {index.axis and index.axis.size}",
                node,
                *where,
            )
            continue
        low, high, sure = _index_range(scope, index, node.guard)
        inside = (low >= 0 and high < size) if sure else (low < size and high >= 0)
        _require(inside or low > high, f"{what} runs over {low} .. {high}", node, *where)


def _shown(index: Index) -> str:
    parts = [
        f"{c if c != 1 else ''}{t.name if isinstance(t, Axis) else '%'}" for t, c in index.terms
    ]
    return " + ".join([*parts, *([str(index.offset)] if index.offset or not parts else [])])


def _index_range(scope: Scope, index: Index, guards: tuple[Within, ...]) -> tuple[int, int, bool]:
    """The values of an index where the guards hold; and whether it is sure to take the ends.

    Values that come from memory may be anything in their range, and guards may hold nowhere near
    the ends: an index over those is wrong only if all of its values are.
    """
    bounds = {a: (0, a.size - 1) for a in index.axes_free if isinstance(a.size, int)}
    for guard in guards:
        if len(guard.index.terms) == 1:
            [(axis, c)], shift = guard.index.terms, guard.index.offset
            if isinstance(axis, Axis) and axis in bounds:
                ends = (guard.low - shift, guard.high - 1 - shift)  # of c times the axis
                first, last = ends if c > 0 else ends[::-1]
                low, high = bounds[axis]
                bounds[axis] = (max(low, -(-first // c)), min(high, last // c))
    low = high = index.offset
    for term, coefficient in index.terms:
        if isinstance(term, Axis):
            ends = bounds[term]
        else:
            found = scope.ranges.get(term, ranges.full(term.sort))
            ends = (int(found.low), int(found.high))
        low += min(coefficient * e for e in ends)
        high += max(coefficient * e for e in ends)
    same = [g for g in guards if g.index.terms == index.terms]
    for guard in same:
        shift = index.offset - guard.index.offset
        low, high = max(low, guard.low + shift), min(high, guard.high - 1 + shift)
    return low, high, bool(same) or not (index.nodes or guards)


def range_of(scope: Scope, node: Node) -> Range:
    """The interval of a node's values, from those of its operands."""
    match node:
        case Const(value=value):
            return ranges.point(value)
        case Iota(axis=axis):
            return (
                Range(0.0, float(axis.size - 1))
                if isinstance(axis.size, int)
                else ranges.full(node.sort)
            )
        case Pointwise(op=op, args=args, parameter=parameter):
            known = tuple(scope.ranges.get(a, ranges.full(a.sort)) for a in args)
            return ranges.of_operator(op, node.sort, parameter, known)
        case Reduce(monoid=monoid, axes=axes, body=body):
            count = 1
            for axis in axes:
                count *= axis.size if isinstance(axis.size, int) else 0
            known_body = scope.ranges.get(body, ranges.full(body.sort))
            return ranges.of_monoid(monoid, node.sort, known_body, count or None)
        case _:
            return ranges.full(node.sort)


# ---- stores ----


def check_store(scope: Scope, store: Store, whole: bool) -> None:
    """A store indexes every free axis of its value and addresses no element twice; all elements if
    `whole`.
    """
    tensor = store.tensor
    check_tensor(tensor, store)
    rank = len(tensor.shape)
    _require(
        len(store.index) == rank, f"{tensor} has {rank} dimensions, not {len(store.index)}", store
    )
    sort = sort_of(tensor.dtype)
    _require(
        store.value.sort == sort, f"a value of sort {store.value.sort} is stored in {tensor}", store
    )
    _require(not any(i.nodes for i in store.index), "a store is indexed by axes alone", store)
    axes = [a for index in store.index for a in index.axes_free]
    twice = sorted({a.name for a in axes if axes.count(a) > 1})
    _require(not twice, f"a store indexes {', '.join(twice)} twice", store)
    lost = [a.name for a in store.value.axes_free if a not in axes]
    _require(not lost, f"axes {', '.join(lost)} of the value are not indexed by the store", store)
    for dimension, (index, size) in enumerate(zip(store.index, tensor.shape, strict=True)):
        what = f"dimension {dimension} of {tensor}"
        terms = [(abs(c), t.size) for t, c in index.terms if isinstance(t, Axis)]
        if isinstance(size, str) or any(isinstance(n, str) for _, n in terms):
            plain = index.axis is not None and index.axis.size == size
            _require(plain, f"{what} is not indexed by an axis of its size", store)
            continue
        low, high, _ = _index_range(scope, index, ())
        _require(low >= 0 and high < size, f"a store to {what} runs over {low} .. {high}", store)
        reach = 1  # digits: each step is at least what the smaller digits reach
        for step, count in sorted((s, n) for s, n in terms if isinstance(n, int) and n > 1):
            _require(step >= reach, f"a store addresses elements of {what} twice", store)
            _require(step == reach or not whole, f"a store leaves out elements of {what}", store)
            reach = step * count
        complete = low == 0 and high == size - 1
        _require(complete or not whole, f"a store leaves out elements of {what}", store)
