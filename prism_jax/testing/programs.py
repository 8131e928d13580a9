"""A Hypothesis strategy for well-formed programs that reaches every operator and every monoid.

Programs are grown from the outputs down, with few small axes, loads of every form (strided,
reversed, guarded, gathered, windows), shared terms, and shrink to one load of one axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st

from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Parameter,
    Pointwise,
    Precision,
    Reduce,
    Store,
    Tensor,
    Within,
    affine,
    at,
    sort_of,
)
from prism_jax.ir.ops import OPS
from prism_jax.ir.program import Program
from prism_jax.ir.text import print_program

T = TypeVar("T")
_SORTS = (REAL, REAL, REAL, "int32", "bool", "uint8", "bool")
DTYPES = ("float32", "float16", "bfloat16", "float64")
_PRECISIONS = (
    Precision("float16", "float32", "float16"),
    Precision("float32", "float32", "float32", "highest"),
)
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _makers(sort: str) -> tuple[tuple[str, str], ...]:
    """What can make a value of a sort: (table, row)."""
    kinds = {"real", "number", "any"} if sort == REAL else {"number", "any", "bits", "integer"}
    kinds = {"any", "bits"} if sort == "bool" else kinds
    found = [("op", n) for n, row in OPS.items() if row.accepts in kinds and n not in _COMPARISONS]
    found = [f for f in found if f[1] != "is_finite"] + [("op", "where")]
    if sort == "bool":
        found += [("op", n) for n in (*_COMPARISONS, "is_finite")]
        monoids = ["any", "all"]
    else:
        monoids = ["sum", "prod", "max", "min"] + (["argmax", "argmin"] if sort != REAL else [])
    return (*found, *(("monoid", n) for n in monoids for _ in range(3)))


_MAKERS = {sort: _makers(sort) for sort in dict.fromkeys(_SORTS)}


@st.composite
def programs(
    draw: st.DrawFn,
    *,
    tame: bool = True,
    operators: tuple[str, ...] | None = None,
    largest: int = 4,
    depth: int = 4,
    outputs: int = 2,
    dtypes: tuple[str, ...] = DTYPES,
    root: str | None = None,
) -> Program:
    """Random well-formed programs.

    Args:
        draw: given by Hypothesis.
        tame: keep every operator in its domain (no logarithm of a negative number, no overflow of
            an exponential), so that float64 values are nearly always finite.
        operators: only these rows of the operator and monoid tables; None for all of them.
        largest: the largest size of an axis.
        depth: the greatest number of operators on a path.
        outputs: the greatest number of outputs.
        dtypes: of real inputs, outputs and casts.
        root: the row of either table that makes the first output; None for any.
    """
    grower = _Grower(draw, tame, operators, largest, dtypes)
    count = draw(st.integers(1, outputs))
    stores = tuple(grower.store(n, depth, root if n == 0 else None) for n in range(count))
    compute = "float64" if any(t.dtype == "float64" for t in grower.tensors) else "float32"
    program = Program("p", tuple(grower.tensors), stores, compute)
    if currently_in_test_context():
        note(print_program(program))  # what a failure shows
    return program


class _Grower:
    def __init__(
        self,
        draw: Callable[..., Any],
        tame: bool,
        operators: tuple[str, ...] | None,
        largest: int,
        dtypes: tuple[str, ...],
    ) -> None:
        self.draw, self.tame, self.operators, self.dtypes = draw, tame, operators, dtypes
        self.precisions = [p for p in _PRECISIONS if p.operand in dtypes]
        self.axes = [Axis(name, draw(st.integers(1, largest))) for name in "ijkl"]
        self.tensors: list[Tensor] = []
        self.made: dict[str, list[Node]] = {}

    def pick(self, *options: T) -> T:
        return self.draw(st.sampled_from(options))

    # ---- outputs ----

    def store(self, number: int, depth: int, root: str | None) -> Store:
        if root is None:
            sort = self.pick(*_SORTS)
            value = self.grow(sort, self.draw(st.integers(0, depth)))
        else:
            sort, table = self.pick(
                *((s, table) for s in _MAKERS for table, name in _MAKERS[s] if name == root)
            )
            make = self.reduce if table == "monoid" else self.apply
            value = make(root, sort, self.draw(st.integers(1, max(1, depth))))
        axes = list(self.draw(st.permutations(value.axes_free)))
        index: list[Index] = [at(a) for a in axes]
        shape = [_number(a) for a in axes]
        change = self.pick("none", "merge", "reverse", "unit")
        if change == "merge" and len(axes) > 1:
            merged = affine([(axes[0], shape[1]), (axes[1], 1)])
            index, shape = [merged, *index[2:]], [shape[0] * shape[1], *shape[2:]]
        elif change == "reverse" and axes:
            index[0] = affine([(axes[0], -1)], shape[0] - 1)
        elif change == "unit":
            index, shape = [at(0), *index], [1, *shape]
        dtype = self.pick(*self.dtypes) if sort == REAL else sort
        return Store(Tensor(f"out{number}", tuple(shape), dtype), tuple(index), value)

    # ---- values ----

    def grow(self, sort: str, depth: int) -> Node:
        """A value of a sort with at most `depth` operators on a path."""
        known = self.made.setdefault(sort, [])
        makers = [m for m in _MAKERS[sort] if self.operators is None or m[1] in self.operators]
        if depth == 0 or not makers:
            node = self.leaf(sort)
        elif known and self.pick(False, False, False, True):
            return self.pick(*known)
        else:
            table, name = self.pick(*makers)
            node = (
                self.reduce(name, sort, depth)
                if table == "monoid"
                else self.apply(name, sort, depth)
            )
        known.append(node)
        return node

    def apply(self, op: str, sort: str, depth: int) -> Node:
        row = OPS[op]
        sorts = (sort,) * row.arity
        if op in _COMPARISONS:
            sorts = (self.pick(REAL, "int32", "bool"),) * 2
        elif op == "is_finite":
            sorts = (REAL,)
        elif op == "where":
            sorts = ("bool", sort, sort)
        elif op == "cast":
            sorts = (self.pick(REAL, "int32", "bool", "uint8"),)
        args = tuple(self.grow(s, depth - 1) for s in sorts)
        if self.tame and sorts[0] == REAL:
            args = self.in_domain(op, args)
        return Pointwise(op, args, self.parameter(op, sort))

    def parameter(self, op: str, sort: str) -> Parameter:
        if op == "integer_pow":
            return self.pick(2, 3, 0, 1, *((-1, -2) if sort == REAL and not self.tame else ()))
        if op == "cast":
            return self.pick(*self.dtypes) if sort == REAL else sort
        return self.pick((8, 7), (5, 10)) if op == "reduce_precision" else None

    def in_domain(self, op: str, args: tuple[Node, ...]) -> tuple[Node, ...]:
        """Arguments for which the operator has a moderate value."""
        if op in ("log", "sqrt", "rsqrt"):
            return (_positive(args[0]),)
        if op == "log1p":
            return (Pointwise("abs", args),)
        if op in ("div", "rem"):
            return args[0], _positive(args[1])
        if op == "pow":
            return _positive(Pointwise("tanh", args[:1])), Pointwise("tanh", args[1:])
        if op in ("exp", "exp2", "expm1"):
            axes = args[0].axes_free
            if axes and self.pick(False, True):  # as a softmax does
                top = Reduce("max", (self.pick(*axes),), args[0])
                return (Pointwise("sub", (args[0], top)),)
            return (Pointwise("min", (args[0], Const(4.0))),)
        if op in ("cast", "tan"):
            return (Pointwise("tanh", args),)
        return args

    def reduce(self, monoid: str, sort: str, depth: int) -> Node:
        index = monoid.startswith("arg")
        body = self.grow(self.pick(REAL, "int32") if index else sort, depth - 1)
        if monoid == "sum" and sort == REAL and self.pick(False, True):
            body = Pointwise("mul", (body, self.grow(REAL, depth - 1)))
        axes = body.axes_free or (self.pick(*self.axes),)
        some = self.draw(st.integers(1, 1 if index else len(axes)))
        chosen = tuple(self.draw(st.permutations(axes)))[:some]
        precision = None
        if monoid == "sum" and isinstance(body, Pointwise) and body.op == "mul" and sort == REAL:
            precision = self.pick(None, *self.precisions)
        return Reduce(monoid, chosen, body, precision, sort if index else None)

    # ---- leaves ----

    def leaf(self, sort: str) -> Node:
        kind = self.pick("load", "load", "load", "const", "iota")
        if kind == "const":
            if sort == REAL:
                return Const(
                    self.pick(1.0, 0.5, -2.0, 0.0, *(() if self.tame else (float("-inf"),)))
                )
            number = st.booleans() if sort == "bool" else st.integers(0, 5)
            return Const(self.draw(number), sort)
        if kind == "iota" and sort == REAL:
            return Pointwise("cast", (Iota(self.pick(*self.axes)),), "float32")
        if kind == "iota" and sort != "bool":
            return Iota(self.pick(*self.axes), sort)
        return self.load(sort)

    def load(self, sort: str, gather: bool = True) -> Node:
        """A load of a new tensor, or of one that has been loaded before."""
        known = [t for t in self.tensors if sort_of(t.dtype) == sort and t.shape]
        if known and self.pick(False, True):
            tensor = self.pick(*known)
            return self.load_again(tensor)
        index: list[Index] = []
        shape: list[int] = []
        guards: list[Within] = []
        for _ in range(self.draw(st.integers(0, 3))):
            one, size, guard = self.dimension(gather)
            index.append(one)
            shape.append(size)
            guards += guard
        dtype = self.pick(*self.dtypes) if sort == REAL else sort
        tensor = Tensor(f"x{len(self.tensors)}", tuple(shape), dtype)
        self.tensors.append(tensor)
        return Load(tensor, tuple(index), tuple(guards), _zero(sort) if guards else None)

    def load_again(self, tensor: Tensor) -> Node:
        index: list[Index] = []
        for size in tensor.shape:
            assert isinstance(size, int)
            fitting = [a for a in self.axes if _number(a) <= size]
            options = [at(a) for a in fitting] + [affine([(a, -1)], size - 1) for a in fitting]
            index.append(self.pick(*options, at(size - 1)))
        return Load(tensor, tuple(index))

    def dimension(self, gather: bool) -> tuple[Index, int, list[Within]]:
        """An index, the size of its dimension, and the guards it needs."""
        axis, other = self.pick(*self.axes), self.pick(*self.axes)
        n, m = _number(axis), _number(other)
        form = self.pick("plain", "plain", "plain", "slice", "reverse", "stride", "window", "merge",
                         "element", "pad", *(("gather",) if gather else ()))  # fmt: skip
        match form:
            case "slice":
                return affine([(axis, 1)], 1), n + 2, []
            case "reverse":
                return affine([(axis, -1)], n - 1), n, []
            case "stride":
                return affine([(axis, 2)]), 2 * n, []
            case "window" if axis != other:
                return affine([(axis, 1), (other, 1)]), n + m - 1, []
            case "merge" if axis != other:
                return affine([(axis, m), (other, 1)]), n * m, []
            case "element":
                return at(1), 2, []
            case "pad" if n > 1:
                inner = affine([(axis, 1)], -1)
                return inner, n - 1, [Within(inner, 0, n - 1)]
            case "gather":
                where = self.load("int32", gather=False)
                low = Pointwise("max", (where, Const(0, "int32")))
                return at(Pointwise("min", (low, Const(n - 1, "int32")))), n, []
            case _:
                return at(axis), n, []


def _number(axis: Axis) -> int:
    assert isinstance(axis.size, int)
    return axis.size


def _zero(sort: str) -> Const:
    return Const(False if sort == "bool" else 0, sort)


def _positive(node: Node) -> Node:
    return Pointwise("add", (Pointwise("abs", (node,)), Const(0.5)))
