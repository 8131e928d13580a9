"""Which output elements the oracle is asked for, within a budget, and the program that gives them.

In: a program, a budget in element operations, a seed. Out: per output, a `Sample`: some rows (all
dimensions but the last) and some columns of each, or everything. `oracle` evaluates the samples in
float64: the axes of an output become sampled values of them, so that the elements of a row share
their work (a row of attention costs one row of scores).

>>> from prism_jax.ir.nodes import Pointwise
>>> i, j = Axis("i", 10_000), Axis("j", 10_000)
>>> x, y = Tensor("x", (10_000, 10_000), "float32"), Tensor("y", (10_000, 10_000), "float32")
>>> exp = Pointwise("exp", (Load(x, (at(i), at(j))),))
>>> found = choose(Program("e", (x,), (Store(y, (at(i), at(j)), exp),)), 1 << 16, seed=0)
>>> found[0].rows.shape, found[0].columns
((64, 1), 256)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Carried,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Store,
    Tensor,
    Within,
    affine,
    at,
)
from prism_jax.ir.program import Program, walk
from prism_jax.ir.values import FLOAT64, Domain

Array: TypeAlias = Any
_SHAPES = ((64, 1 << 30), (64, 256), (32, 128), (16, 64), (8, 64), (4, 64), (4, 32))
"""Rows and columns, tried in this order until the budget bears them."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled elements of one output of this shape: `rows` (n, rank - 1) are coordinates of rows,
    `picked` (columns,) the columns taken of each; None means all of them.
    """

    shape: tuple[int, ...]
    columns: int
    rows: Array | None = None
    picked: Array | None = None

    @property
    def whole(self) -> bool:
        """Whether every element is taken."""
        return self.rows is None and self.picked is None

    def of(self, array: Array) -> Array:
        """The sampled elements of an output, as (rows, columns)."""
        array = np.asarray(array)
        if self.rows is not None:
            array = array[tuple(self.rows.T)]
        array = array.reshape(-1, self.shape[-1] if self.shape else 1)
        return array if self.picked is None else array[:, self.picked]

    def row_coordinates(self) -> Array:
        """(rows, rank - 1)."""
        if self.rows is not None:
            return self.rows
        outer = self.shape[:-1]
        count = math.prod(outer)
        if not outer:
            return np.zeros((1, 0), np.int64)
        return np.stack(np.unravel_index(np.arange(count), outer), -1)

    def restricted(self, rows: Array) -> Sample:
        """Only the rows with these numbers."""
        return replace(self, rows=self.row_coordinates()[rows])

    def points(self, flat: Array) -> Array:
        """The coordinates of elements given by their number in (rows, columns)."""
        if not self.shape:
            return np.zeros((len(flat), 0), np.int64)
        rows = self.row_coordinates()[flat // self.columns]
        columns = flat % self.columns
        last = columns if self.picked is None else self.picked[columns]
        return np.concatenate([rows, last[:, None]], 1)


def choose(program: Program, budget: int, seed: int) -> tuple[Sample, ...]:
    """A sample of every output; `budget` bounds the oracle's work over all of them."""
    share = max(1, budget // max(1, len(program.outputs)))
    rng = np.random.default_rng([seed, 977])
    return tuple(_choose(store, share, rng) for store in program.outputs)


def _choose(store: Store, budget: int, rng: np.random.Generator) -> Sample:
    shape = tuple(int(s) for s in store.tensor.shape)
    row = shape[-1] if shape else 1
    total = math.prod(shape)
    everything = Sample(shape, max(row, 1))
    if not total or not shape or cost(store) <= budget:
        return everything
    sample = everything
    for most_rows, most_columns in _SHAPES:
        sample = _sample(shape, min(most_rows, total // row), min(most_columns, row), rng)
        if cost(_sampled_store(store, sample)[0]) <= budget:
            break
    return sample


def _sample(shape: tuple[int, ...], rows: int, columns: int, rng: np.random.Generator) -> Sample:
    outer = shape[:-1]
    count = math.prod(outer)
    coordinates = None
    if outer:
        many = count > 1 << 22
        flat = rng.integers(0, count, rows) if many else rng.choice(count, rows, replace=False)
        coordinates = np.stack(np.unravel_index(np.sort(flat), outer), -1)
    picked = None if columns == shape[-1] else np.sort(rng.permutation(shape[-1])[:columns])
    return Sample(shape, columns, coordinates, picked)


def cost(store: Store) -> int:
    """Element operations that a whole output takes, about: a contraction's count for an eighth."""
    total = 0
    for node in walk([store.value]):
        axes: set[Axis] = set(node.axes_free)
        if isinstance(node, Reduce):
            axes |= set(node.body.axes_free)
        contraction = isinstance(node, Reduce) and node.monoid == "sum"
        total += math.prod(int(a.size) for a in axes) // (8 if contraction else 1)
    return max(total, 1)


# ---- the program of a sample


def oracle(
    program: Program,
    inputs: Mapping[str, Array],
    samples: Sequence[Sample],
    domain: Domain = FLOAT64,
) -> list[Array]:
    """Every output's sample, as (rows, columns); float64 unless another domain is given."""
    made, given = sampled(program, samples)
    found = evaluate(made, {**inputs, **given}, domain=domain)
    return [np.asarray(v).reshape(-1, s.columns) for v, s in zip(found, samples, strict=True)]


def sampled(program: Program, samples: Sequence[Sample]) -> tuple[Program, dict[str, Array]]:
    """The program of the sampled elements, and its integer inputs that say which they are: other
    rows and columns, equally many, are other numbers for one program.
    """
    stores: list[Store] = []
    given: dict[str, Array] = {}
    tensors = list(program.inputs)
    for n, (store, sample) in enumerate(zip(program.outputs, samples, strict=True)):
        sampled, values = _sampled_store(store, sample, f"*{n}.")
        stores.append(sampled)
        for name, array in values.items():
            tensors.append(Tensor(name, array.shape, "int64"))
            given[name] = array
    return Program(program.name, tuple(tensors), tuple(stores), program.compute), given


def _sampled_store(
    store: Store, sample: Sample, prefix: str = "*"
) -> tuple[Store, dict[str, Array]]:
    """The store of the sampled elements, and the integer inputs that say which they are."""
    if sample.whole or not store.index:
        return store, {}
    *outer, last = store.index
    replaced: dict[Axis, Index] = {}
    values: dict[str, Array] = {}
    shape: list[int] = []
    index: list[Index] = []
    if sample.rows is not None:
        axis = Axis(f"{prefix}rows", len(sample.rows))
        shape.append(len(sample.rows))
        index.append(at(axis))
        for dimension, coordinate in enumerate(sample.rows.T):
            digits = _digits(outer[dimension], coordinate)
            _stand_in(digits, axis, prefix, replaced, values)
    elif outer:
        raise AssertionError("a sample of columns names its rows")
    if sample.picked is not None:
        axis = Axis(f"{prefix}columns", len(sample.picked))
        shape.append(len(sample.picked))
        index.append(at(axis))
        _stand_in(_digits(last, sample.picked), axis, prefix, replaced, values)
    else:
        shape.append(sample.columns)
        index.append(last)
    tensor = Tensor(store.tensor.name, tuple(shape), store.tensor.dtype)
    return Store(tensor, tuple(index), _replace_axes(store.value, replaced)), values


def _stand_in(
    digits: Mapping[Axis, Array],
    label: Axis,
    prefix: str,
    replaced: dict[Axis, Index],
    values: dict[str, Array],
) -> None:
    for axis, value in digits.items():
        name = f"{prefix}{axis.name}"
        values[name] = value
        replaced[axis] = at(Load(Tensor(name, value.shape, "int64"), (at(label),)))


def _digits(index: Index, coordinate: Array) -> dict[Axis, Array]:
    """The axes' values at a coordinate of a store's index, a mixed-radix number."""
    rest = np.asarray(coordinate, np.int64) - index.offset
    terms = [(t, c) for t, c in index.terms if isinstance(t, Axis)]
    assert len(terms) == len(index.terms), "a store is indexed by axes alone"
    for axis, c in terms:  # a reversed axis counts down from its end
        rest = rest - min(0, c) * (int(axis.size) - 1)
    found: dict[Axis, Array] = {}
    for axis, c in sorted(terms, key=lambda tc: (-abs(tc[1]), -int(tc[0].size), tc[0])):
        digit = np.minimum(rest // abs(c), int(axis.size) - 1)
        rest = rest - digit * abs(c)
        found[axis] = digit if c > 0 else int(axis.size) - 1 - digit
    assert (rest == 0).all(), "the store's index does not reach this element"
    return found


def _replace_axes(root: Node, axes: Mapping[Axis, Index]) -> Node:
    """The term with free axes replaced by the value of an integer node each."""
    memo: dict[tuple[Node, frozenset[Axis]], Node] = {}

    def index_of(index: Index, free: frozenset[Axis]) -> Index:
        total = Index((), index.offset)
        for term, c in index.terms:
            if isinstance(term, Axis):
                part = axes[term] if term in free else at(term)
            else:
                part = at(visit(term, free))
            total = total + part * c
        return affine(list(total.terms), total.offset)

    def visit(node: Node, free: frozenset[Axis]) -> Node:
        free &= frozenset(node.axes_free)
        if not free:
            return node
        if (node, free) not in memo:
            memo[node, free] = step(node, free)
        return memo[node, free]

    def step(node: Node, free: frozenset[Axis]) -> Node:
        match node:
            case Iota():
                [(value, _)] = axes[node.axis].terms
                assert isinstance(value, Node)
                dtype = "float64" if node.sort_ == REAL else node.sort_
                return Pointwise("cast", (value,), dtype)
            case Load():
                guard = tuple(Within(index_of(g.index, free), g.low, g.high) for g in node.guard)
                index = tuple(index_of(i, free) for i in node.index)
                return Load(node.tensor, index, guard, node.fill)
            case Pointwise():
                return Pointwise(node.op, tuple(visit(a, free) for a in node.args), node.parameter)
            case Reduce():
                body = visit(node.body, free - frozenset(node.axes))
                return Reduce(node.monoid, node.axes, body, node.precision, node.index_sort)
            case Carried():
                raise AssertionError("a program has no accumulators")
            case _:
                return node

    return visit(root, frozenset(axes))
