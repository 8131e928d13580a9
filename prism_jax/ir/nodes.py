"""The nodes of a tensor program, in index notation.

A program is a DAG of six frozen, interned node kinds. Every node knows its free axes and its sort:
a node with free axes {i, k} denotes one scalar for each value of i and k. Broadcasting is by axis
name, a transpose is only another order of indices, and a contraction is `Reduce(sum, k, a * b)`.
Equality is identity.

* Floats are erased to the sort ``real``. Rounding happens only where the program says so: at the
  inputs, in a `Reduce`'s
  precision record, in opaque casts, at the outputs (design, section 4). Integers and booleans keep
  their dtype.
* An axis bound by a `Reduce` shadows an outer axis of the same name, so that equal reductions under
  different
  binders (softmax's maximum and its sum) share one body.

>>> i, k = Axis("i", 4), Axis("k", 8)
>>> x = Load(Tensor("x", (4, 8), "float32"), (at(i), at(k)))
>>> row = Reduce("sum", (k,), Pointwise("mul", (x, x)))
>>> [axis.name for axis in row.axes_free], row is Reduce("sum", (k,), Pointwise("mul", (x, x)))
(['i'], True)
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

REAL = "real"
FLOATS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SORTS = (REAL, "bool", *INTEGERS)

Size: TypeAlias = int | str
"""A size: a number, or the name of a symbol that instantiation gives a value."""

Parameter: TypeAlias = int | float | str | tuple[int, ...] | None


def sort_of(dtype: str) -> str:
    """The sort that values of a declared dtype have inside a program."""
    return REAL if dtype in FLOATS else dtype


class _Interned(type):
    """Calling a class twice with equal fields gives the same object."""

    _table: ClassVar[weakref.WeakValueDictionary[Any, Any]] = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        new = super().__call__(*args, **kwargs)
        key = (cls, *[_key(getattr(new, name)) for name in new.__dataclass_fields__])
        with _Interned._lock:
            return _Interned._table.setdefault(key, new)


def _key(value: Any) -> Any:
    """Numbers that compare equal but differ (0.0 and -0.0, 1 and 1.0 and True, NaNs) must not be
    merged.
    """
    return (type(value).__name__, repr(value)) if isinstance(value, int | float) else value


@dataclass(frozen=True, order=True)
class Axis:
    """An iteration variable `0 <= name < size`."""

    name: str
    size: Size

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.size))

    def __hash__(self) -> int:  # axes are looked up all the time
        return self._hash

    def __reduce__(self) -> Any:  # hashes of names differ from process to process
        return Axis, (self.name, self.size)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Tensor:
    """A named array in memory: an input, an output, or what one kernel hands to the next."""

    name: str
    shape: tuple[Size, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Index:
    """An affine index: `offset + sum(coefficient * term)`; a term is an axis or an integer node
    (gather, cache position).

    Terms are sorted (axes by name, then nodes by digest), coefficients are not zero.
    """

    terms: tuple[tuple[Axis | Node, int], ...] = ()
    offset: int = 0

    @cached_property
    def axes_free(self) -> tuple[Axis, ...]:
        return _union(((t,) if isinstance(t, Axis) else t.axes_free) for t, _ in self.terms)

    @property
    def axis(self) -> Axis | None:
        """The axis that this index simply is, if it is one."""
        if self.offset == 0 and len(self.terms) == 1 and self.terms[0][1] == 1:
            term = self.terms[0][0]
            return term if isinstance(term, Axis) else None
        return None

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The integer nodes in this index."""
        return tuple(t for t, _ in self.terms if isinstance(t, Node))

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.offset + other)
        return affine([*self.terms, *other.terms], self.offset + other.offset)

    def __mul__(self, factor: int) -> Index:
        return affine([(t, c * factor) for t, c in self.terms], self.offset * factor)


def affine(terms: list[tuple[Axis | Node, int]], offset: int = 0) -> Index:
    """The index `offset + sum(coefficient * term)` in its normal form."""
    total: dict[Axis | Node, int] = {}
    for term, coefficient in terms:
        total[term] = total.get(term, 0) + coefficient
    kept = [(t, c) for t, c in total.items() if c != 0]
    kept.sort(key=lambda tc: (0, tc[0].name) if isinstance(tc[0], Axis) else (1, tc[0].digest))
    return Index(tuple(kept), offset)


def at(what: Axis | Node | int) -> Index:
    """The index that is just this axis, integer node or number."""
    return Index((), what) if isinstance(what, int) else Index(((what, 1),), 0)


@dataclass(frozen=True)
class Within:
    """The predicate `low <= index < high`."""

    index: Index
    low: int
    high: int


@dataclass(frozen=True)
class Precision:
    """What an equation asked for: operand dtype, accumulation dtype, and algorithm of its products.

    `operand` is the dtype the factors are rounded to before they meet ("float16", ...);
    `accumulate` the dtype of the running sum; `algorithm` is "default" (the platform's choice: TF32
    for float32 on NVIDIA), "tf32", "highest", or one of `jax.lax.DotAlgorithmPreset`'s names in
    lower case; `result` the dtype that the equation rounds its result to.
    """

    operand: str
    accumulate: str
    result: str
    algorithm: str = "default"


