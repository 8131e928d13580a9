"""Integer terms: their ranges, their affine form, and pointwise nodes built in simplest form.

In: operator and arguments. Out: a node with the same value, where constants are folded, comparisons
that ranges decide are decided, and identities of integers are gone. Masks and indices of jaxprs are
written with many such equations; in simplest form, `x[..., -1]` is an affine index.
Invariant: nothing here rounds; of real operators only `max(-inf, x)` and `min(inf, x)` vanish.

>>> from prism_jax.ir.nodes import Axis, Const, Iota
>>> i = Iota(Axis("i", 8))
>>> pointwise("lt", (i, Const(0, "int32"))).value
False
>>> index_of(pointwise("add", (i, Const(3, "int32")))).offset
3
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence

import numpy as np

from prism_jax.ir.nodes import (
    INTEGERS,
    REAL,
    Axis,
    Const,
    Index,
    Iota,
    Node,
    Parameter,
    Pointwise,
    Reduce,
    Within,
    affine,
    at,
)
from prism_jax.ir.ops import OPS

Range = tuple[int, int]

_ranges: weakref.WeakKeyDictionary[Node, Range] = weakref.WeakKeyDictionary()


def dtype_range(sort: str) -> Range:
    """The least and the greatest value of an integer sort (0 and 1 for booleans)."""
    if sort == "bool":
        return 0, 1
    info = np.iinfo(sort)
    return int(info.min), int(info.max)


def bounds(node: Node) -> Range:
    """A range that holds every value of an integer (or boolean) node."""
    found = _ranges.get(node)
    if found is None:
        whole = dtype_range(node.sort)
        exact = _exact(node)
        fits = exact is not None and whole[0] <= exact[0] and exact[1] <= whole[1]
        found = _ranges[node] = exact if fits and exact is not None else whole
    return found


def _exact(node: Node) -> Range | None:
    """The range before the result wraps around, where this operator has a rule."""
    match node:
        case Const():
            return int(node.value), int(node.value)
        case Iota(axis) if isinstance(axis.size, int):
            return 0, axis.size - 1
        case Reduce(monoid, (axis,)) if monoid.startswith("arg") and isinstance(axis.size, int):
            return 0, axis.size - 1
        case Pointwise("where", (_, a, b)):
            (a0, a1), (b0, b1) = bounds(a), bounds(b)
            return min(a0, b0), max(a1, b1)
        case Pointwise("cast", (a,)) if a.sort != REAL:
            return bounds(a)
        case Pointwise(op, args) if args and all(a.sort in INTEGERS for a in args):
            return _arithmetic(op, [bounds(a) for a in args])
        case _:
            return None


def _arithmetic(op: str, ranges: Sequence[Range]) -> Range | None:
    (a0, a1), (b0, b1) = ranges[0], ranges[-1]
    match op:
        case "add":
            return a0 + b0, a1 + b1
        case "sub":
            return a0 - b1, a1 - b0
        case "neg":
            return -a1, -a0
        case "mul":
            corners = [x * y for x in (a0, a1) for y in (b0, b1)]
            return min(corners), max(corners)
        case "max":
            return max(a0, b0), max(a1, b1)
        case "min":
            return min(a0, b0), min(a1, b1)
        case "div" if a0 >= 0 and b0 > 0:
            return a0 // b1, a1 // b0
        case "rem" if a0 >= 0 and b0 > 0:
            return 0, min(a1, b1 - 1)
        case _:
            return None


def index_range(index: Index) -> Range:
    """A range that holds every value of an index."""
    low = high = index.offset
    for term, coefficient in index.terms:
        if isinstance(term, Axis):
            assert isinstance(term.size, int)
            ends = (0, (term.size - 1) * coefficient)
        else:
            ends = tuple(end * coefficient for end in bounds(term))
        low, high = low + min(ends), high + max(ends)
    return low, high


def inside(index: Index, low: int, high: int) -> bool:
    """Whether `low <= index < high` for every value of its terms."""
    least, greatest = index_range(index)
    return low <= least and greatest < high


def index_of(node: Node) -> Index:
    """The affine form of an integer node; a node that has none becomes a term of its own."""
    exact, whole = _exact(node), dtype_range(node.sort)
    if exact is None or exact[0] < whole[0] or exact[1] > whole[1]:
        return at(node)  # it may wrap around
    match node:
        case Const():
            return at(int(node.value))
        case Iota(axis):
            return at(axis)
        case Pointwise("add", (a, b)):
            return index_of(a) + index_of(b)
        case Pointwise("sub", (a, b)):
            return index_of(a) + index_of(b) * -1
        case Pointwise("neg", (a,)):
            return index_of(a) * -1
        case Pointwise("mul", (a, Const() as b)):
            return index_of(a) * int(b.value)
        case Pointwise("mul", (Const() as a, b)):
            return index_of(b) * int(a.value)
        case Pointwise("cast", (a,)) if a.sort in INTEGERS:
            return index_of(a)
        case _:
            return at(node)


def node_of(index: Index, sort: str | None = None) -> Node:
    """The integer node with an index's value, of the given sort (int32, or int64 if a term is)."""
    if sort is None:
        sort = "int64" if any(node.sort in ("int64", "uint64") for node in index.nodes) else "int32"
    total: Node | None = None
    for term, coefficient in index.terms:
        value = Iota(term, sort) if isinstance(term, Axis) else cast(term, sort)
        if coefficient == -1 and total is not None:
            total = pointwise("sub", (total, value))
            continue
        value = pointwise("mul", (value, Const(coefficient, sort)))
        total = value if total is None else pointwise("add", (total, value))
    if total is None:
        return Const(index.offset, sort)
    return pointwise("add", (total, Const(index.offset, sort)))