class Node(metaclass=_Interned):
    """Base of all nodes. Subclasses are frozen dataclasses whose fields alone decide identity."""

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes that this node's value is made of, without the integer nodes in its indices."""
        return ()

    @cached_property
    def axes_free(self) -> tuple[Axis, ...]:
        """Free axes, sorted by name."""
        return _union(child.axes_free for child in self.children)

    @property
    def sort(self) -> str:
        raise AssertionError(f"{type(self).__name__} has no sort")

    @cached_property
    def digest(self) -> str:
        """A structural fingerprint: equal across processes, used wherever an order is needed."""
        parts = [type(self).__name__]
        parts += [fingerprint(getattr(self, f.name)) for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, f.name) for f in dataclasses.fields(self))  # type: ignore[arg-type]

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: Any) -> Node:
        return self


def fingerprint(value: Any) -> str:
    """A text that identifies a field's value; nodes by digest, so that shared terms are not written
    out.
    """
    if isinstance(value, Node):
        return value.digest
    if isinstance(value, tuple):
        return "(" + ",".join(map(fingerprint, value)) + ")"
    if isinstance(value, Index):
        return f"{fingerprint(value.terms)}+{value.offset}"
    if isinstance(value, Within):
        return f"{value.low}<={fingerprint(value.index)}<{value.high}"
    return repr(value)


def _union(groups: Any) -> tuple[Axis, ...]:
    return tuple(sorted({axis for group in groups for axis in group}))


@dataclass(frozen=True, eq=False)
class Const(Node):
    """A number of the given sort."""

    value: bool | int | float
    sort_: str = REAL

    def __post_init__(self) -> None:
        kind = float if self.sort_ == REAL else bool if self.sort_ == "bool" else int
        object.__setattr__(self, "value", kind(self.value))

    @property
    def sort(self) -> str:
        return self.sort_


@dataclass(frozen=True, eq=False)
class Iota(Node):
    """The value of an axis, as an integer."""

    axis: Axis
    sort_: str = "int32"

    @cached_property
    def axes_free(self) -> tuple[Axis, ...]:
        return (self.axis,)

    @property
    def sort(self) -> str:
        return self.sort_


@dataclass(frozen=True, eq=False)
class Load(Node):
    """An element of a tensor: one index per dimension. Where a guard fails, the value is `fill` and
    nothing is read.
    """

    tensor: Tensor
    index: tuple[Index, ...]
    guard: tuple[Within, ...] = ()
    fill: Const | None = None

    @property
    def children(self) -> tuple[Node, ...]:
        return () if self.fill is None else (self.fill,)

    @cached_property
    def axes_free(self) -> tuple[Axis, ...]:
        indices = (*self.index, *(g.index for g in self.guard))
        return _union(index.axes_free for index in indices)

    @cached_property
    def index_nodes(self) -> tuple[Node, ...]:
        """The integer nodes used as indices."""
        indices = (*self.index, *(g.index for g in self.guard))
        return tuple(dict.fromkeys(node for index in indices for node in index.nodes))

    @property
    def sort(self) -> str:
        return sort_of(self.tensor.dtype)


@dataclass(frozen=True, eq=False)
class Pointwise(Node):
    """One row of the operator table (`ir/ops.py`) applied to arguments; `parameter` is the row's
    literal, if it has one.
    """

    op: str
    args: tuple[Node, ...]
    parameter: Parameter = None

    @property
    def children(self) -> tuple[Node, ...]:
        return self.args

    @cached_property
    def sort(self) -> str:  # type: ignore[override]
        from prism_jax.ir.ops import OPS

        return OPS[self.op].sort(tuple(a.sort for a in self.args), self.parameter)


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """A monoid (`ir/ops.py`) over one or more axes of a body. `argmax`/`argmin` give the first
    index, of sort `index_sort`.
    """

    monoid: str
    axes: tuple[Axis, ...]
    body: Node
    precision: Precision | None = None
    index_sort: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(sorted(self.axes)))

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.body,)

    @cached_property
    def axes_free(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.body.axes_free if a not in self.axes)

    @property
    def sort(self) -> str:
        return self.index_sort or self.body.sort


@dataclass(frozen=True, eq=False)
class Carried(Node):
    """Inside a kernel only: the value of an accumulator. `phase` is "old" or "new" within its loop,
    "final" after it.
    """

    accumulator: str
    phase: str
    sort_: str
    axes: tuple[Axis, ...]

    @cached_property
    def axes_free(self) -> tuple[Axis, ...]:
        return tuple(sorted(self.axes))

    @property
    def sort(self) -> str:
        return self.sort_


@dataclass(frozen=True)
class Store:
    """An output: `tensor[index] = value`. The indices address every element once."""

    tensor: Tensor
    index: tuple[Index, ...]
    value: Node