def divmod_index(index: Index, divisor: int) -> tuple[Index, Index]:
    """`index // divisor` and `index % divisor`; affine where ranges show that it is."""
    quotient = [(t, c // divisor) for t, c in index.terms if c % divisor == 0]
    rest = affine([(t, c) for t, c in index.terms if c % divisor], index.offset % divisor)
    if inside(rest, 0, divisor):
        return affine(quotient, index.offset // divisor), rest
    node = node_of(index)
    by = Const(divisor, node.sort)
    return index_of(pointwise("div", (node, by))), index_of(pointwise("rem", (node, by)))


def clamp_index(node: Node, high: int) -> Node:
    """`node` forced into 0..high, in its own sort."""
    sort = node.sort
    node = pointwise("max", (node, Const(0, sort)))
    return pointwise("min", (node, Const(min(high, dtype_range(sort)[1]), sort)))


def compare(op: str, index: Index, limit: int) -> Node:
    """`index op limit`, with the index's offset moved to the right."""
    value = node_of(Index(index.terms))
    return pointwise(op, (value, Const(limit - index.offset, value.sort)))


def mask_of(guards: Iterable[Within]) -> Node:
    """The boolean node that says whether all guards hold."""
    mask: Node = Const(True, "bool")
    for guard in guards:
        mask = pointwise("and", (mask, compare("ge", guard.index, guard.low)))
        mask = pointwise("and", (mask, compare("lt", guard.index, guard.high)))
    return mask


def cast(node: Node, dtype: str) -> Node:
    """An opaque cast; the same node where its sort has that dtype already."""
    if node.sort == dtype:
        return node
    if dtype == "bool":
        return pointwise("ne", (node, Const(0, node.sort)))
    return pointwise("cast", (node,), dtype)


_SWAPPED = {"gt": "lt", "le": "ge"}
_CONSTANT = {True: Const(True, "bool"), False: Const(False, "bool")}


def pointwise(op: str, args: tuple[Node, ...], parameter: Parameter = None) -> Node:
    """`Pointwise(op, args, parameter)` in simplest form."""
    if all(isinstance(a, Const) for a in args):
        folded = _fold(op, args, parameter)
        if folded is not None:
            return folded
    if op == "where":
        return _where(*args)
    if op in ("lt", "le", "gt", "ge", "eq", "ne"):
        decided = _compare(op, *args) if args[0].sort in INTEGERS else None
        return Pointwise(op, args) if decided is None else _CONSTANT[decided]
    if op in ("and", "or") and args[0].sort == "bool":
        return _connect(op, *args)
    if op in ("max", "min") and args[0].sort == REAL:
        neutral = -math.inf if op == "max" else math.inf
        for one, other in (args, args[::-1]):
            if isinstance(one, Const) and one.value == neutral:
                return other
    if len(args) == 2 and all(a.sort in INTEGERS for a in args):
        found = _integer_identity(op, *args)
        if found is not None:
            return found
    return Pointwise(op, args, parameter)


def _fold(op: str, args: tuple[Node, ...], parameter: Parameter) -> Const | None:
    node = Pointwise(op, args, parameter)
    arrays = [
        np.asarray(a.value, np.float64 if a.sort == REAL else a.sort)
        for a in args
        if isinstance(a, Const)
    ]
    result = np.asarray(OPS[op].f64(parameter, *arrays))
    if node.sort == REAL and not np.isfinite(result):
        return None  # non-finite constants are opaque
    return Const(result.item(), node.sort)


def _where(test: Node, yes: Node, no: Node) -> Node:
    if isinstance(test, Const):
        return yes if test.value else no
    if isinstance(yes, Const) and isinstance(no, Const) and yes.sort == "bool":
        if bool(yes.value) == bool(no.value):
            return yes
        return test if yes.value else pointwise("not", (test,))
    return yes if yes is no else Pointwise("where", (test, yes, no))


def _compare(op: str, a: Node, b: Node) -> bool | None:
    if op in _SWAPPED:
        op, a, b = _SWAPPED[op], b, a
    (a0, a1), (b0, b1) = bounds(a), bounds(b)
    if op in ("lt", "ge"):
        less = True if a1 < b0 else False if a0 >= b1 else None
        return less if less is None or op == "lt" else not less
    equal = False if a1 < b0 or b1 < a0 else True if a is b else None
    return equal if equal is None or op == "eq" else not equal


def _connect(op: str, a: Node, b: Node) -> Node:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Const):
            return other if bool(one.value) == (op == "and") else one
    return a if a is b else Pointwise(op, (a, b))


def _integer_identity(op: str, a: Node, b: Node) -> Node | None:
    if op in ("max", "min"):
        (a0, a1), (b0, b1) = bounds(a), bounds(b)
        low, high = (a, b) if a1 <= b0 else (b, a) if b1 <= a0 else (None, None)
        return high if op == "max" else low
    neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1}.get(op)
    if isinstance(b, Const) and b.value == neutral:
        return a
    if op in ("add", "mul") and isinstance(a, Const) and a.value == neutral:
        return b
    if op == "div" and isinstance(b, Const) and bounds(a)[0] >= 0 and bounds(a)[1] < int(b.value):
        return Const(0, a.sort)
    if op == "rem" and isinstance(b, Const) and bounds(a)[0] >= 0 and bounds(a)[1] < int(b.value):
        return a
    return None
